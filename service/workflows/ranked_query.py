"""The ranking of a query, for programs and for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldscope.agent.trace_view import verdicts_by_image, weakest
from fieldscope.core.errors import ImageError
from fieldscope.core.spreadsheet import cell
from fieldscope.service.workflows.skipped import skipped_data

if TYPE_CHECKING:
    from fieldscope.agent.types import RankedCandidate, RerankResult, Verdict
    from fieldscope.core.types import ImageSource

COLUMNS = (
    *("rank", "image", "path", "p_match", "p_yes", "answer", "prior", "prior_rank", "score", "query"),
    *("weakest", "p_expected", "unknown", "rank_low", "rank_high", "reason"),
)


@dataclass(frozen=True)
class RankedQuery:
    """The result of a query, where its images are, which other images were skipped and why, and which models ranked.

    `models` has the names of the CLIP and the LMM, None where there was none.
    """

    result: RerankResult
    images: ImageSource
    skipped: dict[str, str] = field(default_factory=dict)
    models: dict[str, str | None] = field(default_factory=dict)

    def payload(self, top: int | None = None) -> dict[str, Any]:
        """The `top` images (all, where None) and all the rest as one JSON-able object."""
        result = self.result
        asked = result.asked
        return {
            "query": result.query_text,
            "strategy": result.strategy,
            "models": self.models,
            "predicates": [predicate.model_dump(mode="json") for predicate in result.predicates],
            "ranking": [self.entry(ranked) for ranked in result.ranking[:top]],
            "skipped": skipped_data(self.skipped),
            "ended": result.ended,
            "flags": list(result.flags),
            "cost": {
                "calls": len(asked),
                "prompt_tokens": sum(question.prompt_tokens for question in asked),
                "completion_tokens": sum(question.completion_tokens for question in asked),
                "cache_hits": sum(question.cached for question in asked),
                "seconds": round(result.trace[-1].at, 3),
            },
        }

    def csv(self) -> str:
        """All images as CSV, in `COLUMNS`. Texts that a spreadsheet would take for formulas begin with an apostrophe;
        numbers stay numbers."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        for ranked in self.result.ranking:
            entry = self.entry(ranked) | {"query": self.result.query_text}
            writer.writerow([cell(entry[column]) for column in COLUMNS])
        return text.getvalue()

    def path(self, image_id: str) -> Path | None:
        """The image's own file; None for an image that lies inside another file, or is gone."""
        from fieldscope.retrieval.collection import FilesCollection, FolderCollection

        if not isinstance(self.images, FolderCollection | FilesCollection):
            return None
        try:
            return self.images.path(image_id)
        except ImageError:
            return None

    def entry(self, ranked: RankedCandidate) -> dict[str, Any]:
        """An image for programs. `p_yes`, `p_expected` and `answer` are those of its weakest predicate."""
        verdicts = self.verdicts(ranked.image_id)
        verdict = self.weakest(ranked.image_id)
        path = self.path(ranked.image_id)
        return {
            "rank": ranked.rank,
            "image": ranked.image_id,
            "path": path and str(path),
            "score": ranked.score,
            "p_match": ranked.p_match,
            "p_yes": verdict and verdict.p_yes,
            "answer": answer_of(verdict),
            "prior": ranked.prior,
            "prior_rank": ranked.prior_rank,
            "rank_low": ranked.rank_low,
            "rank_high": ranked.rank_high,
            "weakest": verdict and self.question(verdict),
            "p_expected": verdict and verdict.p_expected,
            "unknown": self.unknown(ranked.image_id),
            "verdicts": {predicate: _fields(verdict) for predicate, verdict in verdicts.items()},
            "reason": next((r.text for r in self.result.reasons if r.image_id == ranked.image_id and r.text), None),
        }

    def verdicts(self, image_id: str) -> Mapping[str, Verdict]:
        """What the model said of the image, by predicate."""
        return self._verdicts.get(image_id, {})

    def unknown(self, image_id: str) -> int:
        """How many of the image's verdicts are unknown."""
        return sum(verdict.state == "unknown" for verdict in self.verdicts(image_id).values())

    def weakest(self, image_id: str) -> Verdict | None:
        """The verdict with the lowest P(expected); the one on the whole query, which says less, only where no other
        predicate has an answer."""
        verdicts = self.verdicts(image_id)
        parts = {predicate.id for predicate in self.result.predicates if predicate.kind != "query"}
        answered = [v for name, v in verdicts.items() if name in parts and v.state == "answered"]
        return weakest(answered or verdicts.values())

    def question(self, verdict: Verdict) -> str:
        """The question that a verdict answers."""
        return next((p.question for p in self.result.predicates if p.id == verdict.predicate), verdict.predicate)

    @cached_property
    def _verdicts(self) -> dict[str, dict[str, Verdict]]:
        return verdicts_by_image(self.result)


def answer_of(verdict: Verdict | None) -> str:
    """The model's words, or why there are none."""
    if verdict is None or verdict.state == "not_asked":
        return "not asked"
    return f"unknown: {verdict.error}" if verdict.state == "unknown" else verdict.answer.strip()


def _fields(verdict: Verdict) -> dict[str, Any]:
    return verdict.model_dump(mode="json", include={"state", "p_yes", "p_expected", "answer", "error", "request_key"})
