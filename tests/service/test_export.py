"""`fieldscope export` and `fieldscope leaderboard` on real runs."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result

from fieldscope.agent.usage import Usage
from fieldscope.eval.measures.leaderboard import PublishedTable, boards, published
from fieldscope.eval.reported import INQUIRE_RERANK
from fieldscope.eval.runs.scored import ScoredRun
from fieldscope.fieldnotes.rerank import SCHEMA
from tests.service.conftest import Run, World
from tests.service.test_measure import rows


def payload(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    value = json.loads(result.stdout)
    assert isinstance(value, dict)
    return value


def evaluated(run: Run, world: World, name: str, *more: object) -> Path:
    """The runs of two strategies over a benchmark of this name."""
    folder = Path("sets") / name
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("test", "validation"):
        table = pa.Table.from_pylist(rows(world), schema=SCHEMA)
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    told = payload(run("eval", folder, "--strategy", "clip", "yes-no", "--json", *more))
    return Path(told["runs"][0]["out"]).parent


def test_a_folder_gets_all_tables(run: Run, world: World) -> None:
    runs = evaluated(run, world, "mine")
    result = run("export", runs, "-o", "tables")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "96 rows in tables/rankings.parquet",
        "48 rows in tables/verdicts.parquet",
        "8 rows in tables/metrics.parquet",
    ]
    told = payload(run("export", runs / "yes-no", "-o", "tables", "--format", "csv", "--json"))
    assert {Path(file["path"]).name: file["rows"] for file in told["files"]} == {
        "rankings.csv": 48, "verdicts.csv": 48, "metrics.csv": 4,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["ranks.csv", "ranks.parquet", "below/RANKS.CSV"])
def test_a_file_gets_the_rankings(run: Run, world: World, name: str) -> None:
    told = payload(run("export", evaluated(run, world, "mine"), "-o", name, "--json"))
    assert told["files"] == [{"path": name, "rows": 96}]
    if told["format"] == "csv":
        with Path(name).open(newline="") as stream:
            assert sum(row["relevant"] == "1" for row in csv.DictReader(stream)) == 2 * 6
    else:
        assert pq.read_table(name).num_rows == 96


def test_what_can_not_be_exported(run: Run, world: World) -> None:
    assert run("export", "nowhere", "-o", "x").exit_code == 1
    runs = evaluated(run, world, "mine")
    assert run("export", runs, "-o", "x.csv", "--format", "parquet").exit_code == 2
    assert run("export", runs).exit_code == 2
    (runs / "clip" / "metrics.json").unlink()
    broken = run("export", runs, "-o", "x")
    assert (broken.exit_code, "clip holds no finished run" in broken.stderr) == (1, True)
    assert not Path("x").exists()


def resized(**changed: Any) -> tuple[PublishedTable, ...]:
    """The published tables, as if those of rerank benchmarks were over so many queries and candidates, in any order."""
    update = {"file_order": {}, **changed}
    return tuple(table.model_copy(update=update) if table.queries else table for table in published())


@pytest.fixture
def of_four(monkeypatch: pytest.MonkeyPatch, run: Run, world: World) -> Path:
    """Runs over the published rows' benchmark, as if those were over the four queries of twelve images here."""
    tables = resized(queries=4, candidates=12)
    monkeypatch.setattr("fieldscope.eval.measures.leaderboard.published", lambda: tables)
    return evaluated(run, world, "INQUIRE-Rerank")


