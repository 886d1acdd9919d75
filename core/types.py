"""The records that all folders share: queries, candidates with their priors, and rankings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from PIL import Image as PILImage
from pydantic import BaseModel, ConfigDict, Field

from fieldscope.core.documents import Modality, modality
from fieldscope.core.looks import Region


class Turn(BaseModel):
    """One round of a dialogue about the image that the user looks for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: str
    answer: str


class Query(BaseModel):
    """What is looked for, and nothing else: no metadata, no labels, so that no answer key can reach a prompt.

    `reference_image` is the id of an image, in the collection or beside it (composed retrieval: image plus change; a
    query that is only an image has no text); `dialogue` are the rounds so far (chat retrieval). A plain text query has
    neither. `instruction` says what a match is to an encoder or a scorer that reads one, and `wanted` which kind of
    document is looked for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    text: str
    reference_image: str | None = None
    dialogue: tuple[Turn, ...] = ()
    instruction: str | None = Field(default=None, exclude_if=lambda instruction: instruction is None)
    wanted: Modality | None = Field(default=None, exclude_if=lambda wanted: wanted is None)

    @property
    def modality(self) -> Modality:
        """What the query is made of."""
        return modality(self.reference_image is not None, bool(self.text.strip()) or bool(self.dialogue))


Prior = Literal["fused", "query"]
"""Which similarity an image found through descriptions has as its prior: to query and descriptions, or to the query."""


@dataclass(frozen=True)
class Search:
    """What a first stage looks for: the `k` images nearest to a query.

    With `descriptions` an image's score is the mean of its similarities to the query and to each of them.
    `caption_weight` (0 to 1) of each similarity is that to the image's caption, where it has one (ImageScope,
    arXiv 2503.10166, takes 0.15). Where `prior` is `query` the images are found by that score, and their priors are
    their similarities to the query alone. `instruction` tells an encoder that reads one what a match is.

    With `descriptions_only` the score is the mean over the descriptions, without the query's own words and reference
    image, where there are descriptions. With `keeps_reference` the query's reference image is found like any other.
    With `tiles` an image is as similar as the most similar of it and its tiles.
    """

    query: Query
    k: int
    descriptions: tuple[str, ...] = ()
    caption_weight: float = 0.0
    prior: Prior = "fused"
    instruction: str | None = None
    descriptions_only: bool = False
    keeps_reference: bool = False
    tiles: bool = False


class Scale(BaseModel):
    """Mean and standard deviation of scores, by which others are standardised."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mean: float
    deviation: float = Field(gt=0)

    def standing(self, score: float) -> float:
        """By how many standard deviations a score lies above the mean."""
        return (score - self.mean) / self.deviation


@dataclass(frozen=True)
class Candidate:
    """A document to rerank, which is an image in most collections: its id and its first-stage score (the prior; any
    scale, greater is better).

    `standing` is the prior against a fixed sample of the collection under the same query, in its standard deviations
    above its mean; None where the prior came without a collection.
    """

    image_id: str
    prior: float
    standing: float | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Run:
    """A ranking per query: one strategy on one split.

    `rankings` maps a query id to its (image id, score) pairs, best first, in a strict order: scores never tie.
    """

    name: str
    rankings: Mapping[str, tuple[tuple[str, float], ...]] = field(default_factory=dict)


class ImageSource(Protocol):
    """Whatever can hand out images by id. Raises `ImageError` for an image that can't be read."""

    def load(self, image_id: str) -> PILImage.Image:
        """The picture as RGB, EXIF orientation applied."""
        ...

    def pixel_hash(self, image_id: str) -> str:
        """SHA-256 (hexadecimal) of the decoded RGB pixels and the size: the image's identity in caches and traces."""
        ...


@runtime_checkable
class RegionSource(Protocol):
    """An `ImageSource` that reads parts of a picture at the resolution in which it is stored.

    That may be greater than what `load` hands out. Both methods raise `ImageError`.
    """

    def size(self, image_id: str) -> tuple[int, int]:
        """Width and height of the upright picture as it is stored, in pixels."""
        ...

    def load_regions(self, image_id: str, regions: Sequence[Region], max_pixels: int) -> list[PILImage.Image]:
        """These parts of the upright picture as RGB, each scaled down to `max_pixels` where it has more. The picture
        is decoded once for all of them."""
        ...


@runtime_checkable
class RemembersHashes(Protocol):
    """An `ImageSource` that remembers the hashes of images that it has read."""

    def known_hash(self, image_id: str) -> str | None:
        """The image's hash where it is known without reading the image, else None."""
        ...


class HashSource:
    """Base of an `ImageSource` that has all hashes in memory, so that callers need no thread to read one."""
