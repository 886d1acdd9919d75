"""`fieldscope calibrate` and `fieldscope measure` on a dozen pictures, with a model that thinks, sees, and errs."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from PIL import Image

import fieldscope.service.wiring.models
import fieldscope.service.wiring.scorers
from fieldscope.agent.calibration import Calibration, calibration_key
from fieldscope.agent.lmm.base import LMM, LMMRequest, LMMResponse, TokenLogprob, Tokens
from fieldscope.agent.lmm.scripted import Answer, ScriptedLMM
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.core.types import ImageSource
from fieldscope.fieldnotes.rerank import SCHEMA
from fieldscope.retrieval.collection import FolderCollection
from fieldscope.retrieval.encoder import QueryInputs
from fieldscope.retrieval.scorer import Document
from fieldscope.service.wiring.calibrations import find_calibration, load_calibrations, save_calibration
from tests.service.conftest import RELEVANT, Run, World

IDENTITY = "a thinker"
USAGE = Tokens(prompt_tokens=50, completion_tokens=5)


def payload(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    value = json.loads(result.stdout)
    assert isinstance(value, dict)
    return value


def rows(world: World, supercategory: str = "Species") -> list[dict[str, Any]]:
    """Every query over all pictures; the first stage likes the earlier ones better."""
    return [
        {
            **{field.name: "" if pa.types.is_string(field.type) else 0 for field in SCHEMA},
            "image": {"bytes": path.read_bytes(), "path": path.name},
            "query": text,
            "relevant": int(str(int(path.stem)) in relevant),
            "clip_score": -number / 10,
            "inat24_image_id": number,
            "supercategory": supercategory,
        }
        for text, relevant in RELEVANT.items()
        for number, path in enumerate(sorted(world.pictures.glob("*.png")))
    ]


@pytest.fixture
def sets(world: World, tmp_path: Path) -> Path:
    """A validation and a test split, of the same queries."""
    folder = tmp_path / "sets"
    folder.mkdir()
    for split in ("validation", "test"):
        table = pa.Table.from_pylist(rows(world), schema=SCHEMA)
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    return folder


@pytest.fixture
def thinker(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A model that decomposes a query into itself, is mostly right about one image and always about two, and likes
    whatever is shown first a little better."""
    pictures = FolderCollection(world.pictures)
    ids = {pictures.pixel_hash(name): str(int(Path(name).stem)) for name in pictures.ids()}

    def answer(request: LMMRequest) -> Answer:
        world.asked.append(request)
        text = next(text for text in RELEVANT if text in request.text)
        shown = [ids[image.sha256] for image in request.images]
        if not shown and "thought" in request.text.splitlines()[-1]:
            fact = {"text": text, "words": text, "type": "addition"}
            told: dict[str, Any] = dict.fromkeys(("thought", "core", "detailed", "comprehensive"), text)
            return LMMResponse(text=json.dumps(told | {"instructions": [fact]}), usage=USAGE)
        if not shown:
            question = {"question": f"does it show {text}?", "expected": "yes", "words": text, "type": "subject"}
            return LMMResponse(text=json.dumps({"predicates": [question]}), usage=USAGE)
        if "reason" in request.text:
            return LMMResponse(text="yes, it is there.", usage=USAGE)
        matches = [image_id in RELEVANT[text] for image_id in shown]
        if len(shown) == 1:
            mistaken = int(shown[0]) % 5 == len(text) % 5
            return 0.7 if matches[0] != mistaken else 0.15
        taste = 0.3 * (int(shown[0]) - int(shown[1]))  # about what does not matter
        odds = 6.0 * (matches[0] - matches[1]) + taste + 0.4
        logs = (-math.log1p(math.exp(-odds)), -math.log1p(math.exp(odds)))
        best = tuple(TokenLogprob(token=letter, logprob=log) for letter, log in zip("ab", logs, strict=True))
        return LMMResponse(text="a", answer_logprobs=best, usage=USAGE)

    def think(images: ImageSource) -> LMM:
        return ScriptedLMM(answer, identity=IDENTITY)

    monkeypatch.setattr(fieldscope.service.wiring.models, "bundled_lmm", think)
    return world


