"""Queries and documents in every client's format, separated into words and images."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from fieldscope.core.errors import ImageError, ImageTooLargeError
from fieldscope.core.paths import without_folders
from fieldscope.service.server.api.calls import Document, ImageDocument, Inputs, TextDocument, UnjudgedDocument
from fieldscope.service.server.api.encoded import decoded
from fieldscope.service.server.api.errors import ApiError
from fieldscope.service.server.api.fetching import Fetcher
from fieldscope.service.server.api.outcome import document_id
from fieldscope.service.server.api.pictures import SCHEME, CallImages
from fieldscope.service.server.api.references import Reference, is_blank, reference_in

if TYPE_CHECKING:
    from fieldscope.service.server.api.engine import Engine

_AT_ONCE = 4
_LONGEST_ID = 512
_PARTS = 100  # of one document
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]")


class _Wire(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", frozen=True)


class ImageUrl(_Wire):
    """An image's address: a data URL, an http(s) URL of an allowed host, or `fieldscope://COLLECTION/ID`."""

    url: str = Field(examples=["fieldscope://fieldnotes/1"])


class ImagePart(_Wire):
    """An image in vLLM's format."""

    type: Literal["image_url"]
    image_url: ImageUrl


class TextPart(_Wire):
    """A text in vLLM's format."""

    type: Literal["text"]
    text: str


Part = Annotated[ImagePart | TextPart, Field(discriminator="type")]


class Content(_Wire):
    """vLLM's object with one or more parts."""

    content: list[Part] = Field(min_length=1, fail_fast=True)


class DocumentObject(_Wire):
    """A document as an object: `text`, `image` (a data URL, base64, an http(s) address of an allowed host, an id of a
    registered collection's image, or `fieldscope://COLLECTION/ID`), or vLLM's `content`."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": [name]} for name in ("text", "image", "content")]}
    )

    text: str | None = None
    image: str | None = None
    content: Annotated[list[Part], Field(min_length=1, max_length=_PARTS, fail_fast=True)] | None = None


Given = str | DocumentObject
"""A query or a document as a client sent it. A string may stand for an image: see `references`."""


@dataclass(frozen=True)
class Pieces:
    """The words and the image references of one query or document."""

    words: tuple[str, ...]
    pictures: tuple[Reference, ...]


@dataclass(frozen=True)
class InputItem:
    """The words of one query or document, and its image if there is one."""

    words: str
    picture: Reference | None


def listed(documents: Sequence[Given] | Content) -> list[Given]:
    """The documents as a list: each part of vLLM's object is a document."""
    if isinstance(documents, Content):
        return [DocumentObject(content=[part]) for part in documents.content]
    return list(documents)


def pieces(given: Given, is_id: Callable[[str], bool] = lambda name: False) -> Pieces:
    """The words and images of a query or document; `is_id` says whether a collection has an image with this id."""
    if isinstance(given, str):
        given = DocumentObject(text=given)
    pictures = [Reference(given.image.strip(), "named")] if given.image is not None else []
    words = []
    texts = [given.text] if given.text is not None else []
    for part in given.content or ():
        if isinstance(part, ImagePart):
            pictures.append(Reference(part.image_url.url.strip(), "named"))
        else:
            texts.append(part.text)
    for text in texts:
        picture = reference_in(text)
        if picture is None or (picture.certainty == "perhaps" and not is_id(picture.picture)):
            words.append(text)
        else:
            pictures.append(picture)
    if pictures:
        words = [text for text in words if text.strip()]
    return Pieces(tuple(words), tuple(pictures))


async def read_inputs(query: Given, documents: Sequence[Given], engine: Engine) -> Inputs:
    """A call's query and documents, with their images decoded, stored, and known by their ids.

    An image in a documented form that can't be used fails the call: the caller made a mistake. Other strings that stand
    for an image, and documents without any words, become `UnjudgedDocument` if there is nothing to judge. Raises
    `ApiError`, which names the document by its index.
    """
    limit = engine.limits.max_documents
    if len(documents) > limit:
        raise ApiError(
            422, "too_many_documents", f"{len(documents)} documents, over the limit of {limit} a call; send fewer"
        )
    reader = _Reader(engine)
    query_part = reader.part(query, "the query", both=True)
    parts = {document_id(index): reader.part(document, document_id(index)) for index, document in enumerate(documents)}
    labelled = {"the query": query_part} | parts
    ids = await reader.pictures({label: part.picture for label, part in labelled.items() if part.picture is not None})
    return Inputs(
        query=query_part.words,
        query_image=_usable(ids["the query"]) if query_part.picture is not None else None,
        documents=tuple(_document(label, part, ids.get(label)) for label, part in parts.items()),
        images=reader.images,
    )


