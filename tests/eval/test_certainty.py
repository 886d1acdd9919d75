"""How sure an evaluation's figures are: its intervals, and how many queries a difference needs."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from fieldscope.agent.usage import Usage
from fieldscope.eval.measures.certainty import certainties
from fieldscope.eval.measures.paired import POWER, bootstrap_interval, needed, power
from fieldscope.eval.measures.scoring import HEADLINE
from fieldscope.eval.report import payload
from fieldscope.eval.types import RunSummary
from fieldscope.service.cli.tables.evaluation import certainty_tables, tables

LOW = [0.1, 0.4, 0.2, 0.5, 0.3, 0.6, 0.2, 0.4, 0.5, 0.3]
HIGH = [0.5, 0.7, 0.6, 0.9, 0.8, 0.9, 0.4, 0.9, 1.0, 0.6]


def summary(strategy: str, values: list[float]) -> RunSummary:
    mean = sum(values) / len(values)
    return RunSummary(
        benchmark="mini",
        split="test",
        strategy=strategy,
        metrics=dict.fromkeys(HEADLINE, mean),
        by_supercategory={},
        cost=Usage(),
        out=Path("runs") / strategy,
        queries=len(values),
        scored=len(values),
        values={name: {f"q{n}": v for n, v in enumerate(values)} for name in ("mAP@50", "nDCG@10", "MRR")},
    )


def printed(runs: list[RunSummary]) -> list[str]:
    console = Console(file=io.StringIO(), width=100)
    for table in certainty_tables(runs):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_number_of_queries_is_needed_that_just_reaches_the_power() -> None:
    for difference, spread in ((0.3, 0.3), (-0.02, 0.2), (0.001, 0.1)):
        queries = needed(difference, spread)
        assert queries is not None
        assert power(difference, spread, queries) >= POWER > power(difference, spread, queries - 1)
    assert needed(0.0, 0.2) is None  # nothing to find
    assert needed(1e-6, 0.5) is None  # beyond a million
    assert needed(0.5, 0.0) == 6  # the least number of queries whose test can reach 5 %


def test_intervals_are_those_of_the_bootstrap_and_the_difference_is_to_the_first() -> None:
    first, second = certainties([summary("clip", LOW), summary("agent", HIGH)])
    assert (first.means["MRR"].low, first.means["MRR"].high) == bootstrap_interval(LOW)
    assert first.effect is None and second.effect is not None
    assert second.effect.test.difference == pytest.approx(0.38)
    assert second.effect.significant and second.effect.needed == 6


def test_eval_prints_intervals_and_the_number_of_queries() -> None:
    lines = printed([summary("clip", LOW), summary("agent", HIGH)])
    low, high = (100 * bound for bound in bootstrap_interval(HIGH))
    assert any(line.split()[:3] == ["agent", "73.0", f"[{low:.1f},"] and f"{high:.1f}]" in line for line in lines)
    (gain,) = (line.split() for line in lines if "+38.0" in line)
    assert gain[0] == "agent" and gain[-1] == "6" and gain[-3].endswith("*")
    assert max(map(len, lines)) <= 80


def test_one_strategy_has_intervals_and_is_compared_with_nothing() -> None:
    lines = printed([summary("agent", HIGH)])
    assert any("[" in line for line in lines)
    assert not any("needed" in line for line in lines)
    run = payload([summary("agent", HIGH)])["runs"][0]
    assert "against_first" not in run and set(run["intervals"]) == {"mAP@50", "nDCG@10", "MRR"}


def test_a_program_gets_the_same() -> None:
    runs = json.loads(json.dumps(payload([summary("clip", LOW), summary("agent", HIGH)]), allow_nan=False))["runs"]
    assert runs[1]["against_first"]["queries_needed"] == 6
    assert runs[1]["against_first"]["difference"] == pytest.approx(0.38)
    assert runs[1]["intervals"]["mAP@50"] == pytest.approx(list(bootstrap_interval(HIGH)))


def test_runs_that_can_not_be_compared_still_have_intervals() -> None:
    other = summary("agent", HIGH)
    fewer = replace(other, values={name: dict([*of.items()][1:]) for name, of in other.values.items()})
    first, second = certainties([summary("clip", LOW), fewer])
    assert first.means and second.effect is None


def test_of_a_single_query_nothing_is_said() -> None:
    assert certainties([summary("clip", [0.5])])[0].payload() == {}
    assert certainty_tables([summary("clip", [0.5])]) == []
    assert len(tables([summary("clip", [0.5])])) == 3
    assert "intervals" not in payload([summary("clip", [0.5])])["runs"][0]
