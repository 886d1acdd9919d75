"""A comparison of runs as one HTML page that needs nothing but itself: no network, no script."""

from __future__ import annotations

from pathlib import Path

from fieldscope.eval.measures.run_comparison import ScoredComparison, per_query
from fieldscope.service.viewer.report import charts, wording
from fieldscope.service.viewer.report.sheets import EXPLAINED
from fieldscope.service.wiring.feedback import spelled


def render_page(found: ScoredComparison) -> str:
    """The whole report. What comes from runs and data sets is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: spelled(value) if type(value) is str else value,
    )
    pages.filters |= {
        "percent": wording.percent,
        "points": wording.points,
        "p": wording.p_value,
        "amount": wording.amount,
        "kind": wording.kind_name,
    }
    return pages.get_template("report.html").render(
        found=found,
        best=wording.best_run(found),
        explained=EXPLAINED,
        findings=wording.findings(found),
        metric=per_query,
        scatter=charts.cost_quality(found),
        bars=charts.difference_bars,
        whiskers=charts.whiskers,
        side=charts.side_of,
        score=wording.score,
        interval=wording.interval,
        detectable=wording.detectable,
        trace=wording.trace_command,
    )
