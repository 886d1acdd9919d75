"""Encoders turn queries and images into vectors of one space: what one must do, and the registered ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from fieldscope.core.documents import Modality
from fieldscope.core.errors import ConfigError
from fieldscope.core.registry import Registry
from fieldscope.core.types import Query

Vectors = NDArray[np.float32]

QueryPart = Literal["text", "image", "instruction"]


@dataclass(frozen=True)
class QueryInputs:
    """A query as a model takes it: its words, its reference image's pixels (RGB), an instruction that says what a
    match is, and the kind of document that is wanted."""

    text: str = ""
    image: PILImage.Image | None = None
    instruction: str | None = None
    wanted: Modality | None = None


@dataclass(frozen=True)
class DocumentInputs:
    """A document as a model takes it: its words (empty for a picture alone) and its picture (RGB)."""

    text: str = ""
    image: PILImage.Image | None = None

    @property
    def size(self) -> int:
        """How many bytes of memory it takes, roughly."""
        return len(self.text) + (3 * self.image.width * self.image.height if self.image is not None else 0)


class Encoder(Protocol):
    """A model that puts queries and images into one space, where the inner product is the similarity."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of weights and preprocessing: vectors of two encoders compare only where this is equal."""
        ...

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    @property
    def uses(self) -> frozenset[QueryPart]:
        """The parts of a query that `encode_query` reads. Without "image" it gets no reference image: its vector of the
        text is then combined with the image's own vector."""
        ...

    def encode_query(self, inputs: QueryInputs) -> Vectors:
        """One L2-normalised vector, shape (dim,)."""
        ...

    def encode_images(self, images: Sequence[PILImage.Image]) -> Vectors:
        """L2-normalised vectors, shape (len(images), dim), in the order given."""
        ...


@runtime_checkable
class DocumentEncoder(Protocol):
    """An encoder that reads documents of any kind by itself."""

    def encode_documents(self, documents: Sequence[DocumentInputs]) -> Vectors:
        """L2-normalised vectors, shape (len(documents), dim), in the order given: of pictures, of texts, and of
        pictures with texts."""
        ...


def encode_documents(encoder: Encoder, documents: Sequence[DocumentInputs]) -> Vectors:
    """L2-normalised vectors of documents, shape (len(documents), dim), in the order given.

    Where the encoder does not read them by itself, a text is encoded as a query without an instruction is, and a
    picture with a text has the normalised sum of both vectors, as a query has.
    """
    if isinstance(encoder, DocumentEncoder):
        return encoder.encode_documents(documents)
    vectors = np.zeros((len(documents), encoder.dim), dtype=np.float32)
    pictured = [row for row, document in enumerate(documents) if document.image is not None]
    if pictured:
        vectors[pictured] = encoder.encode_images([image for each in documents if (image := each.image) is not None])
    for row, document in enumerate(documents):
        if document.text:
            vectors[row] += encoder.encode_query(QueryInputs(document.text))
            vectors[row] /= np.linalg.norm(vectors[row])
    return vectors


ENCODERS: Registry[Callable[[str], Encoder]] = Registry("encoder", "fieldscope.encoders")
"""Each loads an encoder from an argument, such as a model's name or folder. Raises `ConfigError`."""


def split_encoder(name: str) -> tuple[str, str]:
    """The registered encoder that a user means, and its argument: `name` or `name:argument`, the address of a server
    (URL#MODEL), or else a name or folder for open_clip."""
    if name.startswith(("http://", "https://")):
        return "openai", name
    return ENCODERS.split(name, "open_clip")


def load_encoder(name: str) -> Encoder:
    """The encoder that a user means by `name` (`split_encoder`). Raises `ConfigError`."""
    kind, argument = split_encoder(name)
    return ENCODERS.load(kind)(argument)


@runtime_checkable
class CorrectedEncoder(Protocol):
    """An encoder whose weights an earlier release may have built into another, wrong model."""

    @property
    def wrong_fingerprint(self) -> str | None:
        """The wrong model's fingerprint; None where the weights were always built correctly."""
        ...


def picture_refused(encoder: str) -> ConfigError:
    """The error of an encoder that would misread a query with a reference image by its text alone."""
    return ConfigError(
        f"the query has a reference image, and {encoder} encodes its text only; search an index that holds the image, "
        "or give candidates"
    )


def query_text(query: Query) -> str:
    """A query's words for an encoder that reads captions: its text and, of a dialogue, the answers of all rounds.

    Questions are left out. They say what is not known, in words that no caption has, and would fill a short context.
    """
    return ", ".join((query.text, *(turn.answer for turn in query.dialogue)))


def inputs_of(query: Query, image: PILImage.Image | None = None, instruction: str | None = None) -> QueryInputs:
    """A query's words with its reference image's pixels, where the encoder uses them, and what it says is wanted."""
    return QueryInputs(query_text(query), image, instruction, query.wanted)
