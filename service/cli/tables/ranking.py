"""A ranking for people, for programs and for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldscope.agent.trace_view import verdicts_by_image, weakest
from fieldscope.agent.usage import Usage
from fieldscope.core.errors import ImageError
from fieldscope.service.cli.console import plain

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from fieldscope.agent.types import RankedCandidate, RerankResult, Verdict
    from fieldscope.core.types import ImageSource

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
COLUMNS = (
    *("rank", "image", "path", "p_match", "p_yes", "answer", "prior", "prior_rank", "score", "query"),
    *("weakest", "p_expected", "unknown", "rank_low", "rank_high", "reason"),
)


@dataclass(frozen=True)
class Ranking:
    """A result with what a reader wants beside it: where its images are, which others were skipped and why, and what
    the models were."""

    result: RerankResult
    images: ImageSource
    skipped: dict[str, str] = field(default_factory=dict)
    models: dict[str, str | None] = field(default_factory=dict)

    def payload(self, top: int | None = None) -> dict[str, Any]:
        """The `top` images (all, where None) and all the rest as one JSON-able object."""
        result = self.result
        usage = Usage.of(result.asked)
        return {
            "query": result.query_text,
            "strategy": result.strategy,
            "models": self.models,
            "predicates": [predicate.model_dump(mode="json") for predicate in result.predicates],
            "ranking": [self._entry(ranked) for ranked in result.ranking[:top]],
            "skipped": [{"image": image, "reason": reason} for image, reason in self.skipped.items()],
            "ended": result.ended,
            "flags": list(result.flags),
            "cost": {
                "calls": usage.calls,
                "prompt_tokens": usage.prompt_tokens,
                "completion_tokens": usage.completion_tokens,
                "cache_hits": usage.cached,
                "seconds": round(result.trace[-1].at, 3),
            },
        }

    def table(self, top: int | None = None) -> Table:
        """The `top` images, best first."""
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption_justify="left")
        asks = bool(self.result.predicates or self.result.comparisons)
        several = len(self.result.predicates) > 1
        for name in ("rank", "moved", "P(match)", "prior") if asks else ("rank", "prior"):
            table.add_column(name, justify="right")
        table.add_column("image", overflow="fold")
        if several:
            table.add_column("unknown", justify="right")
            table.add_column("weakest", overflow="fold")
        elif self.result.predicates:
            table.add_column("answer", overflow="fold")
        for ranked in self.result.ranking[:top]:
            cells = [str(ranked.rank), f"{ranked.prior:.3f}"]
            if asks:
                p_match = "-" if ranked.p_match is None else f"{ranked.p_match:.3f}"
                cells[1:1] = [moved_by(ranked.prior_rank - ranked.rank), p_match]
            verdicts = self._verdicts.get(ranked.image_id, {})
            told = [self._weakest(verdicts)] if self.result.predicates else []
            if several:
                told.insert(0, plain(str(_unknown(verdicts)), "yellow" if _unknown(verdicts) else "dim"))
            table.add_row(*cells, plain(ranked.image_id), *told)
        return table

    def csv(self) -> str:
        """All images as CSV, in `COLUMNS`. Texts that a spreadsheet would take for formulas begin with an apostrophe;
        numbers stay numbers."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        for ranked in self.result.ranking:
            entry = self._entry(ranked) | {"query": self.result.query_text}
            writer.writerow([_cell(entry[column]) for column in COLUMNS])
        return text.getvalue()

    def path(self, image_id: str) -> Path | None:
        """The image's own file; None for one that lies inside of another, or is gone."""
        from fieldscope.retrieval.collection import FilesCollection, FolderCollection

        if not isinstance(self.images, FolderCollection | FilesCollection):
            return None
        try:
            return self.images.path(image_id)
        except ImageError:
            return None

    def _entry(self, ranked: RankedCandidate) -> dict[str, Any]:
        """An image for programs. `p_yes`, `p_expected` and `answer` are those of the weakest question: the only one, or
        that of the lowest P(expected)."""
        verdicts = self._verdicts.get(ranked.image_id, {})
        against = self._against(verdicts)
        path = self.path(ranked.image_id)
        return {
            "rank": ranked.rank,
            "image": ranked.image_id,
            "path": path and str(path),
            "score": ranked.score,
            "p_match": ranked.p_match,
            "p_yes": against and against.p_yes,
            "answer": answer_of(against),
            "prior": ranked.prior,
            "prior_rank": ranked.prior_rank,
            "rank_low": ranked.rank_low,
            "rank_high": ranked.rank_high,
            "weakest": against and self._question(against),
            "p_expected": against and against.p_expected,
            "unknown": _unknown(verdicts),
            "verdicts": {name: _verdict(verdict) for name, verdict in verdicts.items()},
            "reason": next((r.text for r in self.result.reasons if r.image_id == ranked.image_id and r.text), None),
        }

    @cached_property
    def _verdicts(self) -> dict[str, dict[str, Verdict]]:
        return verdicts_by_image(self.result)

    def _weakest(self, verdicts: Mapping[str, Verdict]) -> Text:
        """What counts most against an image; of a single question only the answer."""
        against = self._against(verdicts)
        if against is None or against.p_expected is None:
            return plain(answer_of(against), "yellow")
        if len(self.result.predicates) == 1:
            return plain(answer_of(against))
        return plain(f"{against.p_expected:.2f} {self._question(against)}")

    def _against(self, verdicts: Mapping[str, Verdict]) -> Verdict | None:
        """The weakest predicate; the whole query, which says less, where no predicate has an answer."""
        parts = {predicate.id for predicate in self.result.predicates if predicate.kind != "query"}
        answered = [v for name, v in verdicts.items() if name in parts and v.state == "answered"]
        return weakest(answered or verdicts.values())

    def _question(self, verdict: Verdict) -> str:
        return next((p.question for p in self.result.predicates if p.id == verdict.predicate), verdict.predicate)


def moved_by(ranks: int) -> str:
    """How many ranks something rose, or fell where negative."""
    return f"↑{ranks}" if ranks > 0 else f"↓{-ranks}" if ranks < 0 else "="


def _unknown(verdicts: Mapping[str, Verdict]) -> int:
    return sum(verdict.state == "unknown" for verdict in verdicts.values())


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return verdict.model_dump(mode="json", include={"state", "p_yes", "p_expected", "answer", "error", "request_key"})


def answer_of(verdict: Verdict | None) -> str:
    """The model's words, or why there are none."""
    if verdict is None or verdict.state == "not_asked":
        return "not asked"
    return f"unknown: {verdict.error}" if verdict.state == "unknown" else verdict.answer.strip()


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
