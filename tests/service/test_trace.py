"""`fieldscope trace`: by id and by text, of a whole ranking and of one image."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.service.conftest import FOX, Run, World


@pytest.fixture
def out(run: Run, world: World) -> Path:
    result = run("eval", "fieldnotes", "--strategy", "yes-no", "--json", "--out", "out")
    assert result.exit_code == 0, result.stderr
    return Path("out")


@pytest.mark.parametrize("query", ["t002", FOX, "  A black fox   in the SNOW "])
@pytest.mark.parametrize("run_folder", ["out", "out/yes-no"])
def test_a_query_by_id_or_text(run: Run, out: Path, run_folder: str, query: str) -> None:
    result = run("trace", run_folder, query)
    assert result.exit_code == 0, result.stderr
    assert FOX in result.stdout
    assert "does this image match" in result.stdout
    assert "retrieved" in result.stdout


def test_one_image(run: Run, out: Path) -> None:
    result = run("trace", out, "t002", "--image", "8")
    assert "the prior had it at" in result.stdout
    assert "0.9000" in result.stdout
    missing = run("trace", out, "t002", "--image", "88")
    assert missing.exit_code == 1
    assert "'88'" in missing.stderr


def test_for_programs(run: Run, out: Path) -> None:
    whole = json.loads(run("trace", out, "t002", "--json").stdout)
    assert (whole["query_text"], len(whole["ranking"]), len(whole["verdicts"])) == (FOX, 12, 12)
    one = json.loads(run("trace", out, "t002", "--image", "8", "--json").stdout)
    assert [entry["image_id"] for entry in one["ranking"] + one["verdicts"]] == ["8", "8"]


def test_an_unknown_query_gets_the_nearest(run: Run, out: Path) -> None:
    result = run("trace", out, "a black fox in snow")
    assert result.exit_code == 1
    assert f"it has 4, such as t002 ({FOX})" in result.stderr


def test_of_several_runs_one_must_be_named(run: Run, out: Path) -> None:
    run("eval", "fieldnotes", "--strategy", "clip", "--json", "--out", "out")
    result = run("trace", out, "t002")
    assert result.exit_code == 1
    assert "out/clip, out/yes-no" in result.stderr
    assert run("trace", out / "clip", "t002").exit_code == 0


def test_a_line_that_a_kill_cut_off_is_passed_over(run: Run, out: Path) -> None:
    file = out / "yes-no" / "results.jsonl"
    whole = file.read_text()
    file.write_text(whole + '{"query_id": "t002", "query_te')
    assert run("trace", out, "t002").exit_code == 0
    file.write_text(whole + '{"query_id": "t002", "query_text": "x", "of": "another version"}\n')
    broken = run("trace", out, "t002")
    assert broken.exit_code == 1
    assert "not a rerank result of this version" in broken.stderr