def test_published_rows_stand_beside_runs_over_the_same_queries_and_candidates(run: Run, of_four: Path) -> None:
    whole, at_50, foreign = payload(run("leaderboard", of_four, "--json"))["boards"]
    assert (whole["benchmark"], whole["split"], whole["foreign"]) == ("INQUIRE-Rerank", "test", False)
    assert [row["name"] for row in whole["rows"]] == [
        "yes-no", "clip", "OpenAI CLIP ViT-L/14", "OpenAI CLIP ViT-B/16", "OpenAI CLIP ViT-B/32",
    ]  # fmt: skip
    assert {"yes-no", "clip", "GPT-4o"} <= {row["name"] for row in at_50["rows"]}
    assert [row["ap"] for row in at_50["rows"]] == sorted((row["ap"] for row in at_50["rows"]), reverse=True)
    assert (foreign["benchmark"], foreign["foreign"]) == ("INQUIRE-Fullrank", True)
    assert all(row["source"] for board in (whole, at_50, foreign) for row in board["rows"])
    shown = run("leaderboard", of_four).stdout
    assert "| 3 | OpenAI CLIP ViT-L/14 | 36.77 | 64.15 | 0.57 | - | measured by a user of the benchmark" in shown
    metrics = json.loads((of_four / "yes-no" / "metrics.json").read_text())["metrics"]
    own = f"{100 * metrics['mAP@100']:.2f} | {100 * metrics['nDCG@100']:.2f} | {metrics['MRR']:.2f} | 48"
    assert f"| 1 | **yes-no** | {own} | own run runs/INQUIRE-Rerank-test/yes-no" in shown
    assert "| GPT-4o | 62.40 | 59.70 | 61.90 | 70.60 | 42.40 | - | INQUIRE's own site" in shown


def test_the_two_measures_of_ap_are_never_in_one_table(run: Run, of_four: Path) -> None:
    boards = payload(run("leaderboard", of_four, "--json"))["boards"]
    site = {"GPT-4o", "BioCLIP", "Random"}
    assert [board["measure"] for board in boards] == ["AP@100", "AP@50", "AP@50"]
    assert [bool(site & {row["name"] for row in board["rows"]}) for board in boards] == [False, True, True]
    metrics = json.loads((of_four / "clip" / "metrics.json").read_text())["metrics"]
    own = {board["measure"]: row["ap"] for board in boards[:2] for row in board["rows"] if row["name"] == "clip"}
    assert own == {"AP@100": pytest.approx(metrics["mAP@100"]), "AP@50": pytest.approx(metrics["mAP@50"])}
    headers = [line for line in run("leaderboard", of_four).stdout.splitlines() if line.startswith("| | ranking")]
    assert headers == [
        "| | ranking | AP@100 | nDCG | MRR | calls | source |",
        *["| | ranking | AP@50 | Appearance | Behavior | Context | Species | calls | source |"] * 2,
    ]


def test_a_run_over_a_part_of_the_queries_stands_apart_and_is_told_why(run: Run, of_four: Path) -> None:
    payload(run("eval", "sets/INQUIRE-Rerank", "--strategy", "yes-no", "--limit", "3", "--out", "part", "--json"))
    beside, _, alone, _ = payload(run("leaderboard", of_four, "part", "--json"))["boards"]
    assert len(beside["rows"]) == 5
    assert [row["name"] for row in alone["rows"]] == ["part/yes-no"]
    assert alone["notes"][0] == "part/yes-no is not comparable with the published rows: it has 3 of 4 queries"
    own, *theirs = payload(run("leaderboard", "part", "--json"))["boards"]
    assert [row["name"] for row in own["rows"]] == ["yes-no"]
    assert [(board["foreign"], len(board["rows"])) for board in theirs] == [(True, 3), (True, 24), (True, 19)]
    assert "other queries or candidates: not comparable" in theirs[0]["notes"][0]