def test_a_fit_is_kept_where_it_is_found(run: Run, sets: Path, thinker: World) -> None:
    told = payload(run("calibrate", sets, "--strategy", "agent", "--json"))
    assert (told["split"], told["queries"]) == ("validation", 4)
    assert 0.5 < told["consistency"] <= 1
    assert told["position_bias"] == pytest.approx(0.4, abs=0.05)
    assert told["comparison_weight"] > 0
    assert told["key"]["model"] == IDENTITY
    assert set(told["key"]["prompts"]) == {"ask_predicate", "match_yes_no"}
    assert set(told["key"]["comparing"]) == {"compare_pair", "compare_pair_reference"}
    assert set(told["tokens"]) >= {"synthesize:prompt", "verify:prompt", "compare:completion"}
    file = Path(told["out"])
    assert file.parent == thinker.cache / "calibrations"
    (kept,) = load_calibrations(file)
    for name in ("agent", "predicates"):
        assert find_calibration(IDENTITY, load_strategy(name, prompts="fieldnotes"), None) == kept
    assert find_calibration(IDENTITY, load_strategy("pairwise", prompts="fieldnotes"), None) is None
    assert find_calibration(IDENTITY, load_strategy("agent", prompts="fieldnotes"), "another first stage") is None
    assert find_calibration("another model", load_strategy("agent", prompts="fieldnotes"), None) is None
    assert find_calibration(None, load_strategy("clip", prompts="fieldnotes"), None) is None


