"""Studies and their figures, and harm, on tables small enough to check by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from fieldscope.core.errors import ConfigError
from fieldscope.eval.measures.figure import draw_budget, draw_comparison, write_data
from fieldscope.eval.measures.regressions import harm
from fieldscope.eval.measures.studies import BudgetRun, BudgetStudy, budget_study, comparison_study, gain_kept
from fieldscope.eval.runs.read import read_metric, read_results

QUERIES = [f"q{n}" for n in range(8)]
PRIOR = dict.fromkeys(QUERIES, 0.2)
FREE = dict.fromkeys(QUERIES, 0.6)


def runs(**means: float) -> dict[float, BudgetRun]:
    """`runs(s25=0.5)`: under 25 % every query has 0.5."""
    shares = {float(name[1:]) / 100: value for name, value in means.items()}
    return {s: BudgetRun(s, round(40 * s), 39 * s, dict.fromkeys(QUERIES, value)) for s, value in shares.items()}


@pytest.fixture
def study() -> BudgetStudy:
    return budget_study(PRIOR, FREE, runs(s100=0.6, s25=0.5, s50=0.3))


def test_a_budget_study_by_hand(study: BudgetStudy) -> None:
    assert (study.prior, study.free) == pytest.approx((0.2, 0.6))
    assert [(p.share, p.max_calls) for p in study.points] == [(0.25, 10), (0.5, 20), (1.0, 40)]
    assert [p.kept for p in study.points] == pytest.approx([0.75, 0.25, 1.0])
    assert set(study.steps) == {(0.25, 0.5), (0.25, 1.0), (0.5, 1.0)}
    assert study.steps[0.25, 0.5].difference == pytest.approx(-0.2)
    assert study.steps[0.25, 0.5].p == 2 / 2**8
    assert study.worse == ((0.25, 0.5),)


def test_what_is_worse_by_chance_is_not_worse() -> None:
    some = runs(s25=0.5, s50=0.5)
    odd = {**some[0.5].values, "q0": 0.4, "q1": 0.55}
    study = budget_study(PRIOR, FREE, {**some, 0.5: BudgetRun(0.5, 20, 19.0, odd)})
    assert study.steps[0.25, 0.5].difference < 0
    assert study.worse == ()


def test_without_a_gain_nothing_can_be_kept() -> None:
    assert gain_kept(PRIOR, PRIOR, FREE) is None
    assert gain_kept(FREE, PRIOR, FREE) is None
    assert gain_kept(PRIOR, FREE, PRIOR) == 0


def test_a_comparison_study_by_hand() -> None:
    scheduled = {**FREE, "q0": 0.2}
    study = comparison_study("prior", PRIOR, FREE, scheduled, calls_all=380, calls_scheduled=57)
    assert study.all_pairs.difference == pytest.approx(0.4)
    assert study.recovered == pytest.approx(7 / 8)
    assert not study.harms
    assert comparison_study("verdicts", FREE, FREE, PRIOR, calls_all=380, calls_scheduled=57).harms


def test_harm_by_hand() -> None:
    prior = {"a": 0.5, "b": 0.5, "c": 0.5, "d": 0.5}
    strategy = {"a": 0.49, "b": 0.49, "c": 0.7, "d": 0.44}
    found = harm(prior, strategy, {"a": "Species", "b": "Species", "c": "Context", "d": "Context"})
    assert list(found.groups) == ["Context", "Species"]
    assert found.groups["Species"].change == pytest.approx(-0.01)  # at the bound, and no harm
    assert found.groups["Context"].change == pytest.approx(0.07)
    assert (found.overall.queries, found.overall.losing) == (4, 0.25)
    (line,) = found.broken
    assert line.startswith("25.0%")


def test_a_group_that_loses_is_named() -> None:
    prior, strategy = dict.fromkeys("abcd", 0.5), {"a": 0.48, "b": 0.48, "c": 0.6, "d": 0.6}
    (line,) = harm(prior, strategy, {"a": "Species", "b": "Species"}).broken
    assert line.startswith("Species: the mean change of AP is -0.020")
    assert harm(prior, prior, {}).broken == []
    assert list(harm(prior, prior, {}).groups) == ["all"]


def test_figures_and_data_are_written(study: BudgetStudy, tmp_path: Path) -> None:
    draw_budget(study, tmp_path / "new" / "budget.png", "mAP@50")
    compared = comparison_study("prior", PRIOR, FREE, FREE, calls_all=380, calls_scheduled=57)
    draw_comparison([compared], tmp_path / "comparison.png", "nDCG@10")
    for path in (tmp_path / "new" / "budget.png", tmp_path / "comparison.png"):
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert picture.size == (900, 600)
            assert len(picture.convert("RGB").resize((90, 60)).getcolors(5400) or ()) > 10
    write_data(tmp_path, "budget", {"prior": 0.2}, [{"share": 0.25, "kept": 0.75}, {"share": 0.5, "kept": None}])
    assert json.loads((tmp_path / "budget.json").read_text()) == {"prior": 0.2}
    with (tmp_path / "budget.csv").open(newline="") as stream:
        assert list(csv.DictReader(stream)) == [{"share": "0.25", "kept": "0.75"}, {"share": "0.5", "kept": ""}]


def test_no_text_of_a_study_runs_as_a_formula(tmp_path: Path) -> None:
    write_data(tmp_path, "budget", {}, [{"run": "=1+1", "kept": -0.5}])
    with (tmp_path / "budget.csv").open(newline="") as stream:
        assert list(csv.DictReader(stream)) == [{"run": "'=1+1", "kept": "-0.5"}]


def test_a_finished_run_is_read_back(tmp_path: Path) -> None:
    table = {"per_query": {"q0": {"positives": 2, "AP@50": 0.5}, "q1": {"positives": 0, "AP@50": None}}}
    (tmp_path / "metrics.json").write_text(json.dumps(table))
    assert read_metric(tmp_path, "AP@50") == {"q0": 0.5}
    with pytest.raises(ConfigError, match=r"no metric 'AP@5'. Use one of AP@50"):
        read_metric(tmp_path, "AP@5")


@pytest.mark.parametrize("text", [None, "", "[]", '{"per_query": 3}', '{"per_query": {"q": 3}}'])
def test_what_is_no_run_is_refused_in_one_line(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "metrics.json").write_text(text)
        (tmp_path / "results.jsonl").write_text(text or "{}\n")
    with pytest.raises(ConfigError, match="no finished run"):
        read_metric(tmp_path, "AP@50")
    with pytest.raises(ConfigError, match="no finished run"):
        read_results(tmp_path)
