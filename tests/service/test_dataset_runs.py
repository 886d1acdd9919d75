"""Data sets in folders, evaluated from the command line; FieldNotes in their shapes has FieldNotes' own figures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import fieldscope
import fieldscope.fieldnotes.collection
from fieldscope.core.types import Turn
from fieldscope.eval.measures.scoring import NEAR_MISSES
from fieldscope.fieldnotes.collection import ensure_pictures, read_split
from fieldscope.fieldnotes.facts import describe
from fieldscope.fieldnotes.queries import BenchmarkQuery, Split
from fieldscope.fieldnotes.vocabulary import known_words
from tests.eval import dataset_files
from tests.service import fieldnotes_shapes as shapes
from tests.service.conftest import MODELS, SCENES, Run, World

RECALLS = ("recall@1", "recall@5", "recall@10", "recall@50")
CHANGES = ("now in clear weather", "the same, but at night", "now on snow", "in the rain")
ROUNDS = (Turn(question="what is the weather?", answer="at night"), Turn(question="where is it?", answer="in a forest"))


def composed_queries() -> list[BenchmarkQuery]:
    return [
        BenchmarkQuery(f"c{n:03d}", CHANGES[n % 4], describe(scene), "Context", "Weather", reference_image=image)
        for n, (image, scene) in enumerate(SCENES.items())
    ]


COMPOSED = Split(
    "composed-test",
    SCENES,
    tuple(composed_queries()),
    {q.id: frozenset({str((n + 3) % 12 + 1), str((n + 5) % 12 + 1)}) for n, q in enumerate(composed_queries())},
)
DIALOGUE = Split(
    "dialogue-test",
    SCENES,
    tuple(
        BenchmarkQuery(f"d{n:03d}.{done}", text, describe(SCENES["5"]), "Context", "Weather", dialogue=ROUNDS[:done])
        for n, text in enumerate(("a sleeping owl", "two crabs", "a fox"))
        for done in range(3)
    ),
    {f"d{n:03d}.{done}": frozenset(images) for n, images in enumerate(("6", "1", "89")) for done in range(3)},
)


@pytest.fixture
def tasks(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """The world, with composed queries and dialogues over its pictures, and all words of the bundled LMM."""
    shutil.copy(MODELS / "lmm" / "vocabulary.txt", tmp_path / "models" / "lmm" / "vocabulary.txt")
    known_words.cache_clear()
    checksum = fieldscope.fieldnotes.collection.published_checksums()["test"]
    for split in (COMPOSED, DIALOGUE):
        shutil.copytree(world.pictures, world.pictures.parent / split.name)
    names = ("test", COMPOSED.name, DIALOGUE.name)
    monkeypatch.setattr(fieldscope.fieldnotes.collection, "published_checksums", lambda: dict.fromkeys(names, checksum))
    monkeypatch.setattr(fieldscope.fieldnotes.collection, "load_composed", lambda name: COMPOSED)
    monkeypatch.setattr(fieldscope.fieldnotes.collection, "load_dialogue", lambda name: DIALOGUE)
    return world


def comparable(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The means without the share of near misses, which only FieldNotes itself knows."""
    return {name: value for name, value in metrics.items() if name != NEAR_MISSES}


