"""A ranking as a Python program and a notebook want it: images with ranks, probabilities and reasons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, overload

from fieldscope.agent.trace_view import verdicts_by_image
from fieldscope.agent.trace_why import why
from fieldscope.agent.types import RerankResult
from fieldscope.core.errors import ImageError
from fieldscope.service.workflows.notebook import cut, table, thumbnail

if TYPE_CHECKING:
    from PIL import Image as PILImage

    from fieldscope.core.types import ImageSource


@dataclass(frozen=True, eq=False)
class RankedImage:
    """An image at its rank (1 is best).

    `score` is what the ranking is sorted by, `p_match` the probability of a match (None where the strategy claims
    none). `prior` is the first stage's score and `prior_rank` the rank before. `rank_low` to `rank_high` holds the rank
    with a probability of 90 %, where it was estimated. `answers` maps each question to the probability of the answer
    that a match must give, None where there is no answer. `why` says what moved the image, by questions and their
    probabilities; `reason` is the LMM's own words where it was asked for them, and else `why`.
    """

    image_id: str
    rank: int
    score: float
    prior: float
    prior_rank: int
    p_match: float | None
    rank_low: int | None
    rank_high: int | None
    reason: str
    why: str
    answers: Mapping[str, float | None]
    path: Path | None
    _images: ImageSource = field(repr=False)

    def load(self) -> PILImage.Image:
        """The image as RGB, upright; copy it before drawing on it. Raises `ImageError` where it can't be read."""
        return self._images.load(self.image_id)

    def __repr__(self) -> str:
        p_match = "" if self.p_match is None else f", p_match={self.p_match:.3f}"
        return f"RankedImage({self.rank}, {self.image_id!r}{p_match}, reason={cut(self.reason, 80)!r})"

    def _repr_html_(self) -> str:
        return table(_COLUMNS, [_row(self)], 1)


@dataclass(frozen=True, eq=False)
class Ranking(Sequence[RankedImage]):
    """Images from best to worst; a sequence, and a table with thumbnails in a notebook.

    `result` has everything that led to the ranking: predicates, verdicts, comparisons, reasons, calls and events.
    `skipped` says why images that were given are not in it (image -> reason), `flags` what makes it worth less.
    """

    result: RerankResult
    images: ImageSource = field(repr=False)
    skipped: Mapping[str, str] = field(default_factory=dict)

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

    def __len__(self) -> int:
        return len(self.result.ranking)

    @overload
    def __getitem__(self, place: int) -> RankedImage: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[RankedImage, ...]: ...

    def __getitem__(self, place: int | slice) -> RankedImage | tuple[RankedImage, ...]:
        if isinstance(place, slice):
            return tuple(self._image(p) for p in range(*place.indices(len(self))))
        return self._image(range(len(self))[place])

    def __iter__(self) -> Iterator[RankedImage]:
        return (self._image(place) for place in range(len(self)))

    def __repr__(self) -> str:
        best = f", best={self.result.ranking[0].image_id!r}" if len(self) else ""
        return f"Ranking({cut(self.query, 60)!r}, {len(self)} images{best}, strategy={self.result.strategy!r})"

    def _repr_html_(self) -> str:
        notes = [*self.flags, *([f"A budget ended the work in stage {self.ended!r}."] if self.ended else [])]
        if self.skipped:
            notes.append(f"{len(self.skipped)} images could not be read.")
        caption = f"{self.query} ({self.result.strategy}, {len(self):,} images)"
        rows = (_row(image) for image in self)
        return table(_COLUMNS, rows, len(self), caption) + "".join(table((), [(note,)], 1) for note in notes)

    @cached_property
    def _reasons(self) -> dict[str, str]:
        return {reason.image_id: reason.text for reason in self.result.reasons if reason.text}

    @cached_property
    def _verdicts(self) -> dict[str, dict[str, float | None]]:
        questions = {predicate.id: predicate.question for predicate in self.result.predicates}
        return {
            image_id: {questions[name]: verdict.p_expected for name, verdict in verdicts.items()}
            for image_id, verdicts in verdicts_by_image(self.result).items()
        }

    def _image(self, place: int) -> RankedImage:
        ranked = self.result.ranking[place]
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
            answers=self._verdicts.get(ranked.image_id, {}),
            path=_path(self.images, ranked.image_id),
            _images=self.images,
        )


_COLUMNS = ("", "rank", "P(match)", "prior rank", "image", "reason")


def _row(image: RankedImage) -> tuple[str, ...]:
    p_match = "–" if image.p_match is None else f"{image.p_match:.3f}"
    picture = thumbnail(image._images, image.image_id)
    return (picture, str(image.rank), p_match, str(image.prior_rank), image.image_id, image.reason)


def _path(images: ImageSource, image_id: str) -> Path | None:
    """The image's own file; None for one that has none."""
    find = getattr(images, "path", None)
    try:
        return find(image_id) if find is not None else None
    except ImageError:
        return None
