"""Images and other documents, read a few at a time, so that a large collection never lies in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from PIL import Image as PILImage

from fieldscope.core.documents import has_image, text_of
from fieldscope.core.errors import ImageError
from fieldscope.core.types import ImageSource
from fieldscope.retrieval.encoder import DocumentInputs
from fieldscope.retrieval.looked_at import load_reduced

_BATCH_BYTES = 128_000_000
ENCODED_PIXELS = 4_000_000
"""Of a larger picture a smaller copy is encoded: encoders read far fewer pixels."""

_READERS = min(8, os.cpu_count() or 1)


def read_batches(
    images: ImageSource, ids: Sequence[str], size: int, skipped: MutableMapping[str, str]
) -> Iterator[list[tuple[str, PILImage.Image]]]:
    """Images with their ids, `size` at a time or fewer where they are large, read in threads, and at most
    `ENCODED_PIXELS` large. Those that can't be read go to `skipped` with the reason."""
    for batch in read_documents(images, ids, size, skipped):
        yield [(image_id, document.image) for image_id, document in batch if document.image is not None]


def read_documents(
    source: ImageSource, ids: Sequence[str], size: int, skipped: MutableMapping[str, str]
) -> Iterator[list[tuple[str, DocumentInputs]]]:
    """The same for documents of any kind."""

    def attempt(document_id: str) -> DocumentInputs | ImageError:
        try:
            image = load_reduced(source, document_id, ENCODED_PIXELS) if has_image(source, document_id) else None
            return DocumentInputs(text_of(source, document_id), image)
        except ImageError as error:
            return error

    batch: list[tuple[str, DocumentInputs]] = []
    waiting = iter(ids)
    with ThreadPoolExecutor(_READERS) as pool:
        while group := list(islice(waiting, min(_READERS, size - len(batch)))):
            for document_id, document in zip(group, pool.map(attempt, group), strict=True):
                if isinstance(document, ImageError):
                    skipped[document_id] = str(document)
                else:
                    batch.append((document_id, document))
            if len(batch) >= size or sum(document.size for _, document in batch) >= _BATCH_BYTES:
                yield batch
                batch = []
    if batch:
        yield batch
