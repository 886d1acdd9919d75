"""What clients send for a query and for a document, in each of their spellings, told apart into words and pictures."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from fieldscope.core.errors import FieldscopeError, ImageError, ImageTooLargeError
from fieldscope.core.paths import without_folders
from fieldscope.service.server.api.calls import Document, ImageDocument, TextDocument, UnjudgedDocument
from fieldscope.service.server.api.encoded import decoded
from fieldscope.service.server.api.errors import ApiError
from fieldscope.service.server.api.fetching import Fetcher
from fieldscope.service.server.api.outcome import document_id
from fieldscope.service.server.api.pictures import SCHEME, CallImages, reference
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
    """Where a picture is: a data URL, an http(s) address of an allowed host, or `fieldscope://COLLECTION/ID`."""

    url: str = Field(examples=["fieldscope://fieldnotes/1"])


class ImagePart(_Wire):
    """A picture in vLLM's words."""

    type: Literal["image_url"]
    image_url: ImageUrl


class TextPart(_Wire):
    """Words in vLLM's words."""

    type: Literal["text"]
    text: str


Part = Annotated[ImagePart | TextPart, Field(discriminator="type")]


class Content(_Wire):
    """vLLM's object: one or more parts."""

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
"""A query or a document as a client gave it. A string may stand for a picture: see `references`."""


@dataclass(frozen=True)
class Pieces:
    """What there is in one query or document: words, and what stands for pictures."""

    words: tuple[str, ...]
    pictures: tuple[Reference, ...]


@dataclass(frozen=True)
class Read:
    """One query or document as it was read: its words, and the picture where there is one."""

    words: str
    picture: Reference | None


@dataclass(frozen=True)
class Inputs:
    """A call's query and documents as the engine takes them; `images` has every picture of them."""

    query: str
    query_image: str | None
    documents: tuple[Document, ...]
    images: CallImages


def listed(documents: Sequence[Given] | Content) -> list[Given]:
    """The documents one by one: vLLM's object form is a document for each part."""
    if isinstance(documents, Content):
        return [DocumentObject(content=[part]) for part in documents.content]
    return list(documents)


def pieces(given: Given, is_id: Callable[[str], bool] = lambda name: False) -> Pieces:
    """Words and pictures told apart; `is_id` says whether a collection has an image of this id."""
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
        found = reference_in(text)
        if found is None or (found.certainty == "perhaps" and not is_id(found.picture)):
            words.append(text)
        else:
            pictures.append(found)
    if pictures:
        words = [text for text in words if text.strip()]
    return Pieces(tuple(words), tuple(pictures))


async def read_inputs(query: Given, documents: Sequence[Given], engine: Engine) -> Inputs:
    """All that a call is about, its pictures decoded, kept, and known by their ids.

    A picture that is named as the documentation has it and can't be used fails the call: the caller made a mistake.
    Other strings that stand for a picture, and documents without any words, come out as `UnjudgedDocument` where there
    is nothing to judge. Raises `ApiError`, which names the document by its index.
    """
    limit = engine.limits.max_documents
    if len(documents) > limit:
        raise ApiError(
            422, "too_many_documents", f"{len(documents)} documents, over the limit of {limit} a call; send fewer"
        )
    reader = _Reader(engine)
    asked = reader.part(query, "the query", both=True)
    parts = {document_id(index): reader.part(document, document_id(index)) for index, document in enumerate(documents)}
    named = {"the query": asked} | parts
    ids = await reader.pictures({label: part.picture for label, part in named.items() if part.picture is not None})
    return Inputs(
        query=asked.words,
        query_image=_usable(ids["the query"]) if asked.picture is not None else None,
        documents=tuple(_document(label, part, ids.get(label)) for label, part in parts.items()),
        images=reader.images,
    )


def _usable(picture: str | ApiError) -> str:
    if isinstance(picture, ApiError):
        raise picture
    return picture


def _document(label: str, part: Read, picture: str | ApiError | None) -> Document:
    if isinstance(picture, str):
        return ImageDocument(picture)
    if picture is not None:
        return UnjudgedDocument(str(picture))
    blank = is_blank(part.words)
    return UnjudgedDocument(f"{label} has no words and no picture") if blank else TextDocument(part.words)


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

    def part(self, given: Given, label: str, both: bool = False) -> Read:
        """The words, and the picture where there is one; a query may have `both`."""
        found = pieces(given, self._is_id)
        before = [picture.words for picture in found.pictures if picture.words] if both else []
        words = _CONTROL.sub(" ", "\n".join((*before, *found.words)))
        if len(found.pictures) > 1:
            raise ApiError(422, "several_pictures", f"{label} has {len(found.pictures)} pictures; give one in each")
        if found.words and found.pictures and not both:
            raise ApiError(422, "words_and_picture", f"{label} has words beside its picture; give one of the two")
        if not found.words and not found.pictures:
            raise ApiError(422, "nothing", f"{label} has neither 'text' nor 'image' nor 'content'")
        if both and not found.pictures and is_blank(words[: self._limits.max_text]):
            raise ApiError(422, "no_words", f"{label} has no words; say what the pictures should show")
        if len(words) > self._limits.max_text:
            raise ApiError(
                422,
                "text_too_long",
                f"{label} has {len(words)} characters, over the limit of {self._limits.max_text}; shorten it",
            )
        return Read(words, found.pictures[0] if found.pictures else None)

    async def pictures(self, asked: Mapping[str, Reference]) -> dict[str, str | ApiError]:
        """Label -> id of its picture, or why there is none to judge. Raises the first error that fails the call."""
        seconds = self._limits.max_seconds
        try:
            async with asyncio.timeout(seconds):
                told = await asyncio.gather(
                    *(self._picture(given.picture, label) for label, given in asked.items()), return_exceptions=True
                )
        except TimeoutError as error:
            raise ApiError(504, "too_slow", f"the pictures took more than {seconds:g} s to come together") from error
        read: dict[str, str | ApiError] = {}
        for (label, given), outcome in zip(asked.items(), told, strict=True):
            unusable = isinstance(outcome, ApiError) and outcome.status < 500 and given.certainty != "named"
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
        try:
            return self._known(name) is not None
        except ApiError:  # several collections have it
            return True

    def _known(self, given: str) -> str | None:
        """The id of a registered collection's image, where that is what a string names."""
        if given[: len(SCHEME)].lower() == SCHEME:
            return self._engine.image(SCHEME + given[len(SCHEME) :])
        if len(given) > _LONGEST_ID:
            return None
        found = [image_id for name in self._engine.collections if (image_id := self._in(name, given)) is not None]
        if len(found) > 1:
            raise ApiError(
                422, "ambiguous_image", f"{given!r} is in several collections; say which: {', '.join(found)}"
            )
        return found[0] if found else None

    def _in(self, collection: str, image_id: str) -> str | None:
        try:
            return self._engine.image(reference(collection, image_id))
        except FieldscopeError:
            return None

    async def _new(self, given: str, label: str) -> str:
        """The id of a picture that came along, or that is fetched."""
        async with self._places:
            if given[:8].lower().startswith(("http://", "https://")):
                data = await self._fetcher.fetch(given)
            else:
                data = decoded(given, self._limits.max_image_bytes)
            return await asyncio.to_thread(self.images.keep, data, label)
