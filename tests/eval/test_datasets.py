"""Published data sets, read in each of their layouts, and refused in a line that names file and field."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fieldscope.core.errors import BenchmarkError, ConfigError
from fieldscope.core.types import Turn
from fieldscope.eval.datasets.circo import load_circo
from fieldscope.eval.datasets.cirr import load_cirr
from fieldscope.eval.datasets.dataset import Dataset
from fieldscope.eval.datasets.fashioniq import load_fashioniq
from fieldscope.eval.datasets.karpathy import COCO, FLICKR30K, load_karpathy
from fieldscope.eval.datasets.visdial import DIALOGUES, RAW, load_visdial
from fieldscope.retrieval.encoder import query_text
from tests.eval import dataset_files as files

SOURCES = {"flickr30k": FLICKR30K, "coco": COCO}


@pytest.mark.parametrize("data_set", SOURCES)
@pytest.mark.parametrize("layout", ["csv", "original", "listed", "text"])
def test_every_layout_of_captions_gives_the_same_queries(tmp_path: Path, layout: str, data_set: str) -> None:
    read = load_karpathy(SOURCES[data_set], files.captioned(tmp_path, layout, data_set), None, {})
    bench = read.benchmark
    assert (bench.name, bench.split, read.galleries) == (data_set, "test", {"": ("11.jpg", "12.jpg", "13.jpg")})
    assert [query.id for query in bench.queries][:3] == ["11#0", "11#1", "12#0"]
    assert bench.queries[0].text == "Two dogs, running."
    assert len(bench.queries) == 10
    assert bench.qrels["13#6"] == {"13.jpg": 1}
    assert bench.oddities == ()
    assert read.images.load("13.jpg").size == (32, 32)


def test_five_captions_an_image_are_a_choice(tmp_path: Path) -> None:
    root = files.captioned(tmp_path, "csv", "coco")
    read = load_karpathy(COCO, root, "test", {"captions_per_image": "5"})
    assert len(read.benchmark.queries) == 2 + 1 + 5
    assert read.benchmark.protocol.choices == {"captions_per_image": "5"}
    assert read.benchmark.fingerprint != load_karpathy(COCO, root, "test", {}).benchmark.fingerprint


def test_a_cell_of_captions_is_read_and_never_run(tmp_path: Path) -> None:
    root = files.captioned(tmp_path, "csv")
    table = root / "test_1k_flickr.csv"
    table.write_text('raw,split,filename\n"[\'it\'\'s\', ""a dog""]",test,11.jpg\n'.replace("''", ""))
    assert [q.text for q in load_karpathy(FLICKR30K, root, None, {}).benchmark.queries] == ["its", "a dog"]
    table.write_text("raw,split,filename\n__import__('os').getcwd(),test,11.jpg\n")
    with pytest.raises(BenchmarkError, match=r"test_1k_flickr.csv, line 2: raw is not a list"):
        load_karpathy(FLICKR30K, root, None, {})


def test_fashioniq_has_a_gallery_for_each_category(tmp_path: Path) -> None:
    read = load_fashioniq(files.fashioniq(tmp_path), None, {})
    bench = read.benchmark
    assert bench.split == "validation"
    assert [(q.id, q.text, q.reference_image) for q in bench.queries] == [
        ("dress-0", "is longer and has stripes", "D0"),
        ("dress-1", "is Red", "D2"),
        ("shirt-0", "is longer and has stripes", "S0"),
        ("toptee-0", "is longer and has stripes", "T0"),
    ]
    assert {name: len(ids) for name, ids in read.galleries.items()} == {"dress": 14, "shirt": 12, "toptee": 12}
    assert read.gallery_of["shirt-0"] == "shirt"
    assert bench.protocol.keeps_reference and bench.protocol.by_group
    assert read.images.files["S3"].suffix == ".png"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"join": "reversed"}, "has stripes and is longer"),
        ({"join": "and-token"}, "is longer <and> has stripes"),
        ({"join": "and"}, "is longer and has stripes"),
    ],
)
def test_how_captions_are_joined_is_a_choice(tmp_path: Path, choice: Mapping[str, str], expected: str) -> None:
    bench = load_fashioniq(files.fashioniq(tmp_path), "val", choice).benchmark
    assert bench.queries[0].text == expected
    assert bench.protocol.choices["join"] == choice["join"]


def test_fashioniq_s_galleries_are_a_choice(tmp_path: Path) -> None:
    root = files.fashioniq(tmp_path)
    assert load_fashioniq(root, None, {"gallery": "val-split"}).galleries["dress"] == ("D0", "D1", "D2", "D3")
    union = load_fashioniq(root, None, {"gallery": "union"}).galleries
    assert len(union["dress"]) == 38 and union["dress"] == union["shirt"]
    only = load_fashioniq(root, None, {"category": "toptee"})
    assert [query.id for query in only.benchmark.queries] == ["toptee-0"] and list(only.galleries) == ["toptee"]


@pytest.mark.parametrize("images", ["img_raw", "."])
def test_cirr_is_read_with_its_small_galleries(tmp_path: Path, images: str) -> None:
    read = load_cirr(files.cirr(tmp_path, images=images), "validation", {})
    bench = read.benchmark
    assert [(q.id, q.text, q.reference_image) for q in bench.queries] == [
        ("100", "show 0 more", "dev-0-0-img0"),
        ("101", "the same image", "dev-1-0-img0"),
    ]
    assert bench.oddities == ("pair 101 has no caption; 'the same image' stands in for it",)
    assert bench.qrels["100"] == {"dev-1-0-img0": 1}
    assert bench.protocol.subsets["100"] == tuple(files.CIRR_IMAGES[1:6])
    assert not bench.protocol.keeps_reference
    assert bench.protocol.credits["100"] == {"dev-1-0-img0": 1.0}
    assert len(read.galleries[""]) == 60


def test_cirr_s_soft_targets_and_kept_references_are_choices(tmp_path: Path) -> None:
    bench = load_cirr(files.cirr(tmp_path), None, {"target": "soft", "reference": "kept"}).benchmark
    assert bench.protocol.credits["100"]["dev-2-0-img0"] == 0.5
    assert bench.protocol.keeps_reference
    assert bench.protocol.choices == {"reference": "kept", "target": "soft", "gallery": "split"}


def test_cirr_s_small_galleries_may_be_all_that_is_searched(tmp_path: Path) -> None:
    read = load_cirr(files.cirr(tmp_path), None, {"gallery": "subset"})
    for query in read.benchmark.queries:
        searched = read.galleries[read.gallery_of[query.id]]
        assert len(searched) == 5 and query.reference_image not in searched
        assert read.benchmark.qrels[query.id].keys() <= set(searched)


@pytest.mark.parametrize("folder", ["annotations", "captions"])
def test_circo_has_one_target_among_its_answers(tmp_path: Path, folder: str) -> None:
    bench = load_circo(files.circo(tmp_path, folder=folder), None, {}).benchmark
    assert bench.qrels["0"] == {"20": 1, "21": 1, "22": 1}
    assert bench.protocol.credits["0"] == {"20": 1.0}
    assert bench.protocol.groups["1"] == ("viewpoint", "addition")
    assert bench.protocol.keeps_reference


@pytest.mark.parametrize(
    ("load", "make", "split"),
    [(load_cirr, files.cirr, "test1"), (load_circo, files.circo, "test"), (load_fashioniq, files.fashioniq, "test")],
)
def test_a_split_without_public_answers_has_no_judgments(
    tmp_path: Path, load: Callable[..., Dataset], make: Callable[[Path], Path], split: str
) -> None:
    bench = load(make(tmp_path), split, {}).benchmark
    assert bench.split == split
    assert not any(bench.qrels.values()) and not bench.protocol.credits


def test_no_answer_can_reach_a_prompt(tmp_path: Path) -> None:
    """A query has its own words and its reference; what targets and reference share is not even read."""
    bench = load_circo(files.circo(tmp_path), None, {}).benchmark
    for query in bench.queries:
        assert set(query.model_dump(exclude_defaults=True)) == {"id", "text", "reference_image"}
    assert "SECRET" not in repr(bench)


def test_a_dialogue_is_a_query_for_each_round(tmp_path: Path) -> None:
    read = load_visdial(files.visdial(tmp_path), None, {})
    bench = read.benchmark
    assert [query.id for query in bench.queries] == [f"{row:04d}.{done}" for row in range(2) for done in range(4)]
    assert query_text(bench.queries[2]) == "a bedroom with a desk, is the photo in color? yes, any people? no"
    assert bench.rounds == {query.id: int(query.id[-1]) for query in bench.queries}
    assert bench.dialogues[1] == ["0001.0", "0001.1", "0001.2", "0001.3"]
    assert bench.qrels["0001.0"] == {files.VISDIAL_IMAGES[3]: 1}
    assert read.galleries[""] == files.VISDIAL_IMAGES


def test_questions_and_answers_are_told_apart_after_the_first_mark(tmp_path: Path) -> None:
    bench = load_visdial(files.visdial(tmp_path), None, {"rounds": "split"}).benchmark
    assert bench.queries[3].dialogue[::2] == (
        Turn(question="is the photo in color?", answer="yes"),
        Turn(question="what is it?", answer="or who? a cat"),
    )
    assert bench.queries[5].dialogue == (Turn(question="", answer="no question mark"),)


def test_reformulated_entries_stand_alone_and_are_rounds_all_the_same(tmp_path: Path) -> None:
    name = "ours_final_chatgpt_reconed"
    root = files.visdial(tmp_path, {files.VISDIAL_IMAGES[2]: ("a cat", "a black cat", "a black cat asleep")}, name)
    bench = load_visdial(root, None, {}).benchmark
    assert bench.protocol.choices == {"dialogues": name, "rounds": "reformulated", "hits_from_round": "0"}
    assert [query_text(query) for query in bench.queries] == ["a cat", "a black cat", "a black cat asleep"]
    assert bench.rounds == {"0000.0": 0, "0000.1": 1, "0000.2": 2}


@pytest.mark.parametrize("name", ["ChatGPT_BLIP2", "FLAN_ALPACA_XXL_BLIP2", "Human_BLIP2", "Unanswered_ChatGPT_BLIP2"])
def test_the_other_dialogues_are_a_choice(tmp_path: Path, name: str) -> None:
    root = files.visdial(tmp_path)
    files.visdial(tmp_path, {files.VISDIAL_IMAGES[1]: ("a dog",)}, name)
    assert len(load_visdial(root, None, {}).benchmark.queries) == 8
    bench = load_visdial(root, None, {"dialogues": name}).benchmark
    assert [query.text for query in bench.queries] == ["a dog"]


def test_imagescope_s_layout_has_the_dialogues_beside_the_images(tmp_path: Path) -> None:
    made = files.visdial(tmp_path)
    (made / "dialogues" / f"{DIALOGUES[0]}.json").rename(made / f"{DIALOGUES[0]}.json")
    (made / "dialogues").rmdir()
    (made / "ChatIR_Protocol" / "Search_Space_val_50k.json").rename(made / "Search_Space_val_50k.json")
    assert len(load_visdial(made, None, {"hits_from_round": "1"}).benchmark.queries) == 8


def test_visdial_s_own_file_is_read_as_chatir_has_it(tmp_path: Path) -> None:
    files.visdial(tmp_path)
    data = {
        "questions": ["any people", "is the photo in color"],
        "answers": ["no", "yes"],
        "dialogs": [
            {
                "image_id": 9,
                "caption": "a bedroom with a desk",
                "dialog": [{"question": 1, "answer": 1, "gt_index": 0, "answer_options": [0, 1]}],
            }
        ],
    }
    files.write(tmp_path / f"{RAW}.json", {"version": "1.0", "split": "val2018", "data": data})
    bench = load_visdial(tmp_path, None, {"dialogues": RAW}).benchmark
    assert query_text(bench.queries[1]) == "a bedroom with a desk, is the photo in color? yes"
    assert bench.qrels["0000.1"] == {"unlabeled2017/000000000009.jpg": 1}


def broken(path: Path, change: Callable[[Any], object]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def without(key: str) -> Callable[[Any], object]:
    return lambda entries: [{k: v for k, v in entry.items() if k != key} for entry in entries]


def with_second(**values: object) -> Callable[[Any], object]:
    return lambda entries: [entries[0], {**entries[1], **values}]


WRONG: list[tuple[Callable[..., Dataset], Callable[[Path], Path], str, Callable[[Any], object], str]] = [
    (load_cirr, files.cirr, "captions/cap.rc2.val.json", without("reference"), r"entry 1: missing key 'reference'"),
    (load_cirr, files.cirr, "captions/cap.rc2.val.json", with_second(pairid="x"), r"entry 2: pairid: "),
    (
        load_cirr,
        files.cirr,
        "captions/cap.rc2.val.json",
        with_second(img_set={}),
        r"entry 2: missing key 'img_set",
    ),
    (load_cirr, files.cirr, "captions/cap.rc2.val.json", with_second(target_hard="z"), r"entry 2: target_hard: 'z' is"),
    (load_cirr, files.cirr, "image_splits/split.rc2.val.json", lambda _: ["a"], r"split.rc2.val.json: "),
    (load_cirr, files.cirr, "image_splits/split.rc2.val.json", lambda old: {**old, "e": "../../x"}, r"not below its"),
    (load_circo, files.circo, "annotations/val.json", without("id"), r"val.json, entry 1: missing key 'id'"),
    (load_circo, files.circo, "annotations/val.json", with_second(gt_img_ids=["20"]), r"entry 2: gt_img_ids.0: "),
    (load_circo, files.circo, "annotations/val.json", with_second(target_img_id=30), r"entry 2: target_img_id: "),
    (load_circo, files.circo, "annotations/val.json", with_second(reference_img_id=7), r"entry 2: reference_img_id: 7"),
    (
        load_circo,
        files.circo,
        "annotations/val.json",
        with_second(semantic_aspects=["x"]),
        r"2: semantic_aspects",
    ),
    (load_fashioniq, files.fashioniq, "captions/cap.dress.val.json", with_second(captions="x"), r"entry 2: captions: "),
    (load_fashioniq, files.fashioniq, "captions/cap.dress.val.json", with_second(target="x"), r"entry 2: target: 'x'"),
    (load_fashioniq, files.fashioniq, "image_splits/split.shirt.val.json", lambda _: {}, r"split.shirt.val.json: "),
    (load_visdial, files.visdial, f"dialogues/{files.CHATIR}.json", without("img"), r"1: missing key 'img'"),
    (
        load_visdial,
        files.visdial,
        f"dialogues/{files.CHATIR}.json",
        with_second(dialog=[]),
        r"entry 2: dialog",
    ),
    (
        load_visdial,
        files.visdial,
        f"dialogues/{files.CHATIR}.json",
        with_second(img="x.jpg"),
        r"2: img: 'x.jpg",
    ),
]


@pytest.mark.parametrize(("load", "make", "file", "change", "message"), WRONG)
def test_a_wrong_file_is_refused_in_a_line_that_names_the_field(
    tmp_path: Path,
    load: Callable[..., Dataset],
    make: Callable[[Path], Path],
    file: str,
    change: Callable[[Any], object],
    message: str,
) -> None:
    broken(make(tmp_path) / file, change)
    with pytest.raises(BenchmarkError, match=message) as refused:
        load(tmp_path, None, {})
    assert Path(file).name in str(refused.value) and "\n" not in str(refused.value)


def test_missing_pictures_are_listed_and_missing_references_refused(tmp_path: Path) -> None:
    root = files.circo(tmp_path)
    pictures = root / "COCO2017_unlabeled/unlabeled2017"
    (pictures / "000000000040.jpg").unlink()
    (oddity,) = load_circo(root, None, {}).benchmark.oddities
    assert oddity.startswith("1 of 60 images have no file") and "40" in oddity
    (pictures / "000000000008.jpg").unlink()
    with pytest.raises(BenchmarkError, match=r"1 reference images have no file .*: 8 "):
        load_circo(root, None, {})


def test_a_folder_without_the_files_is_refused(tmp_path: Path) -> None:
    for load in (load_cirr, load_circo, load_fashioniq, load_visdial):
        with pytest.raises(BenchmarkError, match=r"has none of .*--data"):
            load(tmp_path, None, {})
    with pytest.raises(BenchmarkError, match=r"is not a folder"):
        load_cirr(tmp_path / "nowhere", None, {})


def test_an_unknown_choice_is_refused(tmp_path: Path) -> None:
    root = files.cirr(tmp_path)
    with pytest.raises(ConfigError, match=r"unknown choice of cirr 'referense' \(did you mean 'reference'\?\)"):
        load_cirr(root, None, {"referense": "kept"})
    with pytest.raises(ConfigError, match=r"unknown reference of cirr 'keep'"):
        load_cirr(root, None, {"reference": "keep"})
