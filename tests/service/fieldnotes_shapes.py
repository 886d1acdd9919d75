"""FieldNotes written out in the published shapes of other data sets.

Those have one right image for each entry, so a query with several is an entry for each: the mean of their recalls is
the query's own. Every function returns the native query's id by that of each new one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from fieldscope.fieldnotes.queries import BenchmarkQuery, Split

Files = Mapping[str, Path]
Shape = Callable[[Path, Split, Files], dict[str, str]]


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def _copy(files: Files, folder: Path, name: Callable[[str], str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for image, path in files.items():
        (folder / name(image)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / name(image))


def _pairs(data: Split) -> list[tuple[BenchmarkQuery, str]]:
    """Each query with each of its relevant images."""
    return [(query, image) for query in data.queries for image in sorted(data.relevant[query.id], key=int)]


def flickr30k(root: Path, data: Split, files: Files) -> dict[str, str]:
    captions: dict[str, list[BenchmarkQuery]] = {image: [] for image in files}
    for query, image in _pairs(data):
        captions[image].append(query)
    images = [
        {"filename": f"{image}.jpg", "split": "test", "sentences": [{"raw": query.text} for query in own]}
        for image, own in captions.items()
    ]
    _write(root / "dataset_flickr30k.json", {"images": images, "dataset": "flickr30k"})
    _copy(files, root / "flickr30k-images", lambda image: f"{image}.jpg")
    return {f"{image}#{n}": query.id for image, own in captions.items() for n, query in enumerate(own)}


def fashioniq(root: Path, data: Split, files: Files) -> dict[str, str]:
    """The queries in turn belong to the three categories, whose galleries are all of the images."""
    categories = ("dress", "shirt", "toptee")
    rows: dict[str, list[tuple[BenchmarkQuery, str]]] = {category: [] for category in categories}
    for number, pair in enumerate(_pairs(data)):
        rows[categories[number % 3]].append(pair)
    for category, pairs in rows.items():
        entries = [{"target": i, "candidate": q.reference_image, "captions": [q.text, "  "]} for q, i in pairs]
        _write(root / "captions" / f"cap.{category}.val.json", entries)
        _write(root / "image_splits" / f"split.{category}.val.json", list(files))
    _copy(files, root / "images", lambda image: f"{image}.png")
    return {f"{c}-{row}": query.id for c, pairs in rows.items() for row, (query, _) in enumerate(pairs)}


def cirr(root: Path, data: Split, files: Files) -> dict[str, str]:
    images = list(files)
    entries = []
    for number, (query, target) in enumerate(_pairs(data)):
        others = [image for image in images if image not in (query.reference_image, target)]
        members = [query.reference_image, target, *others[number % 5 : number % 5 + 4]]
        entries.append(
            {
                "pairid": number,
                "reference": query.reference_image,
                "target_hard": target,
                "target_soft": {target: 1.0},
                "caption": query.text,
                "img_set": {"id": number, "members": members, "reference_rank": 0, "target_rank": 1},
            }
        )
    _write(root / "captions" / "cap.rc2.val.json", entries)
    _write(root / "image_splits" / "split.rc2.val.json", {image: f"./dev/{image}.png" for image in images})
    _copy(files, root / "img_raw" / "dev", lambda image: f"{image}.png")
    return {str(number): query.id for number, (query, _) in enumerate(_pairs(data))}


def circo(root: Path, data: Split, files: Files) -> dict[str, str]:
    """The only shape with several right images, so every figure is the same."""
    entries = [
        {
            "id": number,
            "reference_img_id": int(query.reference_image or 0),
            "target_img_id": int(min(data.relevant[query.id], key=int)),
            "relative_caption": query.text,
            "shared_concept": "an animal",
            "gt_img_ids": sorted(map(int, data.relevant[query.id])),
            "semantic_aspects": ["addition"],
        }
        for number, query in enumerate(data.queries)
    ]
    _write(root / "annotations" / "val.json", entries)
    listing = [{"id": int(image), "file_name": f"{int(image):012d}.jpg"} for image in files]
    _write(root / "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json", {"images": listing})
    _copy(files, root / "COCO2017_unlabeled/unlabeled2017", lambda image: f"{int(image):012d}.jpg")
    return {str(number): query.id for number, query in enumerate(data.queries)}


def visdial(root: Path, data: Split, files: Files) -> dict[str, str]:
    def path(image: str) -> str:
        return f"unlabeled2017/{int(image):012d}.jpg"

    whole: dict[str, BenchmarkQuery] = {}
    for query in data.queries:  # of each dialogue the query that has heard all of it
        whole[query.id.rpartition(".")[0]] = query
    dialogues = [
        (query.id.rpartition(".")[0], image, query)
        for query in whole.values()
        for image in sorted(data.relevant[query.id], key=int)
    ]
    said = [
        {"img": path(image), "dialog": [q.text, *(f"{turn.question} {turn.answer}" for turn in q.dialogue)]}
        for _, image, q in dialogues
    ]
    _write(root / "dialogues" / "VisDial_v1.0_queries_val.json", said)
    _write(root / "ChatIR_Protocol" / "Search_Space_val_50k.json", [path(image) for image in files])
    _copy(files, root, path)
    return {
        f"{row:04d}.{done}": f"{dialogue}.{done}"
        for row, (dialogue, _, query) in enumerate(dialogues)
        for done in range(len(query.dialogue) + 1)
    }
