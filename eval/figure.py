"""A study as files: its figure as PNG, its data as JSON and CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.studies import BudgetStudy, ComparisonStudy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIZE = (6.0, 4.0)  # inches
_DPI = 150


def write_data(folder: Path, name: str, data: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """`name.json` with everything and `name.csv` with the rows, which have the same keys, in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def draw_budget(study: BudgetStudy, path: Path, metric: str) -> None:
    """The metric over calls a query, from the prior without any to the largest budget, beside the free run."""
    figure = _figure()
    axes = figure.add_subplot()
    calls = [0.0, *(point.calls for point in study.points)]
    axes.plot(calls, [study.prior, *(point.value for point in study.points)], marker="o")
    for point in study.points:
        axes.annotate(
            f"{point.share:.0%}", (point.calls, point.value), xytext=(0, -14), textcoords="offset points", ha="center"
        )
    axes.axhline(study.prior, linestyle=":", color="grey", label="prior")
    axes.axhline(study.free, linestyle="--", color="grey", label="no budget")
    axes.set_xlabel("calls a query")
    axes.set_ylabel(metric)
    axes.legend(loc="lower right")
    _save(figure, path)


def draw_comparison(studies: Sequence[ComparisonStudy], path: Path, metric: str) -> None:
    """The metric before comparisons, after the scheduled ones and after all pairs, one line for each start."""
    figure = _figure()
    axes = figure.add_subplot()
    for study in studies:
        calls = [0.0, study.calls_scheduled, study.calls_all]
        axes.plot(calls, [study.before, study.scheduled.mean_b, study.all_pairs.mean_b], marker="o", label=study.start)
    axes.set_xlabel("comparisons a query")
    axes.set_ylabel(metric)
    axes.legend(loc="lower right", title="started from")
    _save(figure, path)


def _figure() -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=_SIZE, layout="constrained")


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DPI, metadata={"Software": None})