def test_a_run_over_other_candidates_stands_apart(run: Run, of_four: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = resized(queries=4)
    monkeypatch.setattr("fieldscope.eval.measures.leaderboard.published", lambda: tables)
    own, *theirs = payload(run("leaderboard", of_four, "--json"))["boards"]
    assert [row["name"] for row in own["rows"]] == ["yes-no", "clip"]
    assert [board["foreign"] for board in theirs] == [True] * 3
    assert "they are over 100 candidates for each query, and it has 12" in own["notes"][0]


def test_a_run_over_other_judgments_stands_apart(
    run: Run, world: World, of_four: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of the same shape and size, some of whose labels were changed."""
    order = json.loads((of_four / "clip" / "metrics.json").read_text())["file_order"]
    tables = resized(queries=4, candidates=12, file_order={group: 100 * value for group, value in order.items()})
    monkeypatch.setattr("fieldscope.eval.measures.leaderboard.published", lambda: tables)
    assert not payload(run("leaderboard", of_four, "--json"))["boards"][0]["foreign"]
    assert len(payload(run("leaderboard", of_four, "--json"))["boards"][0]["rows"]) == 2 + 3
    changed = [{**row, "relevant": int(n % 5 == 0)} for n, row in enumerate(rows(world))]
    file = Path("sets/INQUIRE-Rerank/test-00000-of-00001.parquet")
    pq.write_table(pa.Table.from_pylist(changed, schema=SCHEMA), file)
    payload(run("eval", file.parent, "--strategy", "clip", "--out", "changed", "--json"))
    own, *theirs = payload(run("leaderboard", "changed", "--json"))["boards"]
    assert ([row["name"] for row in own["rows"]], len(theirs)) == (["clip"], 3)
    assert "so its candidates or judgments are other ones" in own["notes"][0]


def test_a_run_of_an_earlier_version_is_not_taken_on_trust(run: Run, of_four: Path) -> None:
    path = of_four / "clip" / "metrics.json"
    told = json.loads(path.read_text())
    del told["file_order"]
    path.write_text(json.dumps(told))
    own, *_ = payload(run("leaderboard", path.parent, "--json"))["boards"]
    assert [row["name"] for row in own["rows"]] == ["clip"]
    assert "Rerun its `fieldscope eval` command" in own["notes"][0]


def scored(**changed: Any) -> ScoredRun:
    """A run over as many queries and candidates as INQUIRE-Rerank's test split has."""
    queries = [f"q{number:03}" for number in range(160)]
    site = {row.name: row for row in published()[1].rows}["CLIP ViT-H/14-378 (DFN)"]
    metrics = {"AP@50": 0.5, "AP@100": 0.4, "nDCG@100": 0.6, "RR": 0.7}
    given = {
        "name": "mine", "folder": Path("mine"), "strategy": "mine", "benchmark": ("INQUIRE-Rerank", "test"),
        "task": "t", "lmm": None, "requests": dict.fromkeys(queries, ("x",)),
        "judgments": {query: dict.fromkeys(map(str, range(100)), 0) for query in queries},
        "values": dict.fromkeys(queries, metrics), "groups": {}, "spent": Usage(), "asked": 0, "unknown": 0,
        "ended": 0, "reported": INQUIRE_RERANK,
        "file_order": {"all": site.ap / 100, **{group: ap / 100 for group, ap in site.groups.items()}},
    }  # fmt: skip
    return ScoredRun(**{**given, **changed})


def test_the_benchmark_itself_stands_among_its_published_rows() -> None:
    whole, at_50, _ = boards([scored()])
    assert [(board.measure, board.foreign, len(board.rows)) for board in (whole, at_50)] == [
        ("AP@100", False, 3 + 1), ("AP@50", False, 24 + 1),
    ]  # fmt: skip


THREE = {f"q{number:03}": {"AP@50": 0.5, "AP@100": 0.4, "nDCG@100": 0.6, "RR": 0.7} for number in range(3)}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"values": THREE}, "it has 3 of 160 queries"),
        ({"judgments": {f"q{n:03}": dict.fromkeys(map(str, range(50)), 0) for n in range(160)}}, "and it has 50"),
        ({"file_order": {"all": 0.31, "Appearance": 0.388}}, "an AP@50 of 31.0, and 44.6 is published"),
        (
            {"file_order": {"all": 0.446, "Appearance": 0.47, "Behavior": 0.501, "Context": 0.474, "Species": 0.286}},
            "an AP@50 of Appearance of 47.0, and 38.8",
        ),
        ({"file_order": {}}, "it does not record"),
    ],
)
def test_whatever_else_has_its_name_stands_apart(changed: dict[str, Any], words: str) -> None:
    own, *theirs = boards([scored(**changed)])
    assert (len(own.rows), words in own.notes[0]) == (1, True), own.notes
    assert all(board.foreign for board in theirs) and len(theirs) == 3