def evaluated(run: Run, *args: object) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a run of `clip` printed, and its metrics.json."""
    result = run("eval", *args, "--strategy", "clip", "--json")
    assert result.exit_code == 0, result.stderr
    (told,) = json.loads(result.stdout)["runs"]
    return told, json.loads((Path(told["out"]) / "metrics.json").read_text())


def regrouped(per_query: Mapping[str, Mapping[str, Any]], native: Mapping[str, str], name: str) -> dict[str, float]:
    """The mean of a metric over the entries that one native query was written as."""
    values: dict[str, list[float]] = {}
    for query, own in per_query.items():
        values.setdefault(native[query], []).append(own[name])
    return {query: sum(of) / len(of) for query, of in values.items()}


def same_figures(run: Run, root: Path, data_set: str, split: str) -> None:
    """FieldNotes' own figures, and those of the same in the shape of another data set."""
    task = {"flickr30k": "", "visdial": "dialogue"}.get(data_set, "composed")
    data = read_split(split, task)
    files = ensure_pictures(data.name)
    native = getattr(shapes, data_set)(root, data, files)
    choices = {"visdial": ["rounds=split"], "cirr": [], "flickr30k": []}.get(data_set, ["reference=removed"])
    chosen = [part for choice in choices for part in ("--set", choice)]
    own, own_metrics = evaluated(run, f"fieldnotes-{task}".rstrip("-"), "--split", split)
    told, metrics = evaluated(run, data_set, "--data", root, *chosen)
    for name in RECALLS if data_set != "circo" else ():
        wanted = {query: values[name] for query, values in own_metrics["per_query"].items()}
        assert regrouped(metrics["per_query"], native, name) == pytest.approx(wanted, abs=1e-12), name
    if data_set == "circo":
        wanted = {name: value for name, value in comparable(own["metrics"]).items() if "recall" not in name}
        assert {name: told["metrics"][name] for name in wanted} == wanted
        assert metrics["breakdowns"]["semantic aspect"]["addition"]["mAP@10"] == told["metrics"]["mAP@10"]
    if data_set == "visdial":
        assert 0 <= told["metrics"]["BRI"] < 7  # the logarithm of some rank
    if data_set == "visdial" and all(len(images) == 1 for images in data.relevant.values()):
        for done, means in own["by_round"].items():
            for name in ("hits@1", "hits@5", "hits@10", "recall@10", "mAP@50"):
                assert told["by_round"][done][name] == means[name], (done, name)


