"""What replies say where no image seems to match."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, Self

from pydantic import BaseModel, Field

from fieldscope.agent.trace_nothing import NearImage, nothing
from fieldscope.service.server.api.calls import Document, ImageDocument

if TYPE_CHECKING:
    from fieldscope.agent.trace_nothing import Nothing
    from fieldscope.agent.types import RerankResult


class FailingPart(BaseModel):
    """A part of the query that holds of none of the images that were `asked` about it."""

    predicate: str
    question: str
    words: str = Field(description="The query's own words.")
    expected: Literal["yes", "no"] = Field(description="The answer that a match must give.")
    asked: int


class _Near(BaseModel):
    holds: list[str] = Field(description="The questions with the expected answer.")
    fails: list[str] = Field(description="The questions with the other answer.")
    open: list[str] = Field(description="The questions without an answer.")


class NearestImage(_Near):
    """An image, with the parts of the query that hold of it and that do not."""

    image: str = Field(description="Its id in the collection.")
    url: str = Field(description="Every endpoint accepts it as an image.", examples=["fieldscope://fieldnotes/12"])
    rank: int
    p_match: float | None

    @classmethod
    def of(cls, near: NearImage, prefix: str) -> Self:
        """`prefix` is what an image's address has before its id in the collection."""
        known = near.model_dump(exclude={"image"})
        return cls(**known, image=near.image.removeprefix(prefix), url=near.image)


class NearestDocument(_Near):
    """A document, with the parts of the query that hold of it and that do not."""

    index: int = Field(ge=0, description="The document's place in the request, from 0.")

    @classmethod
    def of(cls, near: NearImage, documents: Sequence[Document], place: Callable[[int], int]) -> Self:
        """The first of `documents` that is this image; `place` says where it is in the request."""
        images = [each.image_id if isinstance(each, ImageDocument) else None for each in documents]
        return cls(**near.model_dump(include={"holds", "fails", "open"}), index=place(images.index(near.image)))


class _Nothing(BaseModel):
    sentences: list[str] = Field(description="The decision in words, first of all that nothing seems to match.")
    statistic: float = Field(description="The best P(match) of the images that were judged.")
    threshold: float = Field(description="Nothing is said to match where the statistic is below it.")
    judged: int = Field(description="How many images the decision rests on.")
    failing: list[FailingPart] = Field(description="The parts of the query that hold of no image.")


class NothingFound(_Nothing):
    """No image seems to match. The nearest are those of which most parts of the query hold, then the best by prior;
    there are none where the strategy asks about the whole query only."""

    nearest: list[NearestImage]

    @classmethod
    def of(cls, result: RerankResult, prefix: str) -> Self | None:
        """None where the result does not have the decision."""
        if (said := nothing(result)) is None:
            return None
        return cls(**_numbers(said), nearest=[NearestImage.of(near, prefix) for near in said.nearest])


class NothingRelevant(_Nothing):
    """No image among the documents seems to match. The nearest are those of which most parts of the query hold, then
    the best by prior; there are none where the strategy asks about the whole query only."""

    nearest: list[NearestDocument]

    @classmethod
    def of(cls, result: RerankResult, documents: Sequence[Document], place: Callable[[int], int]) -> Self | None:
        """None where the result does not have the decision."""
        if (said := nothing(result)) is None:
            return None
        return cls(**_numbers(said), nearest=[NearestDocument.of(near, documents, place) for near in said.nearest])


def _numbers(said: Nothing) -> dict[str, object]:
    return said.model_dump(exclude={"nearest"})
