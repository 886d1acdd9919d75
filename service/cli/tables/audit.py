"""Reliability, audits and agreement in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from fieldscope.service.cli.console import plain
from fieldscope.service.cli.tables.table import new_table

if TYPE_CHECKING:
    from rich.table import Table

    from fieldscope.eval.measures.agreement import Agreement
    from fieldscope.eval.measures.audit import Audit, Sunk
    from fieldscope.eval.measures.reliability import Estimate
    from fieldscope.service.workflows.audit import RunAudit, RunReliability

_CONTRADICTIONS = {
    "subject": "about a subject that other answers say is absent",
    "whole": "between the whole query and its parts",
    "repeated": "between answers to the same question",
}


def reliability_tables(report: RunReliability) -> list[Table | str]:
    """The calibration errors and Brier scores of each kind of claim, and what the claims were checked against."""
    title = f"{report.name}: calibration errors and Brier scores before and after calibration, percent"
    table = new_table("of", "claims", "hold", "ECE", "ECE after", "equal mass", "Brier", title=title)
    for claim in report.claims:
        before, after = claim.before, claim.after
        table.add_row(
            plain(claim.subject),
            f"{before.claims:,}",
            f"{100 * before.held:.1f}",
            _estimate(before.ece),
            _estimate(after.ece) if after else "-",
            _change(before.ece_mass, after.ece_mass if after else None),
            _change(before.brier, after.brier if after else None),
        )
    return [table, _sources((claim.source, claim.subject) for claim in report.claims)]


def audit_tables(report: RunAudit, limit: int | None) -> list[Table | str]:
    """Verdicts against the truth, contradictions, the images that were sunk (the first `limit`), and people's marks."""
    audit = report.audit
    right = new_table(
        "kind", "questions", "seen", "missed", "seen of all", "refused", "passed", "refused of all",
        title=f"{report.name}: verdicts against the truth",
    )  # fmt: skip
    wrong = new_table(
        "kind", "truth unknown", "answer unknown", "not asked", "contradictions", "sank",
        title="verdicts that could not be checked, contradictions, and how many relevant images each kind sank",
    )  # fmt: skip
    for row in (*audit.kinds, audit.total):
        style = "bold" if row is audit.total else ""
        checked = (row.seen, row.missed, row.seen_share, row.refused, row.passed, row.refused_share)
        right.add_row(plain(row.kind), *map(_cell, (row.predicates, *checked)), style=style)
        rest = (row.untold, row.unknown, row.not_asked, row.contradictions, row.sank)
        wrong.add_row(plain(row.kind), *map(_cell, rest), style=style)
    sorts = [contradiction.sort for contradiction in audit.contradictions]
    counts = ", ".join(f"{sorts.count(sort)} {words}" for sort, words in _CONTRADICTIONS.items() if sort in sorts)
    ended = len(audit.sunk) + audit.sunk_otherwise
    lines: list[Table | str] = [
        right,
        "of predicates that hold: seen or missed; of those that do not: refused or passed",
        _truths(audit),
        wrong,
        f"contradictions: {counts or 'none'}",
        f"{ended} of {audit.relevant} relevant images fell or stand below an irrelevant one; predicates count against "
        f"{len(audit.sunk)} of them",
    ]
    if audit.sunk:
        lines.append(_sunk_table(audit.sunk[:limit], len(audit.sunk)))
    return [*lines, *_mark_lines(report.marks)]


def agreement_table(names: Sequence[str], agreements: Sequence[Agreement]) -> Table:
    """A matrix of the runs: kappa, the share of equal verdicts, and how many questions both answered."""
    title = "Cohen's kappa, share of equal verdicts, and how many questions both answered"
    pairs = {frozenset((pair.a, pair.b)): pair for pair in agreements}
    table = new_table("", "", *(str(number) for number, _ in enumerate(names, start=1)), texts=2, title=title)
    for number, a in enumerate(names, start=1):
        cells = [_agreement(pairs.get(frozenset((a, b)))) for b in names]
        table.add_row(str(number), plain(a), *cells)
    return table


def _sources(claims: Iterable[tuple[str, str]]) -> str:
    """What each kind of claim was checked against, given sources and kinds."""
    kinds: dict[str, list[str]] = {}
    for source, kind in claims:
        kinds.setdefault(source, []).append(kind)
    return "; ".join(f"checked against {source}: {', '.join(named)}" for source, named in kinds.items())


def _truths(audit: Audit) -> str:
    sources = _sources((row.source, row.kind) for row in audit.kinds)
    if any(row.refused is None for row in audit.kinds):
        sources += "; relevance says that all predicates of a relevant image hold, not which fails on an irrelevant one"
    return sources


def _mark_lines(marks: Mapping[str, int]) -> Iterator[str]:
    if marks["verdicts"]:
        yield (
            f"verdicts marked by people: {marks['verdicts']}, {marks['verdicts_wrong']} of them wrong; the marks count "
            "as the truth there"
        )
    if marks["without_verdict"]:
        yield f"marks on verdicts that this run no longer has: {marks['without_verdict']}"
    if marks["images"]:
        yield (
            f"images marked by people: {marks['images']}, {marks['images_against_judgments']} of them against the "
            "judgments; verdicts are not checked against these marks"
        )


def _sunk_table(sunk: Sequence[Sunk], of: int) -> Table:
    title = f"what sank relevant images: {'all' if len(sunk) == of else f'the gravest {len(sunk)} of'} {of}"
    columns = ("query", "image", "predicate", "truth", "P(expected)", "log-odds", "before", "rank")
    table = new_table(*columns, texts=4, title=title)
    for image in sunk:
        question = image.question if image.kind != "query" else f"all of: {image.query_text}"
        table.add_row(
            plain(image.query_id),
            plain(image.image_id),
            plain(question if image.expected == "yes" else f"{question} (no)"),
            {True: "holds", False: "fails", None: "-"}[image.holds],
            f"{image.p_expected:.3f}" if image.p_expected >= 0.0005 else "<0.001",
            f"{image.contribution:+.2f}",
            str(image.prior_rank),
            str(image.rank),
        )
    return table


def _agreement(pair: Agreement | None) -> str:
    if pair is None:  # a run and itself
        return ""
    kappa = "-" if pair.kappa is None else f"{pair.kappa:.3f}"
    return f"{kappa}\n{_cell(pair.equal)}\n{pair.shared:,}"


def _estimate(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} ({100 * estimate.low:.1f}–{100 * estimate.high:.1f})"


def _change(before: Estimate, after: Estimate | None) -> str:
    return " → ".join(f"{100 * estimate.value:.1f}" for estimate in (before, after) if estimate is not None)


def _cell(value: float | None) -> str:
    """A count as it is, a share in percent."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.1%}"
