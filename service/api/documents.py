"""What clients send for a query and for a document, in each of their spellings, told apart into words and pictures."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import unquote_to_bytes

from pydantic import BaseModel, ConfigDict, Field

from core.errors import FieldscopeError, ImageError, ImageTooLargeError
from service.api.calls import Document, ImageDocument, TextDocument
from service.api.errors import ApiError
from service.api.fetching import Fetcher
from service.api.pictures import SCHEME, CallImages, reference

if TYPE_CHECKING:
    from service.api.engine import Engine

_AT_ONCE = 4
_LONGEST_ID = 512
_SHOWN = 60
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

    content: list[Part] = Field(min_length=1)


class DocumentObject(_Wire):
    """A document as an object: `text`, `image` (a data URL, base64, an http(s) address of an allowed host, an id of a
    registered collection's image, or `fieldscope://COLLECTION/ID`), or vLLM's `content`."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": [name]} for name in ("text", "image", "content")]}
    )

    text: str | None = None
    image: str | None = None
    content: list[Part] | None = Field(default=None, min_length=1)


Given = str | DocumentObject
"""A query or a document as a client gave it. A string that is a `data:image/` URL or a `fieldscope://` id is a
picture."""


@dataclass(frozen=True)
class Pieces:
    """What there is in one query or document: words, and the strings that stand for pictures."""

    words: tuple[str, ...]
    pictures: tuple[str, ...]


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


def pieces(given: Given) -> Pieces:
    """Words and pictures told apart."""
    if isinstance(given, str):
        given = DocumentObject(text=given)
    texts = [given.text] if given.text is not None else []
    pictures = [given.image] if given.image is not None else []
    for part in given.content or ():
        if isinstance(part, ImagePart):
            pictures.append(part.image_url.url)
        else:
            texts.append(part.text)
    pictures += [text for text in texts if _is_picture(text)]
    return Pieces(tuple(text for text in texts if not _is_picture(text)), tuple(map(str.strip, pictures)))


async def read_inputs(query: Given, documents: Sequence[Given], engine: Engine) -> Inputs:
    """All that a call is about, its pictures decoded, kept, and known by their ids.

    One document that can't be used fails the call: clients can't take a ranking of some of their documents. Raises
    `ApiError`, which names the document by its index.
    """
    limit = engine.limits.max_documents
    if len(documents) > limit:
        raise ApiError(
            422, "too_many_documents", f"{len(documents)} documents, over the limit of {limit} a call; send fewer"
        )
    reader = _Reader(engine)
    words, picture = reader.parts(query, "the query", both=True)
    told = [reader.parts(document, f"document {index}") for index, document in enumerate(documents)]
    asked = {"the query": picture} | {f"document {index}": picture for index, (_, picture) in enumerate(told)}
    ids = await reader.pictures({label: picture for label, picture in asked.items() if picture is not None})
    return Inputs(
        query=words,
        query_image=ids.get("the query"),
        documents=tuple(
            TextDocument(words) if picture is None else ImageDocument(ids[f"document {index}"])
            for index, (words, picture) in enumerate(told)
        ),
        images=reader.images,
    )


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

    def parts(self, given: Given, label: str, both: bool = False) -> tuple[str, str | None]:
        """The words, and the string of the picture, where there is one; a query may have `both`."""
        found = pieces(given)
        words = _CONTROL.sub(" ", "\n".join(found.words))
        if len(found.pictures) > 1:
            raise ApiError(422, "several_pictures", f"{label} has {len(found.pictures)} pictures; give one in each")
        if found.words and found.pictures and not both:
            raise ApiError(422, "words_and_picture", f"{label} has words beside its picture; give one of the two")
        if not found.words and not found.pictures:
            raise ApiError(422, "nothing", f"{label} has neither 'text' nor 'image' nor 'content'")
        if both and not found.pictures and not words.strip():
            raise ApiError(422, "no_words", f"{label} has no words; say what the pictures should show")
        if len(words) > self._limits.max_text:
            raise ApiError(
                422,
                "text_too_long",
                f"{label} has {len(words)} characters, over the limit of {self._limits.max_text}; shorten it",
            )
        return words, found.pictures[0] if found.pictures else None

    async def pictures(self, asked: dict[str, str]) -> dict[str, str]:
        """Label -> id of its picture. Of several that can't be used the first is told."""
        seconds = self._limits.max_seconds
        try:
            async with asyncio.timeout(seconds):
                told = await asyncio.gather(
                    *(self._picture(given, label) for label, given in asked.items()), return_exceptions=True
                )
        except TimeoutError as error:
            raise ApiError(504, "too_slow", f"the pictures took more than {seconds:g} s to come together") from error
        for outcome in told:
            if isinstance(outcome, BaseException):
                raise outcome
        return dict(zip(asked, told, strict=True))  # type: ignore[arg-type]  # what was raised is raised

    async def _picture(self, given: str, label: str) -> str:
        try:
            return self._known(given) or await self._new(given, label)
        except ApiError as error:
            raise ApiError(error.status, error.code, f"{label}: {error}", error.retry_after) from error
        except ImageTooLargeError as error:
            raise ApiError(422, "image_too_large", f"{label}: {error}") from error
        except ImageError as error:
            raise ApiError(422, "unreadable_image", f"{label}: {error}") from error

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
                data = self._decoded(given)
            return await asyncio.to_thread(self.images.keep, data, label)

    def _decoded(self, given: str) -> bytes:
        """The bytes that a data URL or base64 spells."""
        head, comma, body = given.partition(",")
        is_url = bool(comma) and head[:5].lower() == "data:"
        kind, *parameters = head[5:].split(";")
        if is_url and not kind.strip().lower().startswith("image/"):
            raise ApiError(422, "unreadable_image", f"a data URL of {kind[:_SHOWN]!r} is no picture")
        spelled = body if is_url else given
        self._require_small(len(spelled))
        if is_url and not (parameters and parameters[-1].strip().lower() == "base64"):
            return unquote_to_bytes(spelled)
        try:
            packed = unquote_to_bytes(spelled) if is_url else spelled.encode("ascii")
            return base64.b64decode(packed.translate(None, b" \t\r\n"), validate=True)
        except ValueError as error:
            if is_url or len(given) > _LONGEST_ID:
                raise ApiError(422, "unreadable_image", f"its base64 can't be read ({error})") from error
            raise ApiError(
                404,
                "no_such_image",
                f"{given[:_SHOWN]!r} is no image of a registered collection, and no data URL, base64 or address either",
            ) from error

    def _require_small(self, characters: int) -> None:
        """Base64 takes four characters for three bytes, and a data URL may spell a byte with three."""
        if characters > 4 * self._limits.max_image_bytes:
            raise ImageTooLargeError(
                f"it has {characters / 1e6:.1f} million characters, too many for a picture of at most"
                f" {self._limits.max_image_bytes / 1e6:g} MB; make it smaller"
            )


def _is_picture(text: str) -> bool:
    start = text[:64].lstrip().lower()
    return start.startswith(("data:image/", SCHEME))
