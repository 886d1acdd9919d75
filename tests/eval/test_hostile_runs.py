"""Run folders that are damaged, or that somebody made to do harm: every reader says so in one line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fieldscope.core.errors import ConfigError
from fieldscope.eval.measures.leaderboard import boards
from fieldscope.eval.measures.run_comparison import compare_runs
from fieldscope.eval.runs.finished import read_finished, read_judgments, read_metric, read_results
from fieldscope.eval.runs.inputs import read_inputs
from fieldscope.eval.runs.recording import recorded_lines
from fieldscope.eval.runs.scored import read_scored
from tests.eval.fabricated import fabricate

Change = Callable[[Path], None]

DEEP = b'{"a":' * 100_000
CLOSED = b"[" * 5_000 + b"]" * 5_000 + b"\n"
READERS: dict[str, list[Callable[[Path], Any]]] = {
    "manifest.json": [read_scored, read_finished],
    "metrics.json": [read_scored, read_finished, lambda run: read_metric(run, "AP@50")],
    "results.jsonl": [read_scored, read_results],
    "qrels.trec": [read_scored, read_judgments],
    "inputs.jsonl": [read_inputs],
}


def written(content: bytes) -> Change:
    def change(file: Path) -> None:
        file.write_bytes(content)

    return change


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def device(file: Path) -> None:
    file.unlink()
    file.symlink_to("/dev/zero")


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


CHANGES: dict[str, Change] = {
    "gone": Path.unlink,
    "deep": written(DEEP),
    "deep and closed": written(CLOSED),
    "a list": written(b"[]\n"),
    "null": written(b"null\n"),
    "too large a number": written(b"1e999\n"),
    "no text": written(b"\xff\xfe\x00\n"),
    "a pipe": pipe,
    "a device": device,
    "a folder": folder,
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return fabricate(tmp_path / "s", {"q1": 0.5, "q2": 0.25})


def refused(read: Callable[[Path], Any], run: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(run)
    assert "\n" not in str(caught.value)
    assert run.name in str(caught.value)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_file_of_another_kind_is_one_line(run: Path, name: str, change: Change) -> None:
    if name == "inputs.jsonl":
        (run / name).write_text("")
    change(run / name)
    for read in READERS[name]:
        refused(read, run)


def at(told: Any, *path: str | int, value: Any) -> None:
    *above, last = path
    for step in above:
        told = told[step]
    told[last] = value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "x", [1], {"a": 1}], ids=repr)
def test_a_metric_that_is_no_number_is_one_line(run: Path, value: object) -> None:
    told = json.loads((run / "metrics.json").read_text())
    at(told, "per_query", "q1", "AP@50", value=value)
    (run / "metrics.json").write_text(json.dumps(told))
    for read in READERS["metrics.json"]:
        refused(read, run)


@pytest.mark.parametrize("field", ["score", "prior", "p_match"])
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_a_ranking_with_scores_that_are_no_numbers_is_one_line(run: Path, field: str, value: str) -> None:
    lines = (run / "results.jsonl").read_text().splitlines()
    told = json.loads(lines[0])
    told["ranking"][0][field] = float(value)
    (run / "results.jsonl").write_text("\n".join([json.dumps(told), *lines[1:]]) + "\n")
    for read in READERS["results.jsonl"]:
        refused(read, run)


@pytest.mark.parametrize("field", ["rank", "prior_rank", "rank_high"])
def test_a_rank_that_no_image_can_have_is_one_line(run: Path, field: str) -> None:
    lines = (run / "results.jsonl").read_text().splitlines()
    told = json.loads(lines[0])
    told["ranking"][0][field] = 10**30
    (run / "results.jsonl").write_text("\n".join([json.dumps(told), *lines[1:]]) + "\n")
    refused(read_results, run)


def test_tokens_that_no_call_can_take_are_one_line(tmp_path: Path) -> None:
    run = fabricate(tmp_path / "s", {"q1": 0.5}, calls=1)
    path = run / "results.jsonl"
    path.write_text(path.read_text().replace('"prompt_tokens":10', f'"prompt_tokens":{10**400}'))
    refused(read_scored, run)


@pytest.mark.parametrize("cut", [1, 40])
def test_a_line_that_was_cut_off_is_one_line(run: Path, cut: int) -> None:
    path = run / "results.jsonl"
    path.write_bytes(path.read_bytes()[: -cut - 1])
    refused(read_scored, run)


@pytest.mark.parametrize("key", ["benchmark", "lmm"])
@pytest.mark.parametrize("value", [3, [1], "x"], ids=repr)
def test_a_manifest_with_other_types_is_one_line_or_harmless(run: Path, key: str, value: object) -> None:
    told = json.loads((run / "manifest.json").read_text())
    at(told, "configuration", key, value=value)
    at(told, "scored_on_test", value=[1])
    (run / "manifest.json").write_text(json.dumps(told))
    refused(read_scored, run)


def test_how_often_a_run_was_scored_on_test_is_read_once(run: Path) -> None:
    told = json.loads((run / "manifest.json").read_text()) | {"scored_on_test": 3}
    (run / "manifest.json").write_text(json.dumps(told))
    scored = read_scored(run)
    (run / "manifest.json").unlink()
    assert scored.scored_on_test == 3


def test_a_run_without_the_board_s_metrics_is_one_line(run: Path) -> None:
    refused(lambda folder: boards([read_scored(folder)]), run)


def test_a_recording_of_a_deep_manifest_is_one_line(run: Path) -> None:
    (run / "images.jsonl").touch()
    (run / "manifest.json").write_bytes(DEEP)
    refused(lambda folder: list(recorded_lines([folder], None)), run)


def test_hostile_ids_are_compared_as_they_are(tmp_path: Path) -> None:
    ids = {"../../etc/passwd": 0.5, "\x1b[2J\u202e": 0.25, "x" * 5_000: 0.1}
    qrels = {query: {"../1": 1, "\x1b]0;": 0} for query in ids}
    a, b = (read_scored(fabricate(tmp_path / name, ids, qrels=qrels)) for name in "ab")
    assert list(compare_runs([a, b]).pairs[0].differences["AP@50"]) == sorted(ids)
