"""What every adaptor gives to a ranker and gets back, whichever library it serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from fieldscope.core.errors import FieldscopeError
from fieldscope.service.server.api.calls import HowJudged
from fieldscope.service.server.api.encoded import decoded
from fieldscope.service.server.api.references import reference_in

MOST_IMAGE_BYTES = 20_000_000
"""Of an image that a text encodes; the service's default, too."""

Picture: TypeAlias = str | Path | bytes
"""An image file by its path, its bytes, or an address such as `fieldscope://COLLECTION/ID`."""


@dataclass(frozen=True)
class GivenDocument:
    """A document to rank: its picture, or its text where it has none. `fault` says why its picture can't be used."""

    picture: Picture | None
    text: str = ""
    fault: str = ""


@dataclass(frozen=True)
class RankedDocument:
    """A given document at its place: `index` among those given, from 0; a score strictly between 0 and 1 that falls
    strictly along the ranking; P(match) where the strategy claims one; why, and how it was judged."""

    index: int
    score: float
    judged: HowJudged
    p_match: float | None = None
    reason: str | None = None

    def metadata(self) -> dict[str, Any]:
        """What an adaptor adds to a document's metadata. `relevance_score` is LangChain's name for the score."""
        return {
            "relevance_score": self.score,
            "p_match": self.p_match,
            "judged": self.judged,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class FoundImage:
    """An image that a search found: its place, `image`, which every adaptor accepts as a picture again, and a small
    picture (WebP) where its file lies with the service."""

    place: RankedDocument
    image: str
    thumbnail: bytes | None = None


class Ranker(Protocol):
    """What ranks for an adaptor: models in this process, or a running service. Safe to use from several threads."""

    def rerank(self, query: str, documents: Sequence[GivenDocument], top_n: int | None) -> list[RankedDocument]:
        """The best `top_n` (None: all), best first. Documents that can't be judged are last, and a `FieldscopeWarning`
        names them. Raises `FieldscopeError`."""
        ...

    def search(self, query: str, source: str | None, top_n: int) -> list[FoundImage]:
        """The best `top_n` of a collection of the service, or of an index's folder. Raises `FieldscopeError`."""
        ...


def given_document(picture: object, text: str) -> GivenDocument:
    """A document from the `picture` in its metadata, if there is one, and its text, which may stand for an image, too:
    a data URL, base64, an address, or the name of an image file."""
    if picture is None:
        reference = reference_in(text)
        if reference is None or reference.certainty == "perhaps":
            return GivenDocument(None, text)
        picture = reference.picture
    try:
        return GivenDocument(read_picture(picture), text)
    except FieldscopeError as error:
        return GivenDocument(None, "", str(error))


def read_picture(given: object) -> Picture:
    """A picture as a library's documents have it: a path, the bytes of an image file, a data URL, base64, or an
    address, which stays a text. Raises `FieldscopeError` for an encoded image that can't be decoded, and `TypeError`
    for anything else."""
    if isinstance(given, Path | bytes):
        return given
    if not isinstance(given, str):
        raise TypeError(f"a picture is a {type(given).__name__}; give a path, bytes, a data URL, base64 or an address")
    text = given.strip()
    if text[:5].lower() == "data:":
        return decoded(text, MOST_IMAGE_BYTES)
    if "://" in text[:32]:
        return text
    if not Path(text[:4096]).suffix and reference_in(text) is not None:
        return decoded(text, MOST_IMAGE_BYTES)
    return Path(text)
