"""The ranking of a query: a sequence of images for Python, a table for notebooks, JSON and CSV for other programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from fieldscope.agent.trace_nothing import Nothing, nothing
from fieldscope.agent.trace_view import RELATIVE, verdicts_by_image, weakest
from fieldscope.agent.trace_why import why
from fieldscope.core.errors import ImageError
from fieldscope.core.spreadsheet import cell
from fieldscope.service.metadata.records import Records
from fieldscope.service.workflows.notebook import cut, table
from fieldscope.service.workflows.ranked_image import IMAGE_COLUMNS, RankedImage, image_row
from fieldscope.service.workflows.skipped import skipped_data

if TYPE_CHECKING:
    from fieldscope.agent.calibration import Calibration
    from fieldscope.agent.roles import ModelIdentity
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.agent.types import RankedCandidate, RerankResult, Verdict
    from fieldscope.core.types import ImageSource
    from fieldscope.service.workflows.promise import KeptImages, Promise

COLUMNS = (
    *("rank", "image", "path", "p_match", "p_yes", "answer", "prior", "prior_rank", "score", "query"),
    *("weakest", "p_expected", "unknown", "rank_low", "rank_high", "reason", "nothing_matches", "why"),
)


@dataclass(frozen=True)
class MadeWith:
    """A strategy, the identity of the LMM (or that of each role), the fingerprint of the first stage's encoder, and the
    calibration; None where there was none."""

    strategy: Strategy
    lmm: ModelIdentity | None = None
    encoder: str | None = None
    calibration: Calibration | None = None


@dataclass(frozen=True, eq=False)
class Ranking(Sequence[RankedImage]):
    """Images from best to worst; a sequence, and a table with thumbnails in a notebook.

    `result` has everything that led to the ranking: predicates, verdicts, comparisons, reasons, calls and events.
    `skipped` says why images that were given are not in it (image -> reason), `flags` what makes it worth less.
    `models` has the names of the CLIP and the LMM that ranked, None where there was none. `promise` is the precision
    that was asked for, None where none was. `made_with` is what decided the ranking besides query and images.
    `records` has the images' metadata, which no model saw.
    """

    result: RerankResult
    images: ImageSource = field(repr=False)
    skipped: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, str | None] = field(default_factory=dict)
    promise: Promise | None = field(default=None, repr=False)
    made_with: MadeWith | None = field(default=None, repr=False)
    records: Records = field(default_factory=Records, repr=False)

    @property
    def query(self) -> str:
        """What was asked for."""
        return self.result.query_text

    @property
    def flags(self) -> tuple[str, ...]:
        """Warnings that hold for this ranking, such as images that the bundled models do not know."""
        return self.result.flags

    @property
    def ended(self) -> str | None:
        """The stage in which a budget ended the work; None where the work was finished."""
        return self.result.ended

    @cached_property
    def nothing(self) -> Nothing | None:
        """The decision that no image seems to match, with the nearest images; None where one does, and where that was
        not decided."""
        return nothing(self.result)

    @property
    def relative(self) -> bool:
        """Whether P(match) can't be compared with that of another list of images."""
        return self.result.relative

    @cached_property
    def kept(self) -> KeptImages | None:
        """The images that reach the threshold of the promised precision, and the promise; None where none was asked
        for."""
        return self.promise.keep(self.result) if self.promise is not None else None

    def __len__(self) -> int:
        return len(self.result.ranking)

    @overload
    def __getitem__(self, place: int) -> RankedImage: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[RankedImage, ...]: ...

    def __getitem__(self, place: int | slice) -> RankedImage | tuple[RankedImage, ...]:
        if isinstance(place, slice):
            return tuple(map(self._image, self.result.ranking[place]))
        return self._image(self.result.ranking[place])

    def __iter__(self) -> Iterator[RankedImage]:
        return map(self._image, self.result.ranking)

    def __repr__(self) -> str:
        best = f", best={self.result.ranking[0].image_id!r}" if len(self) else ""
        best += ", no image seems to match" if self.nothing else ""
        return f"Ranking({cut(self.query, 60)!r}, {len(self)} images{best}, strategy={self.result.strategy!r})"

    def _repr_html_(self) -> str:
        ended = [f"A budget ended the work in stage {self.ended!r}."] if self.ended else []
        relative = [RELATIVE] if self.result.relative else []
        notes = [*(self.nothing.sentences if self.nothing else ()), *relative, *self.flags, *ended]
        if self.kept is not None:
            notes += [self.kept.summary, self.kept.promise, *self.kept.caveats]
        if self.skipped:
            notes.append(f"{len(self.skipped)} images could not be read.")
        caption = f"{self.query} ({self.result.strategy}, {len(self):,} images)"
        rows = map(image_row, self)
        return table(IMAGE_COLUMNS, rows, len(self), caption) + "".join(table((), [(note,)], 1) for note in notes)

    def payload(self, top: int | None = None) -> dict[str, Any]:
        """The `top` images (all, where None) and all the rest as one JSON-able object."""
        result = self.result
        asked = result.asked
        return {
            "query": result.query_text,
            "strategy": result.strategy,
            "models": dict(self.models),
            "predicates": [predicate.model_dump(mode="json") for predicate in result.predicates],
            "ranking": [self._entry(ranked) for ranked in result.ranking[:top]],
            "skipped": skipped_data(self.skipped),
            "ended": result.ended,
            "nothing": self.nothing and self.nothing.model_dump(mode="json"),
            "relative": result.relative,
            "flags": list(result.flags),
            **({} if self.kept is None else {"cutoff": self.kept.data()}),
            "cost": {
                "calls": len(asked),
                "prompt_tokens": sum(question.prompt_tokens for question in asked),
                "completion_tokens": sum(question.completion_tokens for question in asked),
                "cache_hits": sum(question.cached for question in asked),
                "seconds": round(result.trace[-1].at, 3),
            },
        }

    def csv(self, ids: Collection[str] | None = None, marks: Mapping[str, str] | None = None) -> str:
        """The images (all, where None) as CSV, in `COLUMNS`, `kept` with a promise, people's `mark` where there are
        `marks` by image id, and every column of the metadata. `nothing_matches`
        is about the query and alike in all rows. Texts that a spreadsheet would take for formulas begin with an
        apostrophe; numbers stay numbers."""
        text = io.StringIO()
        writer = csv.writer(text)
        columns = (*COLUMNS, *(("kept",) if self.kept is not None else ()), *(("mark",) if marks else ()))
        own = self.records.columns
        writer.writerow([*columns, *(cell(metadata_column(column)) for column in own)])
        for ranked in self.result.ranking:
            if ids is not None and ranked.image_id not in ids:
                continue
            of_query = {"query": self.result.query_text, "nothing_matches": self.nothing is not None}
            of_query |= {"why": why(self.result, ranked.image_id).sentence, "mark": (marks or {}).get(ranked.image_id)}
            entry = self._entry(ranked) | of_query
            cells = self.records.of(ranked.image_id)
            writer.writerow([*(cell(entry[column]) for column in columns), *(cell(cells.get(name)) for name in own)])
        return text.getvalue()

    def path(self, image_id: str) -> Path | None:
        """The image's own file; None for an image that lies inside another file, or is gone."""
        find = getattr(self.images, "path", None)
        try:
            return find(image_id) if find is not None else None
        except ImageError:
            return None

    def alike(self, image_id: str) -> tuple[str, ...]:
        """The ranked images that show the same as this one, best first, itself among them: near duplicates and
        bursts."""
        group = self.records.group(image_id)
        return tuple(sorted((each for each in group if each in self._ranks), key=self._ranks.__getitem__))

    def firsts(self) -> Sequence[RankedCandidate]:
        """The best of each group of images that show the same, in the order of the ranking."""
        return [ranked for ranked in self.result.ranking if self.alike(ranked.image_id)[0] == ranked.image_id]

    def unknown(self, image_id: str) -> int:
        """How many of the image's verdicts are unknown."""
        return sum(verdict.state == "unknown" for verdict in self._verdicts_on(image_id).values())

    def weakest(self, image_id: str) -> Verdict | None:
        """The verdict with the lowest P(expected); the one on the whole query, which says less, only where no other
        predicate has an answer."""
        verdicts = self._verdicts_on(image_id)
        parts = {predicate.id for predicate in self.result.predicates if predicate.kind != "query"}
        answered = [v for name, v in verdicts.items() if name in parts and v.state == "answered"]
        return weakest(answered or verdicts.values())

    def question(self, verdict: Verdict) -> str:
        """The question that a verdict answers."""
        return self._questions.get(verdict.predicate, verdict.predicate)

    def _image(self, ranked: RankedCandidate) -> RankedImage:
        sentence = why(self.result, ranked.image_id).sentence
        return RankedImage(
            image_id=ranked.image_id,
            rank=ranked.rank,
            score=ranked.score,
            prior=ranked.prior,
            prior_rank=ranked.prior_rank,
            p_match=ranked.p_match,
            rank_low=ranked.rank_low,
            rank_high=ranked.rank_high,
            reason=self._reasons.get(ranked.image_id, sentence),
            why=sentence,
            answers={self.question(v): v.p_expected for v in self._verdicts_on(ranked.image_id).values()},
            path=self.path(ranked.image_id),
            kept=self._keeps(ranked.image_id),
            metadata=self.records.of(ranked.image_id),
            alike=self.alike(ranked.image_id),
            _images=self.images,
        )

    def _entry(self, ranked: RankedCandidate) -> dict[str, Any]:
        """An image for programs. `p_yes`, `p_expected` and `answer` are those of its weakest predicate."""
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
            "verdicts": {name: _fields(v) for name, v in self._verdicts_on(ranked.image_id).items()},
            "reason": self._reasons.get(ranked.image_id),
            **({} if self.kept is None else {"kept": self._keeps(ranked.image_id)}),
            **({"metadata": dict(self.records.of(ranked.image_id))} if self.records else {}),
            **({"alike": list(self.alike(ranked.image_id))} if self.records.groups else {}),
        }

    def _keeps(self, image_id: str) -> bool | None:
        return None if self.kept is None else image_id in self.kept.images

    def _verdicts_on(self, image_id: str) -> Mapping[str, Verdict]:
        """What the model said of the image, by predicate."""
        return self._verdicts.get(image_id, {})

    @cached_property
    def _ranks(self) -> dict[str, int]:
        return {ranked.image_id: ranked.rank for ranked in self.result.ranking}

    @cached_property
    def _verdicts(self) -> dict[str, dict[str, Verdict]]:
        return verdicts_by_image(self.result)

    @cached_property
    def _questions(self) -> dict[str, str]:
        return {predicate.id: predicate.question for predicate in self.result.predicates}

    @cached_property
    def _reasons(self) -> dict[str, str]:
        return {reason.image_id: reason.text for reason in self.result.reasons if reason.text}


def metadata_column(name: str) -> str:
    """The heading of a column of the metadata, which never is one of the ranking's own."""
    return f"metadata {name}" if name in (*COLUMNS, "kept", "mark") else name


def answer_of(verdict: Verdict | None) -> str:
    """The model's words, or why there are none."""
    if verdict is None or verdict.state == "not_asked":
        return "not asked"
    return f"unknown: {verdict.error}" if verdict.state == "unknown" else verdict.answer.strip()


def _fields(verdict: Verdict) -> dict[str, Any]:
    return verdict.model_dump(mode="json", include={"state", "p_yes", "p_expected", "answer", "error", "request_key"})
