"""A comparison of runs as one HTML page without scripts that loads nothing."""

from __future__ import annotations

from fieldscope.eval.measures.run_comparison import ScoredComparison, ScoredPair, cost_of
from fieldscope.service.viewer.charts.gains import Gains, gains_chart
from fieldscope.service.viewer.charts.scatter import Scatter, scatter
from fieldscope.service.viewer.comparison import presentation
from fieldscope.service.viewer.rendering import environment
from fieldscope.service.wiring.feedback import spelled


def render_page(comparison: ScoredComparison) -> str:
    """The whole report. Texts from runs and data sets are escaped."""
    page = environment().overlay(finalize=lambda value: spelled(value) if type(value) is str else value)
    return page.get_template("comparison_report.html").render(
        comparison=comparison, presentation=presentation, scatter=_scatter(comparison), chart=_gains
    )


def _scatter(comparison: ScoredComparison) -> Scatter:
    """Runs by what a query costs and by the main metric."""
    cost, runs = comparison.main_cost, comparison.runs
    return scatter(
        [run.name for run in runs],
        [cost_of(run, cost) / len(run.requests) for run in runs],
        [mean.value for mean in comparison.means[comparison.main]],
        [run.name in comparison.fronts[cost] for run in runs],
        quality=comparison.main,
        cost=comparison.currency or cost,
    )


def _gains(comparison: ScoredComparison, pair: ScoredPair) -> Gains:
    return gains_chart(pair.differences[comparison.main], pair.effects[comparison.main], pair.a.text)
