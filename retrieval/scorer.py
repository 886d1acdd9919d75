"""Scorers say how well each document matches a query: what one must do, the registered ones, and CLIP's similarity."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from PIL import Image as PILImage

from fieldscope.core.registry import Registry
from fieldscope.core.types import ImageSource
from fieldscope.retrieval.batches import read_batches
from fieldscope.retrieval.encoder import DocumentInputs, Encoder, QueryInputs, Vectors, encode_documents
from fieldscope.retrieval.progress import Report

_AT_ONCE = 8  # images in memory

Document = PILImage.Image | str | DocumentInputs
"""A candidate as a scorer reads it: an RGB picture, a text, or a picture with a text."""


def pictures_of(documents: Sequence[Document]) -> list[PILImage.Image]:
    """The pictures of documents, of those that have one."""
    shown = (each.image if isinstance(each, DocumentInputs) else each for each in documents)
    return [each for each in shown if each is not None and not isinstance(each, str)]


class Scorer(Protocol):
    """A model that looks at a query and a document together, or compares their vectors.

    It is called from worker threads.
    """

    @property
    def fingerprint(self) -> str:
        """What tells scorers apart in caches and calibrations: the SHA-256 of weights and preprocessing, or what a
        server says of its model, with the settings that scores depend on."""
        ...

    def score(self, inputs: QueryInputs, documents: Sequence[Document]) -> list[float | None]:
        """A finite score for each document, in the order given; any scale, greater is better. None where this document
        could not be judged. A document's score does not depend on the others.

        Raises an `LMMError` where the server of the model is not there or refuses the whole request, and `ConfigError`
        for a kind of query or document that the model does not take.
        """
        ...


@dataclass(frozen=True)
class PairScore:
    """What a scorer said of one document: its score, or None and the `error` that says why there is none.

    `tokens` are those that a server counted for the pair, 0 where it does not say or none was asked. `cached` says that
    the score was remembered, under this `key` of the response cache. `server_failed` says that the reason is not this
    document: the scorer's server failed, or refuses everything.
    """

    value: float | None
    error: str | None = None
    tokens: int = 0
    cached: bool = False
    key: str = ""
    server_failed: bool = False


@runtime_checkable
class ExplainingScorer(Protocol):
    """A scorer that says why it could not judge a document, and what each took."""

    requests: int
    """Requests that were sent so far."""

    def ask(self, inputs: QueryInputs, documents: Sequence[Document]) -> list[PairScore]:
        """What `score` returns, with reasons and tokens. Raises what `score` raises."""
        ...


@runtime_checkable
class NegotiatingScorer(Protocol):
    """A scorer behind a server that has to be asked what it serves and in which form it takes a request. Both belong to
    the fingerprint, so they must be known before the first score."""

    def base(self) -> str:
        """The fingerprint without the form. The first call asks the server what it tells of its model. Raises an
        `LMMError` where it is not there, or serves other models."""
        ...

    @property
    def form(self) -> str | None:
        """The form in which requests are sent, once it is known."""
        ...

    def find_form(self) -> str:
        """Find the form out by sending requests, and keep it. Raises an `LMMError` where the server takes none."""
        ...

    def use_form(self, form: str) -> bool:
        """Send requests in a form that was found out before; false where this is none."""
        ...


SCORERS: Registry[Callable[[str, Callable[[], Encoder]], Scorer]] = Registry("scorer", "fieldscope.scorers")
"""Each makes a scorer from an argument and a function that loads the user's encoder, if the scorer needs one."""


class Similarity:
    """The inner product of the query's and the image's vectors: for CLIP the cosine, between -1 and 1."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._last: tuple[QueryInputs, Vectors] | None = None  # images come a few at a time for one query

    @classmethod
    def open(cls, argument: str, encoder: Callable[[], Encoder]) -> Similarity:
        """The scorer "similarity"; it ignores its argument."""
        return cls(encoder())

    @property
    def fingerprint(self) -> str:
        return self.encoder.fingerprint

    def score(self, inputs: QueryInputs, documents: Sequence[Document]) -> list[float | None]:
        each = [_inputs(document) for document in documents]
        last = self._last  # other threads score other queries
        if last is None or last[0] is not inputs:
            last = self._last = (inputs, self.encoder.encode_query(inputs))
        return [float(similarity) for similarity in encode_documents(self.encoder, each) @ last[1]]


def _inputs(document: Document) -> DocumentInputs:
    if isinstance(document, DocumentInputs):
        return document
    return DocumentInputs(document) if isinstance(document, str) else DocumentInputs(image=document)


def score_images(
    scorer: Scorer | None,
    inputs: QueryInputs,
    ids: Sequence[str],
    images: ImageSource,
    skipped: MutableMapping[str, str],
    progress: Report | None = None,
) -> dict[str, float]:
    """The score of each image that can be read, by its id, in the order given; 0 where there is no scorer.

    Images are loaded a few at a time. Those that can't be read, or judged by the scorer, go to `skipped` with the
    reason.
    """
    scores: dict[str, float] = {}
    for batch in read_batches(images, ids, _AT_ONCE, skipped):
        pictures = [image for _, image in batch]
        values = scorer.score(inputs, pictures) if scorer else [0.0] * len(pictures)
        for (image_id, _), value in zip(batch, values, strict=True):
            if value is None:
                skipped[image_id] = "the scorer gave no score; run `fieldscope doctor --scorer` to see why"
            else:
                scores[image_id] = value
        if progress is not None:
            progress(len(scores), len(ids))
    return scores
