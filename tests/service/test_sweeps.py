"""`fieldscope eval --strategy-grid`: expanded, run, ranked, counted, and kept away from the test split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result

from fieldscope.agent.calibration import Calibration, calibration_key
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.fieldnotes.rerank import SCHEMA
from fieldscope.service.wiring.calibrations import save_calibration
from tests.service.conftest import Run, Server, World
from tests.service.test_measure import rows

GRID = "base: yes-no-fused\nverify.top_k: [2, 12]\nfusion.prior_weight: [0.3, 3]\n"
NAMES = {f"yes-no-fused~top_k={k},prior_weight={weight}" for k in (2, 12) for weight in (0.3, 3)}


def payload(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    value = json.loads(result.stdout)
    assert isinstance(value, dict)
    return value


def grid(text: str, name: str = "grid.yaml") -> Path:
    Path(name).write_text(text, encoding="utf-8")
    return Path(name)


def manifest(run: str | Path) -> dict[str, Any]:
    value = json.loads((Path(run) / "manifest.json").read_text())
    assert isinstance(value, dict)
    return value


@pytest.fixture
def sets(world: World, tmp_path: Path) -> Path:
    """A validation and a test split, of the same queries."""
    folder = tmp_path / "sets"
    folder.mkdir()
    table = pa.Table.from_pylist(rows(world), schema=SCHEMA)
    for split in ("validation", "test"):
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    return folder


def test_a_grid_is_run_on_validation_and_ranked(run: Run, sets: Path, world: World) -> None:
    result = run("eval", sets, "--strategy-grid", grid(GRID), "--json")
    told = payload(result)
    assert result.stderr == ""
    assert (told["split"], told["metric"], told["grid"]) == ("validation", "mAP@100", "grid.yaml")
    assert {each["strategy"] for each in told["runs"]} == NAMES
    quality = [each["metrics"]["mAP@100"] for each in told["runs"]]
    assert quality == sorted(quality, reverse=True)
    assert quality[0] > quality[-1]
    assert [each["rank"] for each in told["runs"]] == [1, 2, 3, 4]
    for each in told["runs"]:
        window = each["settings"]["verify.top_k"]
        assert each["cost"]["calls"] == 4 * window
        assert each["strategy"].endswith(f"~top_k={window},prior_weight={each['settings']['fusion.prior_weight']}")
        assert manifest(each["out"])["configuration"]["strategy"]["fingerprint"] == each["fingerprint"]
        assert (Path(each["out"]).name, each["scored_on_test"]) == (each["strategy"], 0)
    assert len(world.asked) == 4 * 12  # what members ask in common is asked once


def test_the_table_is_for_people(run: Run, sets: Path, world: World) -> None:
    result = run("eval", sets, "--strategy-grid", grid("base: yes-no\nverify.top_k: [2, 12]\n"))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "by mAP@100" in lines[0]
    places = [line.split()[:2] for line in lines if "yes-no~" in line and "Runs are" not in line]
    assert places == [["1", "yes-no~top_k=12"], ["2", "yes-no~top_k=2"]]
    assert "trace runs/sets-validation/yes-no~top_k=12 QUERY" in result.stdout


def test_a_test_split_is_refused_before_it_is_opened(
    run: Run, sets: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("fieldscope.eval.benchmarks.inquire_rerank.load_inquire_rerank")
    for split in ("test", "Test", "all", "anything"):
        result = run("eval", sets, "--strategy-grid", grid(GRID), "--split", split)
        assert result.exit_code == 1
        assert f"may not be fitted on the split '{split}'" in result.stderr
        assert "--member" in result.stderr
    two = [name for chosen in sorted(NAMES)[:2] for name in ("--member", chosen)]
    assert run("eval", sets, "--strategy-grid", grid(GRID), "--split", "test", *two).exit_code == 1
    assert world.asked == []
    assert not Path("runs").exists()


def test_the_one_that_was_chosen_may_be_tested(run: Run, sets: Path, world: World) -> None:
    member = "yes-no-fused~top_k=12,prior_weight=0.3"
    asked = ("--strategy-grid", grid(GRID), "--member", member, "--split", "test", "--json")
    (only,) = payload(run("eval", sets, *asked))["runs"]
    assert (only["strategy"], only["scored_on_test"]) == (member, 1)
    unknown = run("eval", sets, "--strategy-grid", grid(GRID), "--member", "yes-no-fused~top_k=11,prior_weight=0.3")
    assert (unknown.exit_code, "did you mean" in unknown.stderr) == (1, True)


def test_files_that_name_no_split_may_be_a_test_split(run: Run, world: World, tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(rows(world), schema=SCHEMA), tmp_path / "whole.parquet")
    result = run("eval", "whole.parquet", "--strategy-grid", grid(GRID))
    assert result.exit_code == 1
    assert "do not say which split they are" in result.stderr
    assert world.asked == []


def test_test_scores_are_counted_by_strategy(run: Run, sets: Path, world: World) -> None:
    def score(out: str, *more: object) -> int:
        (told,) = payload(run("eval", sets, "--strategy", "yes-no", "--out", out, "--json", *more))["runs"]
        assert manifest(told["out"])["scored_on_test"] == told["scored_on_test"]
        return int(told["scored_on_test"])

    assert score("v", "--split", "validation") == 0
    assert score("a") == 1
    assert score("a") == 1  # the same run again
    assert score("b") == 2
    assert score("v", "--split", "validation") == 2  # not one itself, but it knows
    first = run("eval", sets, "--strategy", "clip")
    assert "was scored on" not in first.stdout
    shown = run("eval", sets, "--strategy", "yes-no", "--out", "c")
    assert "yes-no was scored on sets's test split 3 times" in shown.stdout
    assert shown.stderr == ""


def test_a_moved_run_is_the_same_run(run: Run, sets: Path, world: World) -> None:
    payload(run("eval", sets, "--strategy", "yes-no", "--out", "a", "--limit", "1", "--json"))
    Path("a").rename("moved")
    (told,) = payload(run("eval", sets, "--strategy", "yes-no", "--out", "moved", "--json"))["runs"]
    assert told["scored_on_test"] == 1


def test_models_of_a_grid_are_asked_where_they_are(run: Run, sets: Path, server: Server, world: World) -> None:
    server.models = (200, json.dumps({"data": [{"id": "vl"}, {"id": "vl2"}]}))
    text = f"base: yes-no\nverify.top_k: [2]\nmodel: [vl2, {{model: vl, lmm: '{server.url}', revision: r1}}]\n"
    at = ("--lmm", server.url, "--model", "vl")
    told = payload(run("eval", sets, "--strategy-grid", grid(text), *at, "--json"))["runs"]
    assert {each["strategy"]: each["settings"]["model"] for each in told} == {
        "yes-no~top_k=2,model=vl2": "vl2",
        "yes-no~top_k=2,model=vl-r1": "vl@r1",
    }
    assert {manifest(each["out"])["configuration"]["lmm"].partition("#")[0] for each in told} == {
        "openai:vl2", "openai:vl@r1",
    }  # fmt: skip
    assert {body["model"] for body in server.bodies} == {"vl", "vl2"}
    nowhere = run("eval", sets, "--strategy-grid", grid("base: yes-no\nmodel: [vl]\n"))
    assert (nowhere.exit_code, "is on no server" in nowhere.stderr) == (1, True)


def test_seeds_reach_a_server_that_samples(run: Run, sets: Path, server: Server, world: World) -> None:
    text = "base: yes-no\nverify.top_k: [1]\nverify.extra_body: [{temperature: 0.7}]\nseed: [1, 2]\n"
    at = ("--lmm", server.url, "--model", "vl")
    told = payload(run("eval", sets, "--strategy-grid", grid(text), *at, "--json"))["runs"]
    assert sorted(each["settings"]["seed"] for each in told) == [1, 2]
    assert sorted((body["temperature"], body["seed"]) for body in server.bodies) == [(0.7, 1)] * 4 + [(0.7, 2)] * 4
    bundled = run("eval", sets, "--strategy-grid", grid(text))
    assert (bundled.exit_code, "draws nothing at random" in bundled.stderr) == (1, True)


def test_a_dry_run_tells_every_member(run: Run, sets: Path, world: World) -> None:
    told = payload(run("eval", sets, "--strategy-grid", grid(GRID), "--dry-run", "--json"))
    assert {each["strategy"]: each["calls"] for each in told["runs"]} == {
        name: 48 if "top_k=12" in name else 8 for name in NAMES
    }
    assert world.asked == []


def test_a_fitted_weight_outweighs_the_grids_and_it_is_said(run: Run, sets: Path, world: World) -> None:
    mine = Path("mine.yaml")
    mine.write_text("name: mine\nverify: {prompt: match_yes_no}\nfusion: {method: posterior, prior_weight: 1}\n")
    text = "base: mine.yaml\nfusion.prior_weight: [0.1, 5]\n"
    before = run("eval", sets, "--strategy-grid", grid(text), "--out", "before")
    assert before.stderr == ""
    save_calibration(Calibration(key=calibration_key("truthful", load_strategy(mine, prompts="fieldnotes"), None)))
    after = run("eval", sets, "--strategy-grid", grid(text), "--out", "after", "--json")
    assert "calibration" in after.stderr
    assert len({each["metrics"]["mAP@50"] for each in payload(after)["runs"]}) == 1


def test_options_that_exclude_each_other(run: Run, sets: Path, world: World) -> None:
    assert run("eval", sets, "--strategy-grid", grid(GRID), "--strategy", "clip").exit_code == 2
    assert run("eval", sets, "--member", "x").exit_code == 2
    missing = run("eval", sets, "--strategy-grid", "none.yaml")
    assert missing.exit_code == 1
    assert missing.stderr == "error: none.yaml: can't be read (No such file or directory); check the file\n"