def _usable(picture: str | ApiError) -> str:
    if isinstance(picture, ApiError):
        raise picture
    return picture


def _document(label: str, part: InputItem, picture: str | ApiError | None) -> Document:
    if isinstance(picture, str):
        return ImageDocument(picture)
    if picture is not None:
        return UnjudgedDocument(str(picture))
    blank = is_blank(part.words)
    return UnjudgedDocument(f"{label} has no words and no image") if blank else TextDocument(part.words)


class _Reader:
    """Reads one call's inputs."""

    def __init__(self, engine: Engine) -> None:
        self.images = CallImages(
            engine.pictures, {name: collection.images for name, collection in engine.collections.items()}
        )
        self._engine = engine
        self._limits = engine.limits
        self._fetcher = Fetcher(engine.settings.image_hosts, engine.limits.max_image_bytes)
        self._places = asyncio.Semaphore(_AT_ONCE)

    def part(self, given: Given, label: str, both: bool = False) -> InputItem:
        """The words, and the image if there is one; a query may have `both`."""
        parts = pieces(given, self._is_id)
        before = [picture.words for picture in parts.pictures if picture.words] if both else []
        words = _CONTROL.sub(" ", "\n".join((*before, *parts.words)))
        if len(parts.pictures) > 1:
            raise ApiError(422, "several_pictures", f"{label} has {len(parts.pictures)} images; send one in each")
        if parts.words and parts.pictures and not both:
            raise ApiError(422, "words_and_picture", f"{label} has both words and an image; send one of the two")
        if not parts.words and not parts.pictures:
            raise ApiError(422, "nothing", f"{label} has no 'text', 'image' or 'content'; send one of them")
        if both and not parts.pictures and is_blank(words[: self._limits.max_text]):
            raise ApiError(422, "no_words", f"{label} has no words; say what the images should show")
        if len(words) > self._limits.max_text:
            raise ApiError(
                422,
                "text_too_long",
                f"{label} has {len(words)} characters, over the limit of {self._limits.max_text}; shorten it",
            )
        return InputItem(words, parts.pictures[0] if parts.pictures else None)

    async def pictures(self, references: Mapping[str, Reference]) -> dict[str, str | ApiError]:
        """Label -> id of its image, or why it can't be judged. Raises the first error that fails the call."""
        seconds = self._limits.max_seconds
        try:
            async with asyncio.timeout(seconds):
                outcomes = await asyncio.gather(
                    *(self._picture(reference.picture, label) for label, reference in references.items()),
                    return_exceptions=True,
                )
        except TimeoutError as error:
            raise ApiError(
                504, "too_slow", f"reading the images took more than {seconds:g} s; send fewer or smaller images"
            ) from error
        read: dict[str, str | ApiError] = {}
        for (label, reference), outcome in zip(references.items(), outcomes, strict=True):
            unusable = isinstance(outcome, ApiError) and outcome.status < 500 and reference.certainty != "named"
            if isinstance(outcome, BaseException) and not unusable:
                raise outcome
            read[label] = outcome  # type: ignore[assignment]  # other errors are raised
        return read

    async def _picture(self, given: str, label: str) -> str:
        try:
            return self._known(given) or await self._new(given, label)
        except ApiError as error:
            raise ApiError(error.status, error.code, f"{label}: {error}", error.retry_after) from error
        except ImageTooLargeError as error:
            raise ApiError(422, "image_too_large", f"{label}: {without_folders(str(error))}") from error
        except ImageError as error:
            raise ApiError(422, "unreadable_image", f"{label}: {without_folders(str(error))}") from error

    def _is_id(self, name: str) -> bool:
        return any(name in collection.ids for collection in self._engine.collections.values())

    def _known(self, given: str) -> str | None:
        """The id of a registered collection's image, if the string names one."""
        if given[: len(SCHEME)].lower() == SCHEME:
            return self._engine.image(SCHEME + given[len(SCHEME) :])
        if len(given) > _LONGEST_ID:
            return None
        collections = self._engine.collections.values()
        matches = [collection.reference(given) for collection in collections if given in collection.ids]
        if len(matches) > 1:
            sentence = f"{given!r} is in several collections; send one of {', '.join(matches)}"
            raise ApiError(422, "ambiguous_image", sentence)
        return matches[0] if matches else None

    async def _new(self, given: str, label: str) -> str:
        """The id of an image that the request contains, or that is fetched."""
        async with self._places:
            if given[:8].lower().startswith(("http://", "https://")):
                data = await self._fetcher.fetch(given)
            else:
                data = decoded(given, self._limits.max_image_bytes)
            return await asyncio.to_thread(self.images.keep, data, label)
