"""Images read a few at a time, so that a large collection never lies in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from PIL import Image as PILImage

from fieldscope.core.errors import ImageError
from fieldscope.core.types import ImageSource
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

    def attempt(image_id: str) -> PILImage.Image | ImageError:
        try:
            return load_reduced(images, image_id, ENCODED_PIXELS)
        except ImageError as error:
            return error

    batch: list[tuple[str, PILImage.Image]] = []
    waiting = iter(ids)
    with ThreadPoolExecutor(_READERS) as pool:
        while group := list(islice(waiting, min(_READERS, size - len(batch)))):
            for image_id, image in zip(group, pool.map(attempt, group), strict=True):
                if isinstance(image, ImageError):
                    skipped[image_id] = str(image)
                else:
                    batch.append((image_id, image))
            if len(batch) >= size or sum(3 * image.width * image.height for _, image in batch) >= _BATCH_BYTES:
                yield batch
                batch = []
    if batch:
        yield batch
