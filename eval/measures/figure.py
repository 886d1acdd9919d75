"""A study as files: its figure as PNG, its data as JSON and CSV."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldscope.core.spreadsheet import cell
from fieldscope.eval.measures.agreement import Agreement
from fieldscope.eval.measures.calibration_report import ClaimReliability
from fieldscope.eval.measures.studies import BudgetStudy, ComparisonStudy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIZE = (6.0, 4.0)  # inches
_DPI = 150


def write_data(folder: Path, name: str, data: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """`name.json` with everything and `name.csv` with the rows, which have the same keys, in `folder`. No text
    in the CSV can run as a formula."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows({name: cell(value) for name, value in row.items()} for row in rows)


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


def draw_reliability(claims: Sequence[ClaimReliability], path: Path, title: str) -> None:
    """A reliability diagram for each kind of claim, before and after calibration, with intervals: the share that held
    over the mean probability, in bins of equal mass. On the diagonal, probabilities mean what they say."""
    columns = min(len(claims), 4)
    rows = math.ceil(len(claims) / columns)
    figure = _figure(2.6 * columns, 2.7 * rows + 0.6)
    figure.suptitle(title, fontsize="medium")
    for place, claim in enumerate(claims, start=1):
        axes = figure.add_subplot(rows, columns, place)
        axes.plot([0, 1], [0, 1], linestyle=":", color="grey")
        errors = []
        for label, measured, colour in (("before", claim.before, "tab:orange"), ("after", claim.after, "tab:blue")):
            if measured is None:
                continue
            bins = measured.mass_bins
            held = [b.held for b in bins]
            spread = [[max(h.value - h.low, 0.0) for h in held], [max(h.high - h.value, 0.0) for h in held]]
            axes.errorbar(
                [b.mean_p for b in bins], [h.value for h in held], spread, label=label, color=colour, marker=".", lw=1
            )
            errors.append(f"{measured.ece.value:.3f}")
        axes.set_title(f"{claim.subject} ({claim.before.claims:,})\nECE {' → '.join(errors)}", fontsize="small")
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        if place == 1:
            axes.legend(loc="upper left", fontsize="small")
    figure.supxlabel("probability", fontsize="small")
    figure.supylabel("share that held", fontsize="small")
    _save(figure, path)


def draw_agreement(names: Sequence[str], agreements: Sequence[Agreement], path: Path) -> None:
    """The matrix of Cohen's kappa, run by run, with the share of equal verdicts below each."""
    size = 2.0 + 1.1 * len(names)
    figure = _figure(size, size)
    axes = figure.add_subplot()
    kappas = [[1.0 if a == b else math.nan for b in names] for a in names]
    for agreement in agreements:
        for a, b in ((agreement.a, agreement.b), (agreement.b, agreement.a)):
            row, column = names.index(a), names.index(b)
            kappas[row][column] = math.nan if agreement.kappa is None else agreement.kappa
            label = (
                "-"
                if agreement.equal is None
                else f"{kappas[row][column]:.2f}\n{agreement.equal:.0%}".replace("nan", "-")
            )
            axes.text(column, row, label, ha="center", va="center", fontsize="small")
    axes.imshow(kappas, vmin=-1, vmax=1, cmap="RdYlGn", alpha=0.6)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_title("Cohen's kappa, share of equal verdicts", fontsize="medium")
    _save(figure, path)


def _figure(width: float = _SIZE[0], height: float = _SIZE[1]) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DPI, metadata={"Software": None})