@pytest.mark.parametrize("data_set", ["flickr30k", "fashioniq", "cirr", "circo", "visdial"])
def test_fieldnotes_in_another_shape_has_its_own_figures(run: Run, tasks: World, tmp_path: Path, data_set: str) -> None:
    same_figures(run, tmp_path / "shaped", data_set, "test")


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("data_set", ["flickr30k", "fashioniq", "cirr", "circo", "visdial"])
def test_the_real_fieldnotes_in_another_shape_has_its_own_figures(
    run: Run, tmp_path: Path, data_set: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    same_figures(run, tmp_path / "shaped", data_set, "validation")


def refused(run: Run, *args: object) -> str:
    result = run(*args)
    assert result.exit_code != 0
    return result.stderr


def shaped(data_set: str, root: Path) -> Path:
    """FieldNotes' composed queries in the shape of another data set, in the folder of its name."""
    data = read_split("test", "composed")
    getattr(shapes, data_set)(root / data_set, data, ensure_pictures(data.name))
    return root / data_set


def test_choices_are_in_the_manifest_and_name_the_folder(run: Run, tasks: World, tmp_path: Path) -> None:
    root = shaped("cirr", tmp_path)
    told, _ = evaluated(run, "cirr", "--data", root, "--set", "reference=kept", "--set", "target=soft")
    assert told["out"] == "runs/cirr-validation-reference-kept-target-soft/clip"
    manifest = json.loads((Path(told["out"]) / "manifest.json").read_text())
    assert manifest["configuration"]["benchmark"]["choices"] == {
        "reference": "kept",
        "target": "soft",
        "gallery": "split",
    }
    lines = (Path(told["out"]) / "results.jsonl").read_text().splitlines()
    assert all(r["reference_image"] in [c["image_id"] for c in r["ranking"]] for r in map(json.loads, lines))
    other, _ = evaluated(run, f"cirr:{root}")
    assert other["out"] == "runs/cirr-validation/clip"
    assert other["metrics"]["recall@1"] >= told["metrics"]["recall@1"]
    error = refused(run, "compare", told["out"], other["out"])
    assert "different protocols: reference is kept in the one and removed in the other" in error


def test_python_makes_choices_too(tasks: World, tmp_path: Path) -> None:
    root = shaped("cirr", tmp_path)
    evaluation = fieldscope.evaluate(f"cirr:{root}", ["clip"], choices={"reference": "kept"})
    assert str(evaluation["clip"].folder) == "runs/cirr-validation-reference-kept/clip"
    with pytest.raises(fieldscope.ConfigError, match="unknown reference of cirr 'lost'"):
        fieldscope.evaluate(f"cirr:{root}", ["clip"], choices={"reference": "lost"})


def test_captions_of_a_data_set_serve_all_its_galleries(run: Run, tasks: World, tmp_path: Path) -> None:
    root = shaped("fashioniq", tmp_path)
    names = dict.fromkeys(SCENES, "a green turtle")
    (tmp_path / "captions.json").write_text(json.dumps(names))
    made = run("caption", "fashioniq", "--data", root, "--from", tmp_path / "captions.json")
    assert made.exit_code == 0 and "12 of 12 images" in made.stdout, made.stderr
    strategy = tmp_path / "captioned.yaml"
    strategy.write_text("name: captioned\nretrieve: {caption_weight: 1.0}\nfusion: {method: prior}\n")
    result = run("eval", "fashioniq", "--data", root, "--strategy", strategy)
    assert result.exit_code == 0 and "captions of the images" not in result.stderr
    lines = Path("runs/fashioniq-validation/captioned/results.jsonl").read_text().splitlines()
    for ranking in (json.loads(line)["ranking"] for line in lines):
        assert len({round(candidate["prior"], 6) for candidate in ranking}) == 1, "all captions say the same"


def test_changed_pictures_are_encoded_again(run: Run, tasks: World, tmp_path: Path) -> None:
    root = shaped("circo", tmp_path)
    before, _ = evaluated(run, "circo", "--data", root)
    pictures = root / "COCO2017_unlabeled/unlabeled2017"
    for image in SCENES:
        shutil.copy(pictures / "000000000001.jpg", pictures / f"{int(image):012d}.jpg.new")
        (pictures / f"{int(image):012d}.jpg.new").replace(pictures / f"{int(image):012d}.jpg")
    after, _ = evaluated(run, "circo", "--data", root, "--out", "again")
    assert after["metrics"]["mAP@10"] != before["metrics"]["mAP@10"]


def test_a_run_of_a_data_set_is_replayed_with_its_own_figures(run: Run, tasks: World, tmp_path: Path) -> None:
    root = shaped("circo", tmp_path)
    told, _ = evaluated(run, "circo", "--data", root)
    result = run("eval", "--replay", told["out"], "--out", "again", "--strategy", "clip", "--json")
    assert result.exit_code == 0, result.stderr
    (again,) = json.loads(result.stdout)["runs"]
    assert again["metrics"] == told["metrics"]
    assert again["breakdowns"] == told["breakdowns"]


def test_tables_show_the_data_set_s_own_metrics(run: Run, tasks: World, tmp_path: Path) -> None:
    for data_set, words in (
        ("fashioniq", ("recall@10 by garment", "toptee", "Avg")),
        ("circo", ("mAP@5 by semantic aspect", "addition")),
        ("cirr", ("recall_subset@3", "Avg")),
    ):
        shown = run("eval", data_set, "--data", shaped(data_set, tmp_path), "--strategy", "clip")
        assert shown.exit_code == 0, shown.stderr
        told = " ".join(shown.stdout.split())
        assert all(word in told for word in words), told


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("cirr",), "--data FOLDER"),
        (("cirr", "--data", "nowhere"), "is not a folder"),
        (("cirr", "--data", "cirr", "--set", "reference"), "is not NAME=VALUE"),
        (("cirr", "--data", "cirr", "--set", "refrence=kept"), "did you mean 'reference'?"),
        (("fieldnotes", "--set", "reference=kept"), "is no choice of fieldnotes"),
        (("fieldnotes", "--data", "cirr"), "comes with Fieldscope and has no folder"),
    ],
)
def test_what_does_not_fit_a_data_set_is_refused(
    run: Run, tasks: World, tmp_path: Path, args: tuple[str, ...], words: str
) -> None:
    shaped("cirr", tmp_path)
    error = refused(run, "eval", *args, "--strategy", "clip")
    assert words in error and len(error.splitlines()) <= 4


def test_words_that_the_bundled_models_never_saw_are_refused(run: Run, world: World, tmp_path: Path) -> None:
    error = refused(run, "eval", "cirr", "--data", dataset_files.cirr(tmp_path / "cirr"), "--strategy", "clip")
    assert "has never seen these words: 'show'" in error


