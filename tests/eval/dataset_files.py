"""Data sets in miniature, written in each of their published layouts, and single colours for pictures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

Value = dict[str, Any]


def write(path: Path, value: object) -> Path:
    """A JSON file, or a text as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def paint(folder: Path, names: Iterable[str]) -> None:
    """A picture for each name, of a colour of its own."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (37 * number % 256, 101 * number % 256, 200)).save(path)


CAPTIONS = {
    "11.jpg": ["Two dogs, running.", "a dog runs"],
    "12.jpg": ["a cat"],
    "13.jpg": [f"bird {n}" for n in range(7)],
}


def captioned(root: Path, layout: str, data_set: str = "flickr30k") -> Path:
    """Three images of the test split with two, one and seven captions, and one of another split."""
    coco = data_set == "coco"
    if layout == "csv":
        lines = ["raw,split,filename"]
        for name, captions in {**CAPTIONS, "14.jpg": ["a fish"]}.items():
            cell = json.dumps(captions).replace('"', '""')
            lines.append(f'"{cell}",{"train" if name == "14.jpg" else "test"},{name}')
        write(root / ("test_5k_mscoco_2014.csv" if coco else "test_1k_flickr.csv"), "\n".join(lines))
        paint(root / "images", CAPTIONS)
    elif layout == "original":
        images = [
            {
                "filename": name,
                "split": "train" if name == "14.jpg" else "test",
                "sentences": [{"raw": caption, "tokens": caption.split(), "sentid": 1} for caption in captions],
                **({"filepath": "val2014", "cocoid": 1} if coco else {}),
            }
            for name, captions in {**CAPTIONS, "14.jpg": ["a fish"]}.items()
        ]
        write(root / f"dataset_{data_set}.json", {"images": images, "dataset": data_set})
        paint(root / ("val2014" if coco else "flickr30k-images"), CAPTIONS)
    elif layout == "listed":
        place = "val2014" if coco else "flickr30k-images"
        listed = [{"image": f"{place}/{name}", "caption": captions} for name, captions in CAPTIONS.items()]
        write(root / ("coco_karpathy_test.json" if coco else "flickr30k_test.json"), listed)
        paint(root / place, CAPTIONS)
    else:
        lines = ["image,caption", *(f"{name},{caption}" for name, own in CAPTIONS.items() for caption in own)]
        write(root / f"{data_set}_test_karpathy.txt", "\n".join(lines))
        paint(root / "images", CAPTIONS)
    return root


def fashioniq(root: Path) -> Path:
    """Three categories with galleries of 12 or more; dress has two queries, the others one."""
    for category, many in (("dress", 14), ("shirt", 12), ("toptee", 12)):
        ids = [f"{category[0].upper()}{n}" for n in range(many)]
        pairs = [{"candidate": ids[0], "target": ids[1], "captions": [" is longer.", "has stripes? "]}]
        if category == "dress":
            pairs.append({"candidate": ids[2], "target": ids[3], "captions": ["is Red", "  . "]})
        write(root / "captions" / f"cap.{category}.val.json", pairs)
        hidden = [{key: value for key, value in pair.items() if key != "target"} for pair in pairs]
        write(root / "captions" / f"cap.{category}.test.json", hidden)
        for split in ("val", "test"):
            write(root / "image_splits" / f"split.{category}.{split}.json", ids)
        paint(root / "images", (f"{image}.{'png' if category == 'shirt' else 'jpg'}" for image in ids))
    return root


CIRR_IMAGES = tuple(f"dev-{n}-0-img0" for n in range(60))


def cirr_pair(number: int, **changed: object) -> Value:
    """The reference is image `number`, the target the next one; six members hold both."""
    members = [CIRR_IMAGES[(number + step) % 60] for step in range(6)]
    return {
        "pairid": 100 + number,
        "reference": members[0],
        "target_hard": members[1],
        "target_soft": {members[1]: 1.0, members[2]: 0.5, members[3]: -1.0},
        "caption": f"show {number} more",
        "img_set": {"id": number, "members": members, "reference_rank": 0, "target_rank": 1},
        **changed,
    }


def cirr(root: Path, pairs: list[Value] | None = None, images: str = "img_raw") -> Path:
    """Sixty images and two queries on val, and the same without targets on test1."""
    pairs = pairs or [cirr_pair(0), cirr_pair(1, caption=" ")]
    files = {image: f"./dev/{image}.png" for image in CIRR_IMAGES}
    hidden = [{key: pair[key] for key in ("pairid", "reference", "caption", "img_set")} for pair in pairs]
    for split, own in (("val", pairs), ("test1", hidden)):
        write(root / "captions" / f"cap.rc2.{split}.json", own)
        write(root / "image_splits" / f"split.rc2.{split}.json", files)
    paint(root / images, (f"dev/{image}.png" for image in CIRR_IMAGES))
    return root


def circo_entry(number: int, **changed: object) -> Value:
    return {
        "reference_img_id": 8 + number,
        "target_img_id": 20,
        "relative_caption": "shows two people",
        "shared_concept": "SECRET girl with an umbrella",
        "gt_img_ids": [20, 21, 22],
        "id": number,
        "semantic_aspects": ["cardinality", "addition"],
        **changed,
    }


def circo(root: Path, entries: list[Value] | None = None, folder: str = "annotations") -> Path:
    """Sixty images and two queries on val, two without answers on test."""
    entries = entries or [circo_entry(0), circo_entry(1, semantic_aspects=["viewpoint", "addition"])]
    hidden = [
        {key: e[key] for key in ("reference_img_id", "relative_caption", "shared_concept", "id")} for e in entries
    ]
    write(root / folder / "val.json", entries)
    write(root / folder / "test.json", hidden)
    names = {number: f"{number:012d}.jpg" for number in range(8, 68)}
    listing = {"images": [{"id": number, "file_name": name} for number, name in names.items()]}
    write(root / "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json", listing)
    paint(root / "COCO2017_unlabeled/unlabeled2017", names.values())
    return root


VISDIAL_IMAGES = tuple(f"unlabeled2017/{number:012d}.jpg" for number in range(8, 20))
CHATIR = "VisDial_v1.0_queries_val"
SAID = ("a bedroom with a desk", "is the photo in color? yes", "any people? no", "what is it? or who? a cat")


def visdial(
    root: Path, said: Mapping[str, tuple[str, ...]] | None = None, name: str = "VisDial_v1.0_queries_val"
) -> Path:
    """Dialogues by image, over twelve images."""
    said = said or {VISDIAL_IMAGES[0]: SAID, VISDIAL_IMAGES[3]: (*SAID[:1], "no question mark", *SAID[2:])}
    write(root / "dialogues" / f"{name}.json", [{"img": image, "dialog": own} for image, own in said.items()])
    write(root / "ChatIR_Protocol" / "Search_Space_val_50k.json", VISDIAL_IMAGES)
    paint(root, VISDIAL_IMAGES)
    return root
