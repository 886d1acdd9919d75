"""Runs as Parquet and CSV: every row and value, and nothing that a spreadsheet would run."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.agent.graph import Agent
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.core.errors import ConfigError
from fieldscope.core.spreadsheet import cell
from fieldscope.eval.harness import evaluate
from fieldscope.eval.measures.tables import RANKINGS, export_all, export_rankings, read_exported
from fieldscope.eval.types import Benchmark, RunSummary

MakeLMM = Callable[..., ScriptedLMM]


@pytest.fixture
async def runs(bench: Benchmark, make_lmm: MakeLMM, tmp_path: Path) -> list[RunSummary]:
    lmm = make_lmm(bench.images)
    agents = [
        Agent(Resources(bench.images, lmm), load_strategy(name, prompts="fieldnotes"))
        for name in ("clip", "yes-no-fused")
    ]
    return await evaluate(bench, agents, tmp_path / "runs")


def read(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return found


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_row_for_every_query_and_image(bench: Benchmark, runs: list[RunSummary], tmp_path: Path) -> None:
    files = export_all(read_exported([run.out for run in runs]), tmp_path / "t", "parquet")
    assert {path.name: rows for path, rows in files.items()} == {
        "rankings.parquet": 80, "verdicts.parquet": 40, "metrics.parquet": 10,
    }  # fmt: skip
    rankings = read(tmp_path / "t" / "rankings.parquet")
    assert [row["run"] for row in rankings] == ["clip"] * 40 + ["yes-no-fused"] * 40
    texts = {query.id: query.text for query in bench.queries}
    for row in rankings:
        assert row["query"] == texts[row["query_id"]]
        assert row["relevant"] == bench.qrels[row["query_id"]][row["image_id"]]
        assert row["prior"] == {c.image_id: c.prior for c in bench.candidates(row["query_id"]) or ()}[row["image_id"]]
    first = [row for row in rankings if row["run"] == "yes-no-fused" and row["query_id"] == bench.queries[0].id]
    assert [row["rank"] for row in first] == list(range(1, 9))
    assert [row["score"] for row in first] == sorted((row["score"] for row in first), reverse=True)
    assert pq.read_schema(tmp_path / "t" / "rankings.parquet").equals(RANKINGS)


def test_verdicts_say_what_was_asked_and_what_is_true(bench: Benchmark, runs: list[RunSummary], tmp_path: Path) -> None:
    export_all(read_exported([run.out for run in runs]), tmp_path / "t", "parquet")
    verdicts = read(tmp_path / "t" / "verdicts.parquet")
    assert {row["run"] for row in verdicts} == {"yes-no-fused"}
    for row in verdicts:
        assert (row["state"], row["kind"], row["expected"]) == ("answered", "query", "yes")
        assert row["p_yes"] == pytest.approx(0.9 if row["relevant"] else 0.1, abs=1e-6)
        assert row["question"]


def test_metrics_are_those_of_the_run(bench: Benchmark, runs: list[RunSummary], tmp_path: Path) -> None:
    export_all(read_exported([run.out for run in runs]), tmp_path / "t", "parquet")
    rows = read(tmp_path / "t" / "metrics.parquet")
    for run in runs:
        written = json.loads((run.out / "metrics.json").read_text())["per_query"]
        own = [row for row in rows if row["strategy"] == run.strategy]
        assert [row["query_id"] for row in own] == list(written)
        for row in own:
            assert all(row.get(name) == value for name, value in written[row["query_id"]].items())
            assert (row["benchmark"], row["split"]) == (bench.name, "test")
            assert row["supercategory"] == bench.meta[row["query_id"]].supercategory
        assert sum(row["calls"] for row in own) == run.cost.calls


def test_csv_has_the_same_values(runs: list[RunSummary], tmp_path: Path) -> None:
    found = read_exported([run.out for run in runs])
    for kind in ("parquet", "csv"):
        export_all(found, tmp_path / kind, kind)
    for name in ("rankings", "verdicts", "metrics"):
        typed, texts = read(tmp_path / "parquet" / f"{name}.parquet"), read_csv(tmp_path / "csv" / f"{name}.csv")
        assert len(typed) == len(texts) > 0
        for row, text in zip(typed, texts, strict=True):
            assert {key: "" if value is None else str(value) for key, value in row.items()} == text


async def test_texts_that_a_spreadsheet_would_run(bench: Benchmark, make_lmm: MakeLMM, tmp_path: Path) -> None:
    evil = '=HYPERLINK("http://x","y")'
    renamed = replace(bench, queries=(bench.queries[0].model_copy(update={"text": evil}), *bench.queries[1:]))
    lmm = make_lmm(bench.images)
    (run,) = await evaluate(
        renamed,
        [Agent(Resources(bench.images, lmm), load_strategy("yes-no-fused", prompts="fieldnotes"))],
        tmp_path / "r",
    )
    found = read_exported([run.out])
    export_all(found, tmp_path / "t", "csv")
    for path in (tmp_path / "t").iterdir():
        for row in read_csv(path):
            for text in row.values():
                assert not text.startswith(("=", "+", "@")) and (text[:1] != "-" or float(text) < 0)
            assert row["query"] != evil
    assert f"'{evil}" in {row["query"] for row in read_csv(tmp_path / "t" / "rankings.csv")}
    export_rankings(found, tmp_path / "r.parquet", "parquet")
    assert evil in {row["query"] for row in read(tmp_path / "r.parquet")}  # nothing runs there


@given(st.text(max_size=20))
def test_no_text_begins_a_formula_and_none_is_lost(text: str) -> None:
    written = cell(text)
    assert written in (text, f"'{text}")
    assert written.lstrip()[:1] not in {"=", "+", "-", "@"}
    assert written[:1] not in {"\t", "\r"}


def test_numbers_stay_numbers() -> None:
    assert [cell(value) for value in (-1, -0.5, None, True)] == [-1, -0.5, None, True]


def test_runs_of_one_strategy_have_names_of_their_own(runs: list[RunSummary], tmp_path: Path) -> None:
    copy = tmp_path / "copy" / "clip"
    copy.mkdir(parents=True)
    for path in runs[0].out.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    export_rankings(read_exported([runs[0].out, copy]), tmp_path / "r.parquet", "parquet")
    assert {row["run"] for row in read(tmp_path / "r.parquet")} == {"runs/clip", "copy/clip"}


def test_an_unfinished_run_is_refused_and_nothing_is_written(runs: list[RunSummary], tmp_path: Path) -> None:
    (runs[0].out / "metrics.json").unlink()
    with pytest.raises(ConfigError, match="no finished run"):
        read_exported([runs[0].out])


def test_an_older_file_stays_where_the_disk_refuses(
    runs: list[RunSummary], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "r.parquet"
    target.write_bytes(b"older")

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fieldscope.eval.measures.tables.pq.ParquetWriter.write_table", full)
    with pytest.raises(ConfigError, match=r"can't write .*No space left"):
        export_rankings(read_exported([runs[0].out]), target, "parquet")
    assert target.read_bytes() == b"older"
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".part")]