def test_a_fit_with_a_scoring_model_belongs_to_it(
    run: Run, sets: Path, thinker: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Brightness:
        fingerprint = "brightness"

        def score(self, inputs: QueryInputs, documents: Sequence[Document]) -> list[float | None]:
            return [float(np.asarray(document).mean()) for document in documents]

    monkeypatch.setattr(fieldscope.service.wiring.scorers, "load_scorer", lambda name, settings: Brightness())
    told = payload(run("calibrate", sets, "--strategy", "cascade", "--scorer", "brightness", "--json"))
    assert told["key"]["scorer"] == "brightness" and told["scorer_weight"] >= 0
    assert ("first_look" in told) == (told["scorer_weight"] > 0)  # a scorer that tells nothing leaves out no image
    (kept,) = load_calibrations(Path(told["out"]))
    cascade = load_strategy("cascade", prompts="fieldnotes")
    assert find_calibration(IDENTITY, cascade, None, "brightness") == kept
    assert find_calibration(IDENTITY, cascade, None, "another scorer") is None
    assert find_calibration(IDENTITY, load_strategy("agent", prompts="fieldnotes"), None) is None
    without = run("calibrate", sets, "--strategy", "cascade")
    assert without.exit_code == 1 and "name one with --scorer" in without.stderr


def test_a_second_fit_asks_nothing_and_is_the_same(run: Run, sets: Path, thinker: World) -> None:
    first = payload(run("calibrate", sets, "--json"))
    asked = len(thinker.asked)
    again = payload(run("calibrate", sets, "--json"))
    assert again == first
    assert len(thinker.asked) == asked
    assert len(list((thinker.cache / "calibrations").iterdir())) == 1


def test_a_fit_decides_the_runs_that_follow(run: Run, sets: Path, thinker: World) -> None:
    def manifest(out: str) -> str:
        payload(run("eval", sets, "--strategy", "predicates", "--out", out, "--json"))
        return Path(out, "predicates", "manifest.json").read_text()

    before = manifest("before")
    payload(run("calibrate", sets, "--strategy", "predicates", "--json"))
    assert "calibration" in manifest("after")
    assert "calibration" not in before
    refused = run("eval", sets, "--strategy", "predicates", "--out", "before")
    assert refused.exit_code == 1
    assert "calibration" in refused.stderr


def test_several_fits_share_a_file(run: Run, sets: Path, thinker: World, tmp_path: Path) -> None:
    out = tmp_path / "new" / "fits.json"
    for name in ("agent", "pairwise", "agent"):
        result = run("calibrate", sets, "--strategy", name, "--out", out)
        assert result.exit_code == 0, result.output
        assert "weight of a comparison" in result.stdout
    fits = load_calibrations(out)
    assert [len(fit.key.prompts) for fit in fits if fit.key] == [0, 2]
    assert not (thinker.cache / "calibrations").exists()


def test_the_users_own_fit_comes_first_and_then_the_most_exact(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, predicates = load_strategy("agent", prompts="fieldnotes"), load_strategy("predicates", prompts="fieldnotes")
    shipped = Calibration(key=calibration_key("m", agent, None), bias=1.0)
    exact = Calibration(key=calibration_key("m", predicates, None), bias=2.0)
    for fit in (shipped, exact):
        save_calibration(fit, tmp_path / "models" / "calibration.json")
    assert find_calibration("m", agent, None) == shipped
    assert find_calibration("m", predicates, None) == exact
    own = shipped.model_copy(update={"bias": 3.0})
    save_calibration(own)
    assert find_calibration("m", agent, None) == own
    assert find_calibration("m", predicates, None) == own


@pytest.mark.parametrize("split", ["test", "all"])
def test_no_test_split_is_opened(
    run: Run, sets: Path, thinker: World, split: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("fieldscope.eval.benchmarks.inquire_rerank.load_inquire_rerank")
    result = run("calibrate", sets, "--split", split)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: settings may not be fitted on the split '{split}'")
    assert thinker.asked == []


def test_no_test_split_is_opened_for_composed_queries(run: Run, sets: Path, thinker: World, tmp_path: Path) -> None:
    path = tmp_path / "whole.parquet"
    pq.write_table(pa.Table.from_pylist(rows(thinker), schema=SCHEMA), path)
    result = run("calibrate", sets, "--composed", path)
    assert result.exit_code == 1
    assert f"the files of {path} do not say which split they are" in result.stderr
    assert thinker.asked == []


def test_composed_queries_are_asked_about_beside_the_others(run: Run, sets: Path, thinker: World) -> None:
    said = payload(run("calibrate", sets, "--composed", sets, "--json"))
    assert said["queries"] == 4
    assert "composed_nothing_below" not in said, "four queries are too few for a threshold"
    assert (Path("runs/calibrate/composed/agent/results.jsonl")).is_file()


def test_files_that_name_no_split_are_no_validation_split(run: Run, thinker: World, tmp_path: Path) -> None:
    path = tmp_path / "whole.parquet"
    pq.write_table(pa.Table.from_pylist(rows(thinker), schema=SCHEMA), path)
    result = run("calibrate", path)
    assert result.exit_code == 1
    assert "do not say which split they are" in result.stderr
    assert thinker.asked == []


def test_a_strategy_without_weights_is_refused(run: Run, sets: Path, thinker: World) -> None:
    result = run("calibrate", sets, "--strategy", "yes-no")
    assert result.exit_code == 1
    assert (
        result.stderr == "error: strategy 'yes-no' has nothing to fit: its fusion is 'p_yes'. Name a strategy "
        "whose fusion is 'posterior'.\n"
    )


def test_a_damaged_file_is_named(run: Run, sets: Path, thinker: World) -> None:
    folder = thinker.cache / "calibrations"
    folder.mkdir()
    (folder / "x.json").write_text("{}")
    result = run("eval", sets, "--strategy", "predicates")
    assert result.exit_code == 1
    assert str(folder / "x.json") in result.stderr


def test_significance_of_every_two_runs(run: Run, sets: Path, thinker: World) -> None:
    payload(run("eval", sets, "--strategy", "clip", "yes-no", "predicates", "--out", "r", "--json"))
    told = payload(run("measure", "significance", "r/clip", "r/yes-no", "r/predicates", "--json"))
    assert told["metric"] == "AP@100"  # the headline of files in INQUIRE-Rerank's shape
    assert [(test["a"], test["b"]) for test in told["tests"]] == [
        ("r/clip", "r/yes-no"), ("r/clip", "r/predicates"), ("r/yes-no", "r/predicates")
    ]  # fmt: skip
    first = told["tests"][0]
    assert first["queries"] == 4
    assert first["p"] in {n / 16 for n in range(1, 17)}
    assert first["low"] <= first["difference"] <= first["high"]
    shown = run("measure", "significance", "r/clip", "r/yes-no", "--metric", "RR")
    assert shown.exit_code == 0
    assert "RR, percent" in shown.stdout


def test_runs_that_can_not_be_compared(run: Run, sets: Path, thinker: World) -> None:
    payload(run("eval", sets, "--strategy", "clip", "--out", "r", "--json"))
    payload(run("eval", sets, "--strategy", "clip", "--limit", "2", "--out", "s", "--json"))
    assert run("measure", "significance", "r/clip").exit_code == 2
    assert run("measure", "significance", "r/clip", "r/clip").exit_code == 2
    other = run("measure", "significance", "r/clip", "s/clip")
    assert (other.exit_code, "different queries" in other.stderr) == (1, True)
    nothing = run("measure", "significance", "r/clip", "r/none")
    assert (nothing.exit_code, "no finished run" in nothing.stderr) == (1, True)


def test_a_budget_study_writes_its_figure_and_data(run: Run, sets: Path, thinker: World) -> None:
    told = payload(run("measure", "budget", sets, "--shares", "0.2", "1", "--out", "b", "--json"))
    assert [point["share"] for point in told["points"]] == [0.2, 1]
    small, whole = told["points"]
    assert small["max_calls"] < whole["max_calls"]
    assert small["calls"] <= small["max_calls"]
    assert told["free"] >= told["prior"]
    assert [(step["smaller"], step["larger"]) for step in told["steps"]] == [(0.2, 1)]
    assert json.loads(Path("b/budget.json").read_text()) == told
    with Path("b/budget.csv").open(newline="") as stream:
        assert [float(row["share"]) for row in csv.DictReader(stream)] == [0.2, 1]
    with Image.open("b/budget.png") as picture:
        assert picture.format == "PNG"
    assert Path(f"b/calls-{small['max_calls']}/agent/results.jsonl").is_file()
    asked = len(thinker.asked)
    shown = run("measure", "budget", sets, "--shares", "0.2", "1", "--out", "b")
    assert shown.exit_code == 0, shown.output
    assert "no budget" in shown.stdout
    assert len(thinker.asked) == asked


def test_a_comparison_study_from_the_prior_and_from_the_verdicts(run: Run, sets: Path, thinker: World) -> None:
    told = payload(run("measure", "comparison", sets, "--head", "8", "--queries", "3", "--out", "c", "--json"))
    prior, verdicts = told["starts"]
    assert (prior["start"], verdicts["start"]) == ("prior", "verdicts")
    for start in (prior, verdicts):
        assert start["all_pairs"]["queries"] == 3
        assert start["calls_all"] == 8 * 7
        assert 0 < start["calls_scheduled"] <= 0.15 * 8 * 7
        assert start["all_pairs"]["mean_a"] == start["before"]
    assert prior["all_pairs"]["difference"] > 0  # a model that is right about every pair
    assert prior["recovered"] is not None
    assert json.loads(Path("c/comparison.json").read_text()) == told
    with Path("c/comparison.csv").open(newline="") as stream:
        assert [row["start"] for row in csv.DictReader(stream)] == ["prior", "verdicts"]
    with Image.open("c/comparison.png") as picture:
        assert picture.format == "PNG"
    shown = run("measure", "comparison", sets, "--head", "8", "--queries", "3", "--out", "c")
    assert shown.exit_code == 0, shown.output
    assert "all pairs" in shown.stdout
    refused = run("measure", "comparison", sets, "--strategy", "predicates", "--out", "c")
    assert (refused.exit_code, "compare pairs" in refused.stderr) == (1, True)


def test_no_harm_is_done_and_none_is_told(run: Run, sets: Path, thinker: World) -> None:
    told = payload(run("measure", "harm", sets, "--strategy", "pairwise", "--json"))
    found = told["benchmarks"][str(sets)]
    assert (told["harms"], found["broken"]) == (False, [])
    assert list(found["groups"]) == ["Species"]
    assert found["overall"]["queries"] == 4
    assert found["groups"]["Species"]["change"] > 0


def test_harm_ends_with_an_error(run: Run, sets: Path, thinker: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def contrary(images: ImageSource) -> LMM:
        good = [next(iter(RELEVANT[text])) for text in RELEVANT]
        hashes = {images.pixel_hash(str(int(image_id) - 1)) for image_id in good}
        return ScriptedLMM(lambda request: 0.01 if request.images[0].sha256 in hashes else 0.99, identity="contrary")

    monkeypatch.setattr(fieldscope.service.wiring.models, "bundled_lmm", contrary)
    result = run("measure", "harm", sets, "--strategy", "yes-no")
    assert result.exit_code == 1
    assert "all together" in result.stdout
    assert result.stderr.startswith("error: yes-no does harm: ")
    assert "Species: the mean change of AP is -" in result.stderr
