from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

from rich.console import Console, RenderableType

from fieldscope.agent.usage import Usage
from fieldscope.eval.measures.scoring import FIRST_STAGE_RECALL, HEADLINE
from fieldscope.eval.progress import LiveProgress
from fieldscope.eval.report import payload, warnings
from fieldscope.eval.types import RunSummary
from fieldscope.service.cli.tables.evaluation import cost_table, group_table, overview_table, quality_table, tables


def summary(strategy: str, value: float, **changes: object) -> RunSummary:
    metrics = dict.fromkeys(HEADLINE, value)
    base = RunSummary(
        benchmark="mini",
        split="test",
        strategy=strategy,
        metrics=metrics,
        by_supercategory={"Behavior": metrics, "Species": {**metrics, "mAP@50": None}},
        cost=Usage(1600, 12000, 1600, 5, wall=12.34),
        out=Path("runs") / strategy,
        queries=16,
        scored=16,
        asked=1600,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def shown(renderable: RenderableType, width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_object_has_the_documented_shape() -> None:
    printed = json.loads(json.dumps(payload([summary("clip", 0.5), summary("yes-no", 0.75)]), allow_nan=False))
    assert list(printed) == ["benchmark", "split", "runs"]
    assert [run["strategy"] for run in printed["runs"]] == ["clip", "yes-no"]
    run = printed["runs"][1]
    assert list(run) == ["strategy", "metrics", "by_supercategory", "cost", "unknown", "ended", "scored_on_test", "out"]
    assert run["metrics"] == dict.fromkeys(HEADLINE, 0.75)
    assert run["by_supercategory"]["Species"]["mAP@50"] is None
    assert run["cost"] == {
        "calls": 1600, "prompt_tokens": 12000, "completion_tokens": 1600, "cache_hits": 5, "seconds": 12.34,
    }  # fmt: skip
    assert (run["unknown"], run["ended"], run["out"]) == (0, {}, "runs/yes-no")


def test_the_table_compares_with_the_first_run() -> None:
    text = shown(quality_table([summary("clip", 0.5), summary("yes-no", 0.6543), summary("worse", 0.4)]))
    for cell in ("mini (test), 16 queries", "mAP@50", "50.0", "65.4 +15.4", "40.0 -10.0"):
        assert cell in text


def test_the_supercategories_are_compared_too() -> None:
    text = shown(group_table([summary("clip", 0.5), summary("yes-no", 0.6)]))
    for cell in ("mAP@50 by supercategory", "Behavior", "60.0 +10.0"):
        assert cell in text
    assert [line.split()[-1] for line in text.splitlines() if line.strip().startswith(("clip", "yes-no"))] == ["-", "-"]


def test_the_cost_has_every_account() -> None:
    text = shown(cost_table([summary("yes-no", 0.5, unknown=7)]))
    assert text.splitlines()[-2].split() == ["yes-no", "1,600", "12,000", "1,600", "5", "7", "12.3"]


def test_names_from_a_data_set_are_no_markup() -> None:
    odd = "[red]odd[/blue]"
    runs = [summary("clip", 0.5, benchmark=odd, by_supercategory={odd: dict.fromkeys(HEADLINE, 0.5)})]
    assert all(odd in shown(table) for table in tables(runs)[:2])


def test_every_table_fits_into_80_columns() -> None:
    means = dict.fromkeys((*HEADLINE, FIRST_STAGE_RECALL), 0.999)
    groups = dict.fromkeys(("Appearance", "Behavior", "Context", "Species"), means)
    big = Usage(160_000, 16_000_000, 1_600_000, 160_000, wall=12_345.6)
    none = dict.fromkeys(means, 0.0)
    runs = [
        summary("clip", 0, metrics=none, by_supercategory=dict.fromkeys(groups, none), cost=big, unknown=1_000),
        summary("yes-no-fused", 1, metrics=means, by_supercategory=groups, cost=big),
    ]
    assert len(tables(runs)) == 4
    assert len(tables([summary("clip", 0, by_supercategory={})])) == 3
    for table in tables(runs):
        text = shown(table, width=80)
        assert "…" not in text
        assert len([line for line in text.splitlines() if line.strip()]) <= 6, text
    assert "first-stage recall@100: 0.0" in shown(quality_table(runs))


def test_what_a_reader_must_know_is_a_line_of_its_own() -> None:
    assert warnings([summary("clip", 0.5)]) == []
    faulty = summary("yes-no", 0.5, unknown=16, scored=14, flags=("foreign images",))
    lines = warnings([faulty, summary("yes-no-fused", 0.5, flags=("foreign images",))])
    assert "16 of 1,600 calls failed (1.0 %)" in lines[0]
    assert "runs/yes-no/results.jsonl" in lines[0]
    assert "2 of 16 queries have nothing relevant" in lines[1]
    assert lines[2:] == ["foreign images"]
    assert warnings([faulty], failed=[faulty])[0] == lines[1]  # of a run that failed the error tells


def test_where_a_budget_ended_the_work_is_a_line_of_its_own() -> None:
    lines = warnings([summary("clip", 0.5), summary("agent", 0.5, ended={"compare": 2, "verify": 10})])
    assert lines == ["agent: a budget ended the work on 12 of 16 queries (compare 2, verify 10)"]
    assert payload([summary("agent", 0.5, ended={"verify": 3})])["runs"][0]["ended"] == {"verify": 3}


def test_quality_and_cost_at_a_glance() -> None:
    metrics = {"mAP@50": 0.5, "nDCG@10": 0.7, "MRR": 0.9, "hits@1": 0.1}
    better = {**metrics, "nDCG@10": 0.8}
    text = shown(overview_table([summary("clip", 0, metrics=metrics), summary("agent", 0, metrics=better)]))
    assert text.splitlines()[-2].split() == [
        "agent", "50.0", "+0.0", "80.0", "+10.0", "90.0", "+0.0", "1,600", "13.6k", "12",
    ]  # fmt: skip
    without = shown(overview_table([summary("clip", 0.5)]))
    assert ("nDCG@10" in without) == ("nDCG@10" in HEADLINE)


def test_a_task_shows_its_own_metrics_and_its_rounds() -> None:
    metrics = dict.fromkeys(HEADLINE, 0.5) | {FIRST_STAGE_RECALL: 0.9, "hits@10": 0.625}
    run = summary("agent", 0, metrics=metrics, by_round={0: {"hits@10": 0.25}, 1: {"hits@10": None}})
    text = "".join(shown(table) for table in tables([run]))
    assert "62.5" in text
    by_round = next(shown(table) for table in tables([run]) if "by round" in shown(table))
    assert by_round.splitlines()[-2].split() == ["agent", "25.0", "-"]
    assert payload([run])["runs"][0]["by_round"] == {"0": {"hits@10": 0.25}, "1": {"hits@10": None}}


def test_live_progress_shows_the_account() -> None:
    console = Console(file=io.StringIO(), width=160, force_terminal=True)
    assert isinstance(console.file, io.StringIO)
    with LiveProgress(console) as progress:
        progress.begin("yes-no", 5, 2, Usage(16, 100, 16, 16))
        progress.advance(Usage(8, 50, 8, 0, unknown=3))
        progress.end()
    text = console.file.getvalue()
    assert "yes-no" in text
    assert "3/5" in text
    assert "24 calls, 174 tokens, 16 cached, 3 unknown" in text
