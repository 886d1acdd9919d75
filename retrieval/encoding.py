"""Documents encoded some at a time: in this process, or in others that a caller starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Protocol

from fieldscope.core.errors import LMMRequestError
from fieldscope.core.types import ImageSource
from fieldscope.retrieval.batches import read_documents
from fieldscope.retrieval.encoder import DocumentInputs, Encoder, Vectors, encode_documents

BATCH = 64
"""Documents that are encoded together."""


class Encoding(Protocol):
    """Encodes documents, wherever that happens."""

    def __call__(self, ids: Sequence[str], skipped: MutableMapping[str, str]) -> Iterator[Mapping[str, Vectors]]:
        """The vectors, each of shape (dim,), by the documents' ids, some at a time as they are finished. Those that
        can't be encoded go to `skipped` with the reason."""
        ...


def encoded_batches(
    source: ImageSource,
    encoder: Encoder,
    ids: Sequence[str],
    skipped: MutableMapping[str, str],
    size: int = BATCH,
) -> Iterator[Mapping[str, Vectors]]:
    """An `Encoding` in this process, `size` documents at a time or fewer where they are large.

    A document that a server refuses, because it is too narrow for the model for example, goes to `skipped` with the
    server's words. Raises the refusal of a batch of which nothing is left, and one of the key.
    """
    for batch in read_documents(source, ids, size, skipped):
        yield _encode(encoder, batch, skipped)


def _encode(
    encoder: Encoder, batch: Sequence[tuple[str, DocumentInputs]], skipped: MutableMapping[str, str]
) -> dict[str, Vectors]:
    ids, documents = [document_id for document_id, _ in batch], [document for _, document in batch]
    try:
        return dict(zip(ids, encode_documents(encoder, documents), strict=True))
    except LMMRequestError as error:
        refusal = error
    from fieldscope.core.server_failure import KEY_REFUSED
    from fieldscope.retrieval.server import status_of

    vectors: dict[str, Vectors] = {}
    for document_id, document in batch:
        try:
            vectors[document_id] = encode_documents(encoder, [document])[0]
        except LMMRequestError as error:
            if status_of(error) in KEY_REFUSED:
                raise
            skipped[document_id] = str(error)
    if not vectors and len(batch) > 1:
        raise refusal
    return vectors
