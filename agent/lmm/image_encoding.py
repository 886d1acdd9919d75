"""Images as content parts of a chat completion: encoded once, and kept as long as there is room for them."""

from __future__ import annotations

import asyncio

import orjson

from fieldscope.agent.lmm.base import ImagePart
from fieldscope.agent.lmm.pixels import load_pixels
from fieldscope.core.image_encoding import ImageEncoding
from fieldscope.core.types import ImageSource
from fieldscope.retrieval.lru import ByteLru

_KEPT_BYTES = 256_000_000


class EncodedImages:
    """Images as content parts of a chat completion, ready to be copied into a body; for one event loop.

    Each is decoded, scaled and encoded in a worker thread once, however many requests show it, and kept while there is
    room: `kept_bytes` for all of them. `encoded` counts how often an image was encoded.
    """

    def __init__(self, images: ImageSource, encoding: ImageEncoding, kept_bytes: int = _KEPT_BYTES) -> None:
        self._images = images
        self.encoding = encoding
        self._parts: ByteLru[bytes] = ByteLru(kept_bytes)
        self._in_work: dict[ImagePart, asyncio.Task[bytes]] = {}
        self.encoded = 0

    def name(self, image: ImagePart) -> str:
        """What a server may remember the image by: the hash of its pixels, and how it is sent."""
        return f"{image.sha256}-{self.encoding.name}"

    async def part(self, image: ImagePart) -> bytes:
        """The JSON of an `image_url`, such as `{"url":"data:image/jpeg;base64,..."}`.

        Raises `ImageError` where the image can't be read, or its pixels are not those of the hash.
        """
        kept = self._parts.get(image.sha256)
        if kept is not None:
            return kept
        task = self._in_work.get(image)
        if task is None:
            task = asyncio.create_task(self._encode(image))
            self._in_work[image] = task
            task.add_done_callback(lambda done: self._finish(image, done))
        return await asyncio.shield(task)  # others may wait for it, too

    async def _encode(self, image: ImagePart) -> bytes:
        part = await asyncio.to_thread(self._read, image)
        self.encoded += 1
        self._parts.put(image.sha256, part, len(part))
        return part

    def _read(self, image: ImagePart) -> bytes:
        return orjson.dumps({"url": self.encoding.data_url(load_pixels(self._images, image))})

    def _finish(self, image: ImagePart, task: asyncio.Task[bytes]) -> None:
        del self._in_work[image]
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not complain where every caller was cancelled