def test_a_split_without_answers_is_run_and_says_so(run: Run, tasks: World, tmp_path: Path) -> None:
    root = shaped("circo", tmp_path)
    entries = json.loads((root / "annotations/val.json").read_text())
    hidden = [{k: e[k] for k in ("id", "reference_img_id", "relative_caption", "shared_concept")} for e in entries]
    (root / "annotations/test.json").write_text(json.dumps(hidden))
    result = run("eval", "circo", "--data", root, "--split", "test", "--strategy", "clip", "--json")
    assert result.exit_code == 0, result.stderr
    assert "has a relevant image among its judgments" in result.stderr
    (told,) = json.loads(result.stdout)["runs"]
    assert told["metrics"]["mAP@5"] is None
    error = refused(run, "submission", told["out"], "-o", "files")
    assert "12 queries, and the server of circo wants 800" in error
    assert not Path("files").exists()


LAYOUTS = ("tsv", "jsonl", "beir")


def own_folder(root: Path, layout: str, composed: bool) -> Path:
    """Two of FieldNotes' queries, over the pictures of its test split, in a layout of a folder of one's own."""
    data = read_split("test", "composed" if composed else "")
    files = ensure_pictures(data.name)
    (root / "images").mkdir(parents=True)
    for image, path in files.items():
        shutil.copy(path, root / "images" / f"{image}.png")
    asked = [{"id": q.id, "text": q.text, "reference": q.reference_image} for q in data.queries]
    judged = [(query, image, 1) for query, images in data.relevant.items() for image in images]
    if layout == "tsv":
        rows = [f"{q['id']}\t{q['text']}\t{q['reference'] or ''}" for q in asked]
        (root / "queries.tsv").write_text("\n".join(["id\ttext\treference", *rows]))
        (root / "gallery.tsv").write_text("\n".join(["id\tfile", *(f"{image}\t{image}.png" for image in files)]))
        lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row)) for row in judged)]
        (root / "qrels.tsv").write_text("\n".join(lines))
    else:
        key = "_id" if layout == "beir" else "id"
        lines = [json.dumps({key if k == "id" else k: v for k, v in q.items() if v is not None}) for q in asked]
        (root / "queries.jsonl").write_text("\n".join(lines))
    if layout == "beir":
        (root / "corpus.jsonl").write_text("\n".join(json.dumps({"_id": image}) for image in files))
        (root / "qrels").mkdir()
        lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row)) for row in judged)]
        (root / "qrels" / "test.tsv").write_text("\n".join(lines))
    elif layout == "jsonl":
        lines = [json.dumps({"query": query, "image": image, "score": score}) for query, image, score in judged]
        (root / "qrels.jsonl").write_text("\n".join(lines))
    return root


@pytest.mark.parametrize("composed", [False, True], ids=["text", "composed"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_of_one_s_own_needs_no_code(
    run: Run, tasks: World, tmp_path: Path, layout: str, composed: bool
) -> None:
    told, _ = evaluated(run, "folder", "--data", own_folder(tmp_path / "birds", layout, composed))
    own, _ = evaluated(run, "fieldnotes-composed" if composed else "fieldnotes")
    assert told["metrics"] == comparable(own["metrics"])
    assert Path(told["out"]).parent.name == f"birds-{'test' if layout == 'beir' else 'all'}"


def test_any_metric_has_any_cut_off(run: Run, tasks: World) -> None:
    told, metrics = evaluated(run, "fieldnotes-composed", "--metric", "R@3", "mAP@2")
    values = metrics["per_query"].values()
    assert told["metrics"]["mAP@2"] == pytest.approx(sum(v["AP@2"] for v in values) / len(values))
    assert told["metrics"]["recall@1"] <= told["metrics"]["recall@3"] <= told["metrics"]["recall@5"]
    assert "unknown metric 'F@3'" in refused(run, "eval", "fieldnotes-composed", "--metric", "F@3")
    # A run that has it, and one whose rankings have it to be computed from.
    other, _ = evaluated(run, "fieldnotes-composed", "--out", "plain")
    assert "recall@3" not in other["metrics"]
    result = run("compare", told["out"], other["out"], "--metric", "recall@3", "--metric", "R@4", "--json")
    assert result.exit_code == 0, result.stderr
    assert f"{told['metrics']['recall@3']}"[:6] in result.stdout
