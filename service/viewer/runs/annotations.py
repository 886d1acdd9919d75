"""Marks on a run's verdicts and images: what can be marked, saving a mark, and all marks as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import cast

from fieldscope.agent.trace_view import verdicts_by_image
from fieldscope.agent.types import Predicate, RerankResult, Verdict
from fieldscope.core.errors import ConfigError
from fieldscope.core.spreadsheet import cell
from fieldscope.eval.runs.annotations import LONGEST_NOTE, Annotation, Mark, Said, Target, annotate, read_annotations
from fieldscope.service.viewer.page import Page
from fieldscope.service.viewer.runs.run import Run

TAKE_BACK = "take back"

COLUMNS = (
    "query_id", "query", "image_id", "predicate", "question", "expected", "said", "mark", "note", "at",
)  # fmt: skip


@dataclass(frozen=True)
class Markable:
    """A verdict, or the image as a whole if `predicate` is None, with its mark."""

    predicate: Predicate | None
    verdict: Verdict | None
    said: Said | None
    mark: Annotation | None

    @property
    def name(self) -> str:
        """Its name in a form."""
        return self.predicate.id if self.predicate else ""


@dataclass(frozen=True)
class Marked:
    """A mark in a list. Values that the run's results no longer have are None."""

    annotation: Annotation
    query_text: str | None
    predicate: Predicate | None
    rank: int | None


def markable(run: Run, result: RerankResult, image_id: str) -> list[Markable]:
    """What can be marked on an image's page: the image, and every answer about it."""
    known = {each.target: each for each in read_annotations(run.folder)}
    verdicts = verdicts_by_image(result).get(image_id, {})
    rows = [Markable(None, None, None, known.get(Target(result.query_id, image_id, None)))]
    for predicate in result.predicates:
        verdict = verdicts.get(predicate.id)
        said = _said(verdict)
        if said is not None:
            rows.append(Markable(predicate, verdict, said, known.get(Target(result.query_id, image_id, predicate.id))))
    return rows


def with_marks(page: Page, run: Run, query_id: str, image_id: str) -> Page:
    """An image's page with its marks, for `annotate.html`."""
    rows = markable(run, run.result(query_id), image_id)
    context = {**page.context, "annotate": {"rows": rows, "longest": LONGEST_NOTE, "take_back": TAKE_BACK}}
    scripts, styles = (*page.scripts, "annotate.js"), (*page.styles, "annotate.css")
    return replace(page, context=context, scripts=scripts, styles=styles)


def take(run: Run, query_id: str, image_id: str, form: Mapping[str, str]) -> None:
    """Save a mark. The form has the `predicate` (empty for the image), what the verdict `said` on the page, the `mark`
    and a `note`. Raises `ConfigError` for a form that does not fit the page."""
    name, mark, note = form.get("predicate", ""), form.get("mark", ""), form.get("note", "").strip()
    row = next((row for row in markable(run, run.result(query_id), image_id) if row.name == name), None)
    if row is None:
        raise ConfigError("this page has no such answer. Go back and reload it.")
    if (row.said or "") != form.get("said", ""):
        raise ConfigError("the run was repeated and this answer has changed. Go back and reload the page.")
    if mark not in ("right", "wrong", TAKE_BACK):
        raise ConfigError("a mark is either right or wrong. Go back and choose one.")
    if len(note) > LONGEST_NOTE:
        raise ConfigError(f"a note has at most {LONGEST_NOTE:,} characters. Go back and shorten it.")
    annotate(
        run.folder,
        Annotation(
            query_id=query_id,
            image_id=image_id,
            predicate=row.predicate and row.predicate.id,
            said=row.said,
            mark=None if mark == TAKE_BACK else cast(Mark, mark),
            note="" if mark == TAKE_BACK else note,
        ),
    )


def marked(run: Run) -> Iterator[Marked]:
    """All marks of a run, latest first."""
    for annotation in reversed(read_annotations(run.folder)):
        digest = run.digests.get(annotation.query_id)
        result = _result(run, annotation.query_id)
        predicates = {predicate.id: predicate for predicate in result.predicates} if result else {}
        ranks = {ranked.image_id: ranked.rank for ranked in result.ranking} if result else {}
        yield Marked(
            annotation,
            digest.text if digest else None,
            predicates.get(annotation.predicate or ""),
            ranks.get(annotation.image_id),
        )


def as_csv(run: Run) -> str:
    """All marks of a run as CSV, latest first. A text that a spreadsheet would run as a formula starts with a `'`."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(COLUMNS)
    for each in marked(run):
        told, predicate = each.annotation, each.predicate
        question, expected = (predicate.question, predicate.expected) if predicate else (None, None)
        writer.writerow(
            cell(value)
            for value in (
                told.query_id, each.query_text, told.image_id, told.predicate, question, expected, told.said, told.mark,
                told.note, told.at,
            )
        )  # fmt: skip
    return stream.getvalue()


def _said(verdict: Verdict | None) -> Said | None:
    if verdict is None or verdict.p_expected is None:
        return None
    return "holds" if verdict.p_expected > 0.5 else "fails"


def _result(run: Run, query_id: str) -> RerankResult | None:
    try:
        return run.result(query_id)
    except (KeyError, ConfigError):
        return None
