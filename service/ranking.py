"""A ranking for people, for programs and for spreadsheets."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import ImageError
from service.console import plain

if TYPE_CHECKING:
    from rich.table import Table

    from agent.types import RankedCandidate, RerankResult, Verdict
    from core.types import ImageSource

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
COLUMNS = ("rank", "image", "path", "p_match", "p_yes", "answer", "prior", "prior_rank", "score", "query")


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
        asked = [verdict for verdict in result.verdicts if verdict.state != "not_asked"]
        return {
            "query": result.query_text,
            "strategy": result.strategy,
            "models": self.models,
            "ranking": [self._entry(ranked) for ranked in result.ranking[:top]],
            "skipped": [{"image": image, "reason": reason} for image, reason in self.skipped.items()],
            "flags": list(result.flags),
            "cost": {
                "calls": len(asked),
                "prompt_tokens": sum(verdict.prompt_tokens for verdict in asked),
                "completion_tokens": sum(verdict.completion_tokens for verdict in asked),
                "cache_hits": sum(verdict.cached for verdict in asked),
                "seconds": round(result.trace[-1].at, 3),
            },
        }

    def table(self, top: int | None = None) -> Table:
        """The `top` images, best first."""
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption_justify="left")
        asks = bool(self.result.predicates)
        for name in ("rank", "moved", "P(match)", "prior") if asks else ("rank", "prior"):
            table.add_column(name, justify="right")
        table.add_column("image", overflow="fold")
        if asks:
            table.add_column("answer", overflow="fold")
        for ranked in self.result.ranking[:top]:
            verdict = self._verdict(ranked)
            image = plain(ranked.image_id)
            if asks:
                p_match = "-" if ranked.p_match is None else f"{ranked.p_match:.3f}"
                answer = plain(_answer(verdict), "" if verdict and verdict.state == "answered" else "yellow")
                table.add_row(str(ranked.rank), _moved(ranked), p_match, f"{ranked.prior:.3f}", image, answer)
            else:
                table.add_row(str(ranked.rank), f"{ranked.prior:.3f}", image)
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
        from retrieval.collection import FilesCollection, FolderCollection

        if not isinstance(self.images, FolderCollection | FilesCollection):
            return None
        try:
            return self.images.path(image_id)
        except ImageError:
            return None

    def _entry(self, ranked: RankedCandidate) -> dict[str, Any]:
        verdict = self._verdict(ranked)
        path = self.path(ranked.image_id)
        return {
            "rank": ranked.rank,
            "image": ranked.image_id,
            "path": path and str(path),
            "score": ranked.score,
            "p_match": ranked.p_match,
            "p_yes": verdict and verdict.p_yes,
            "answer": _answer(verdict),
            "prior": ranked.prior,
            "prior_rank": ranked.prior_rank,
        }

    def _verdict(self, ranked: RankedCandidate) -> Verdict | None:
        return next((v for v in self.result.verdicts if v.image_id == ranked.image_id), None)


def _answer(verdict: Verdict | None) -> str:
    if verdict is None or verdict.state == "not_asked":
        return "not asked"
    return f"unknown: {verdict.error}" if verdict.state == "unknown" else verdict.answer.strip()


def _moved(ranked: RankedCandidate) -> str:
    up = ranked.prior_rank - ranked.rank
    return f"↑{up}" if up > 0 else f"↓{-up}" if up < 0 else "="


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
