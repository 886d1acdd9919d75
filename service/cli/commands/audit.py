"""`fieldscope measure reliability`, `audit` and `agreement`: whether what a model says can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fieldscope.core.errors import ConfigError
from fieldscope.service.cli.console import plain, show, show_json
from fieldscope.service.cli.options import json_option
from fieldscope.service.wiring.feedback import warn

if TYPE_CHECKING:
    from rich.table import Table

    from fieldscope.eval.measures.agreement import Agreement
    from fieldscope.eval.measures.audit import Audit, Confusion, Sunk
    from fieldscope.eval.measures.calibration_report import ClaimReliability
    from fieldscope.eval.measures.reliability import Estimate
    from fieldscope.eval.runs.annotations import Annotation
    from fieldscope.eval.types import Qrels

Command = TypeVar("Command", bound=Callable[..., Any])

SHOWN = 20
"""How many sunk images are shown without `--all`."""

_CONTRADICTIONS = {
    "subject": "about something that is said not to be there",
    "whole": "between the whole query and its parts",
    "repeated": "between answers to one question",
}

_runs = click.argument("runs", nargs=-1, required=True, metavar="RUN ...", type=click.Path(path_type=Path))


def _out(what: str) -> Callable[[Command], Command]:
    return click.option(
        "--out", type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER", help=f"Write {what} there, too."
    )


@click.command()
@_runs
@_out("a figure of each run (PNG) and all data (JSON and CSV)")
@json_option
def reliability(runs: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """See whether probabilities mean what they say, before and after calibration.

    Prints the expected calibration error (with a 95 % interval), the one over bins of equal mass, and the Brier score
    of P(expected) by kind of predicate, and of P(match). RUN is a run's folder, or an output folder of `fieldscope
    eval`.
    """
    from fieldscope.eval.measures.calibration_report import claim_reliability
    from fieldscope.eval.measures.figure import draw_reliability, write_data
    from fieldscope.service.workflows.audit import answer_key, calibration_of, identity, open_runs

    told: list[dict[str, Any]] = []
    tables: list[Table | str] = []
    for run in open_runs(runs):
        calibrated = run.calibration is not None
        found = claim_reliability(run.results, answer_key(run), calibrated, calibration_of(run))
        if not found:
            warn(f"{run.name} claims nothing with a probability whose truth is known; it is left out")
            continue
        told.append({**identity(run), "calibrated": calibrated, "claims": [asdict(each) for each in found]})
        tables += [_reliability_table(run.name, found), _sources([(each.source, each.subject) for each in found])]
        if out:
            path = out / f"reliability-{run.name.replace('/', '-')}.png"
            draw_reliability(found, path, f"{run.name}: {run.benchmark}, {run.split}")
            tables.append(f"The figure is {path}")
    if not told:
        raise ConfigError("these runs claim nothing with a probability; name runs that asked a model")
    data = {"runs": told}
    if out:
        measured = list(_measured(told))
        write_data(out, "reliability", data, [_summary(*each) for each in measured])
        bins = [row for each in measured for row in _bin_rows(*each)]
        write_data(out, "reliability-bins", {"bins": bins}, bins)
    if as_json:
        show_json(data)
    else:
        show(*tables, *([f"Its data are in {out / 'reliability.json'}"] if out else []))


@click.command()
@_runs
@_out("all data (JSON and CSV)")
@click.option("--all", "everything", is_flag=True, help=f"All sunk images, not the gravest {SHOWN} only.")
@json_option
def audit(runs: tuple[Path, ...], out: Path | None, everything: bool, as_json: bool) -> None:
    """Hold every verdict against what is true, and see which predicates sank relevant images.

    The truth is the scene graph for FieldNotes. Elsewhere it is relevance: all predicates of a relevant image hold, and
    of another one at least one fails, nobody knows which; so only what was missed on relevant images can be counted.
    RUN is a run's folder, or an output folder of `fieldscope eval`.
    """
    from fieldscope.eval.measures.audit import audit as hold
    from fieldscope.eval.measures.figure import write_data
    from fieldscope.eval.runs.annotations import read_annotations
    from fieldscope.service.workflows.audit import answer_key, identity, open_runs

    told: list[dict[str, Any]] = []
    shown: list[Table | str] = []
    for run in open_runs(runs):
        annotations = read_annotations(run.folder)
        found = hold(run.results, answer_key(run, annotations))
        if not found.kinds:
            warn(f"{run.name} asked nothing about its images; it is left out")
            continue
        marks = _marks(found, annotations, run.judgments)
        told.append({**identity(run), **_audit_data(found), "marks": marks})
        shown += [*_shown_audit(run.name, found, None if everything else SHOWN), *_shown_marks(marks)]
    if not told:
        raise ConfigError("these runs asked nothing about their images; name runs that asked a model")
    data = {"runs": told}
    if out:
        write_data(out, "audit", data, [{"run": run["run"], **row} for run in told for row in run["kinds"]])
        if sunk := [{"run": run["run"], **row} for run in told for row in run["sunk"]]:
            write_data(out, "sunk", {"sunk": sunk}, sunk)
    if as_json:
        show_json(data)
    else:
        show(*shown, *([f"All data are in {out / 'audit.json'}"] if out else []))


@click.command()
@_runs
@_out("a figure (PNG) and its data (JSON and CSV)")
@json_option
def agreement(runs: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """See how far models, or prompts, say the same about the same questions.

    Prints Cohen's kappa and the share of equal verdicts of every two runs, on the predicates that both asked of the
    same image for the same query. RUN is a run's folder, or an output folder of `fieldscope eval`.
    """
    from fieldscope.eval.measures.figure import draw_agreement, write_data
    from fieldscope.service.workflows.audit import agreement_of

    names, found = agreement_of(runs)
    rows = [asdict(each) | {"shared": each.shared, "equal": each.equal, "kappa": each.kappa} for each in found]
    data = {"runs": names, "pairs": rows}
    if out:
        draw_agreement(names, found, out / "agreement.png")
        write_data(out, "agreement", data, rows)
    if as_json:
        show_json(data)
    else:
        figure = [f"The figure is {out / 'agreement.png'}, with its data beside it"] if out else []
        show(_agreement_table(names, found), *figure)


def _reliability_table(name: str, found: Sequence[ClaimReliability]) -> Table:
    columns = ("claims", "hold", "ECE", "ECE after", "equal mass", "Brier")
    table = _table(f"{name}: calibration errors and Brier scores before and after calibration, percent", "of", *columns)
    for each in found:
        before, after = each.before, each.after
        table.add_row(
            plain(each.subject),
            f"{before.claims:,}",
            f"{100 * before.held:.1f}",
            _estimate(before.ece),
            _estimate(after.ece) if after else "-",
            _change(before.ece_mass, after.ece_mass if after else None),
            _change(before.brier, after.brier if after else None),
        )
    return table


def _sources(found: Sequence[tuple[str, str]]) -> str:
    """What each kind was held against, given sources and kinds."""
    kinds: dict[str, list[str]] = {}
    for source, kind in found:
        kinds.setdefault(source, []).append(kind)
    return "; ".join(f"held against {source}: {', '.join(named)}" for source, named in kinds.items())


def _measured(told: Sequence[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Every measurement of every run, with what it is of."""
    for run in told:
        for each in run["claims"]:
            for stage in ("before", "after"):
                if each[stage]:
                    start = {"run": run["run"], "claim": each["subject"], "source": each["source"], "stage": stage}
                    yield start, each[stage]


def _summary(start: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
    plain_values = {name: measured[name] for name in ("claims", "queries", "mean_p", "held")}
    return start | plain_values | _spread({name: measured[name] for name in ("ece", "ece_mass", "brier")})


def _bin_rows(start: dict[str, Any], measured: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        start
        | {"binning": binning}
        | {name: each[name] for name in ("low", "high", "count", "mean_p")}
        | _spread({"held": each["held"]})
        for binning, bins in (("width", measured["bins"]), ("mass", measured["mass_bins"]))
        for each in bins
    ]


def _spread(estimates: dict[str, dict[str, float]]) -> dict[str, float]:
    """Estimates as columns: the value under its name, and its interval beside it."""
    return {
        name if end == "value" else f"{name}_{end}": value
        for name, estimate in estimates.items()
        for end, value in estimate.items()
    }


def _audit_data(found: Audit) -> dict[str, Any]:
    return asdict(found) | {"kinds": [_row(row) for row in found.kinds], "total": _row(found.total)}


def _marks(found: Audit, annotations: Sequence[Annotation], judgments: Qrels) -> dict[str, int]:
    """How many verdicts and images people marked, how many of them wrong, and what became of the marks."""
    on_images = [each for each in annotations if each.predicate is None]
    judged = [(each.mark == "right", judgments.get(each.query_id, {}).get(each.image_id)) for each in on_images]
    return {
        "verdicts": found.total.marked,
        "verdicts_wrong": found.total.marked_wrong,
        "without_verdict": len(annotations) - len(on_images) - found.total.marked,
        "images": len(on_images),
        "images_against_judgments": sum(
            relevance is not None and match != (relevance > 0) for match, relevance in judged
        ),
    }


def _shown_marks(marks: dict[str, int]) -> Iterator[str]:
    if marks["verdicts"]:
        yield (
            f"verdicts marked by people: {marks['verdicts']}, {marks['verdicts_wrong']} of them wrong; their marks "
            "count as the truth there"
        )
    if marks["without_verdict"]:
        yield f"marks about verdicts that this run does not have any more: {marks['without_verdict']}"
    if marks["images"]:
        yield (
            f"images marked by people: {marks['images']}, {marks['images_against_judgments']} of them against the "
            "judgments; nothing is held against those marks"
        )


def _row(row: Confusion) -> dict[str, Any]:
    return asdict(row) | {"seen_share": row.seen_share, "refused_share": row.refused_share}


def _shown_audit(name: str, found: Audit, limit: int | None) -> list[Table | str]:
    right = _table(
        f"{name}: verdicts against the truth",
        "kind", "questions", "seen", "missed", "seen of all", "refused", "passed", "refused of all",
    )  # fmt: skip
    wrong = _table(
        "what tells nothing, what contradicts itself, and how many relevant images it sank",
        "kind", "truth unknown", "answer unknown", "not asked", "contradictions", "sank",
    )  # fmt: skip
    for row in (*found.kinds, found.total):
        style = "bold" if row is found.total else ""
        judged = (row.seen, row.missed, row.seen_share, row.refused, row.passed, row.refused_share)
        right.add_row(plain(row.kind), *map(_cell, (row.predicates, *judged)), style=style)
        rest = (row.untold, row.unknown, row.not_asked, row.contradictions, row.sank)
        wrong.add_row(plain(row.kind), *map(_cell, rest), style=style)
    lines: list[Table | str] = [
        right,
        "of what holds, seen or missed; of what does not, refused or passed",
        _truths(found),
        wrong,
    ]
    sorts = [each.sort for each in found.contradictions]
    told = ", ".join(f"{sorts.count(sort)} {words}" for sort, words in _CONTRADICTIONS.items() if sort in sorts)
    lines.append(f"contradictions: {told or 'none'}")
    ended = len(found.sunk) + found.sunk_otherwise
    lines.append(
        f"{ended} of {found.relevant} relevant images fell or stand below an irrelevant one; predicates count against "
        f"{len(found.sunk)} of them"
    )
    if found.sunk:
        lines.append(_sunk_table(found.sunk[:limit], len(found.sunk)))
    return lines


def _truths(found: Audit) -> str:
    told = _sources([(row.source, row.kind) for row in found.kinds])
    if any(row.refused is None for row in found.kinds):
        told += "; relevance says that all predicates of a relevant image hold, and not which one fails of another"
    return told


def _sunk_table(sunk: Sequence[Sunk], of: int) -> Table:
    title = f"what sank relevant images: {'all' if len(sunk) == of else f'the gravest {len(sunk)} of'} {of}"
    table = _table(title, "query", "image", "predicate", "truth", "P(expected)", "log-odds", "before", "rank", texts=4)
    for each in sunk:
        question = each.question if each.kind != "query" else f"all of: {each.query_text}"
        table.add_row(
            plain(each.query_id),
            plain(each.image_id),
            plain(question if each.expected == "yes" else f"{question} (no)"),
            {True: "holds", False: "fails", None: "-"}[each.holds],
            f"{each.p_expected:.3f}" if each.p_expected >= 0.0005 else "<0.001",
            f"{each.contribution:+.2f}",
            str(each.prior_rank),
            str(each.rank),
        )
    return table


def _agreement_table(names: Sequence[str], found: Sequence[Agreement]) -> Table:
    title = "Cohen's kappa, share of equal verdicts, and how many questions both answered"
    pairs = {frozenset((each.a, each.b)): each for each in found}
    table = _table(title, "", "", *(str(number) for number, _ in enumerate(names, start=1)), texts=2)
    for number, a in enumerate(names, start=1):
        cells = [_agreement(pairs.get(frozenset((a, b)))) for b in names]
        table.add_row(str(number), plain(a), *cells)
    return table


def _agreement(each: Agreement | None) -> str:
    if each is None:  # a run and itself
        return ""
    kappa = "-" if each.kappa is None else f"{each.kappa:.3f}"
    return f"{kappa}\n{_cell(each.equal)}\n{each.shared:,}"


def _table(title: str, *columns: str, texts: int = 1) -> Table:
    """A plain table whose first `texts` columns are words, and the others numbers."""
    from fieldscope.service.cli.tables.timeline import new_table

    table = new_table()
    table.title, table.title_justify = plain(title), "left"
    for place, column in enumerate(columns):
        table.add_column(plain(column), justify="left" if place < texts else "right", overflow="fold")
    return table


def _estimate(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} ({100 * estimate.low:.1f}–{100 * estimate.high:.1f})"


def _change(before: Estimate, after: Estimate | None) -> str:
    return " → ".join(f"{100 * each.value:.1f}" for each in (before, after) if each is not None)


def _cell(value: float | None) -> str:
    """A count as it is, a share in percent."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.1%}"
