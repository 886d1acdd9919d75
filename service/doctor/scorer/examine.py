"""Runs all checks on a scorer, one after another."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from fieldscope.core.errors import ConfigError, LMMError
from fieldscope.retrieval.progress import Report
from fieldscope.retrieval.scorer import Scorer
from fieldscope.service.doctor.examine import Examination
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.probes import Probe, fieldnotes, shapes
from fieldscope.service.doctor.scorer import (
    batch,
    complete,
    instruction,
    known,
    order,
    query,
    reference,
    repeats,
    server,
    sight,
    truncation,
    values,
)
from fieldscope.service.doctor.scorer.asker import Asker
from fieldscope.service.doctor.scorer.grid import Grid
from fieldscope.service.doctor.scorer.lists import score_alone, score_lists
from fieldscope.service.doctor.scorer.served import in_one_request
from fieldscope.service.doctor.scorer.subject import KINDS, Check, Kind, Subject


def examine_scorer(scorer: Scorer, name: str, report: Report) -> Examination:
    """Examine the scorer that the user calls `name`, without a memory of scores.

    It is asked about plain shapes, and about FieldNotes' animals, the only images that the bundled models know, where
    it is not right about all shapes. Where it does not answer, that is the only finding, and no `probe` was used.
    """
    started = time.perf_counter()
    asker = Asker(scorer)
    subject = Subject(name, asker, asker, shapes())
    reached = server.check_server(subject)
    if (lister := in_one_request(scorer)) is not scorer:
        subject.lister = Asker(lister)
    findings = {reached.name: reached}
    answers = reached.state == "ok" or len(subject.refusals) == 1
    for number, (names, check) in enumerate(CHECKS if answers else (), start=1):
        report(number - 1, len(CHECKS))
        try:
            findings |= {finding.name: finding for finding in check(subject)}
        except (LMMError, ConfigError) as error:
            if check is _contents:  # all later checks need the scores of known documents
                findings |= {each: _broken(each, error) for later, _ in CHECKS for each in later}
                break
            findings |= {each: _broken(each, error) for each in names}
        report(number, len(CHECKS))
    return Examination(
        subject.identity or name,
        subject.probe.name if answers else None,
        tuple(findings.values()),
        asker.requests + (subject.lister.requests if subject.lister is not asker else 0),
        time.perf_counter() - started,
    )


def _contents(subject: Subject) -> Sequence[Finding]:
    for kind in KINDS:
        if kind not in subject.refusals:
            subject.grids[kind] = _grid(subject, kind)
            if kind == "images" and subject.grids[kind].correct < 1:
                subject.probe, subject.grids[kind] = _better_probe(subject, fieldnotes())
    return [finding for kind in KINDS for finding in _judge_content(subject, kind)]


def _judge_content(subject: Subject, kind: Kind) -> Sequence[Finding]:
    if kind in subject.refusals:
        return [_refused(subject, each.name_of(kind), kind) for each in (values, known, query)]
    grid, spread = subject.grids[kind], values.judge_values(kind, subject.grids[kind])
    if grid.flat:
        seen, meaning = "all scores are alike", f"see the check {spread.name!r}"
        return spread, *(Finding(each.name_of(kind), "unknown", seen, meaning) for each in (known, query))
    return spread, known.judge_known(kind, grid, subject.probe.name), query.judge_query(kind, grid)


def _grid(subject: Subject, kind: Kind) -> Grid:
    documents = subject.documents(kind)
    return Grid.of([subject.asker.alone(description, documents) for description in subject.queries])


def _better_probe(subject: Subject, other: Probe) -> tuple[Probe, Grid]:
    """The set of images about which the scorer is farther from chance, with its scores."""
    first, second = subject.grids["images"], _grid(replace(subject, probe=other), "images")
    return (other, second) if abs(second.correct - 0.5) > abs(first.correct - 0.5) else (subject.probe, first)


def _repeats(subject: Subject) -> Sequence[Finding]:
    return [repeats.check_repeats(subject)]


def _lists(subject: Subject) -> Sequence[Finding]:
    subject.alone = {kind: score_alone(subject, kind) for kind in subject.kinds()}
    lists = [listed for kind, alone in subject.alone.items() for listed in score_lists(subject, kind, alone)]
    return complete.judge_complete(lists), batch.check_batch(subject, lists)


def _order(subject: Subject) -> Sequence[Finding]:
    return [order.check_order(subject)]


def _sight(subject: Subject) -> Sequence[Finding]:
    if "images" in subject.grids:
        return [sight.check_sight(subject)]
    return [sight.check_refused(subject)]


def _instruction(subject: Subject) -> Sequence[Finding]:
    return [instruction.check_instruction(subject)]


def _truncation(subject: Subject) -> Sequence[Finding]:
    taken = "texts" in subject.grids
    return [truncation.check_truncation(subject) if taken else _refused(subject, truncation.NAME, "texts")]


def _reference(subject: Subject) -> Sequence[Finding]:
    taken = "images" in subject.grids
    return [reference.check_reference(subject) if taken else _refused(subject, reference.NAME, "images")]


def _refused(subject: Subject, name: str, kind: Kind) -> Finding:
    return Finding(name, "unknown", subject.refusals[kind], f"{kind} are refused; see the check 'server'")


def _broken(name: str, error: Exception) -> Finding:
    change = "follow the message, and look into the server's log"
    return Finding(name, "fail", str(error), "the scorer stopped answering, so the check could not finish", change)


CHECKS: tuple[tuple[tuple[str, ...], Check], ...] = (
    (tuple(each.name_of(kind) for kind in KINDS for each in (values, known, query)), _contents),
    ((repeats.NAME,), _repeats),
    ((complete.NAME, batch.NAME), _lists),
    ((order.NAME,), _order),
    ((sight.NAME,), _sight),
    ((instruction.NAME,), _instruction),
    ((truncation.NAME,), _truncation),
    ((reference.NAME,), _reference),
)
"""The names of findings, and what makes them. In this order: later checks build on what earlier ones left in the
`Subject`."""