def test_the_validation_split_stands_apart() -> None:
    own, *theirs = boards([scored(benchmark=("INQUIRE-Rerank", "validation"))])
    assert len(own.rows) == 1 and all(board.foreign for board in theirs)


def test_a_full_retrieval_run_never_stands_among_the_published_rows(run: Run, world: World) -> None:
    runs = evaluated(run, world, "INQUIRE-Fullrank")
    own, *theirs = payload(run("leaderboard", runs, "--json"))["boards"]
    assert ([row["name"] for row in own["rows"]], len(theirs)) == (["yes-no", "clip"], 3)
    assert "a run does not record which images it searched" in own["notes"][0]


@pytest.mark.parametrize(
    ("name", "more"), [("fieldnotes", ()), ("INQUIRE-Rerank", ("--split", "validation"))], ids=["other", "validation"]
)
def test_they_never_stand_beside_anything_else(run: Run, world: World, name: str, more: tuple[str, ...]) -> None:
    runs = evaluated(run, world, name, *more)
    own, *foreign = payload(run("leaderboard", runs, "--json"))["boards"]
    assert [row["name"] for row in own["rows"]] == ["yes-no", "clip"]
    assert [(board["foreign"], len(board["rows"])) for board in foreign] == [(True, 3), (True, 24), (True, 19)]
    shown = run("leaderboard", runs).stdout
    first, _, second = shown.partition("### INQUIRE-Rerank (test), published")
    assert "CLIP ViT" not in first and "CLIP ViT" in second
    assert "of another benchmark or split: not comparable" in second.partition("| ranking")[0]


def test_a_reader_sees_what_does_not_compare(run: Run, world: World) -> None:
    runs = evaluated(run, world, "mine")
    payload(run("eval", "sets/mine", "--strategy", "yes-no", "--limit", "2", "--out", "part", "--json"))
    notes = payload(run("leaderboard", runs, "part", "--json"))["boards"][0]["notes"]
    assert any("not over the same queries" in note for note in notes)
    assert any("part/yes-no was scored on test 2 times" in note for note in notes)


def test_the_published_figures() -> None:
    whole, rerank, fullrank = published()
    assert {row.name: (row.ap, row.ndcg, row.mrr) for row in whole.rows} == {
        "OpenAI CLIP ViT-B/32": (30.37, 59.32, 0.48),
        "OpenAI CLIP ViT-B/16": (31.88, 60.99, 0.54),
        "OpenAI CLIP ViT-L/14": (36.77, 64.15, 0.57),
    }
    assert {(table.benchmark, table.queries, table.candidates) for table in (whole, rerank)} == {
        ("INQUIRE-Rerank", 160, 100)
    }
    assert (len(rerank.rows), len(fullrank.rows)) == (23 + 1, 18 + 1)
    assert {row.name: row.ap for row in rerank.rows}["GPT-4o"] == 62.4
    best = fullrank.rows[0]
    assert (best.ap, dict(best.groups)) == (
        47.1,
        {"Appearance": 36.6, "Behavior": 49.7, "Context": 51.9, "Species": 59.4},
    )
    assert all(set(row.groups) == set(best.groups) for row in (*rerank.rows[:-1], *fullrank.rows))


def test_the_sources_say_who_measured_and_what_was_confirmed() -> None:
    whole, *site = published()
    sources = {row.name: row.source for row in whole.rows}
    assert all("measured by a user of the benchmark" in source for source in sources.values())
    assert [name for name, source in sources.items() if "confirmed by an author" in source] == ["OpenAI CLIP ViT-L/14"]
    assert all("INQUIRE's own site, state of 6 December 2024" in table.source for table in site)
