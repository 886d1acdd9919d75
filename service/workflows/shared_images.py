"""One source of images for a model that serves many calls, each with images of its own.

A model is bound to one source when it is made. `SharedImages` is that source, and `CallLMM` puts the name of its call
before every image id, so that two calls may use the same ids. Cache keys do not depend on ids.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image as PILImage

from fieldscope.agent.lmm.base import LMM, ImagePart, LMMRequest, LMMResponse
from fieldscope.core.errors import BrokenImageError
from fieldscope.core.types import ImageSource


class SharedImages:
    """The images of all calls at work."""

    def __init__(self) -> None:
        self._calls: dict[str, ImageSource] = {}
        self._numbers = itertools.count(1)

    @contextmanager
    def serving(self, images: ImageSource) -> Iterator[str]:
        """Hand out these images to a model for the length of a call; yields what comes before their ids."""
        call = str(next(self._numbers))
        self._calls[call] = images
        try:
            yield f"{call}/"
        finally:
            del self._calls[call]

    def load(self, image_id: str) -> PILImage.Image:
        images, own_id = self._find(image_id)
        return images.load(own_id)

    def pixel_hash(self, image_id: str) -> str:
        images, own_id = self._find(image_id)
        return images.pixel_hash(own_id)

    def _find(self, image_id: str) -> tuple[ImageSource, str]:
        call, _, own_id = image_id.partition("/")
        if call not in self._calls:
            raise BrokenImageError(f"image {own_id!r} belongs to a call that has ended; rank it again")
        return self._calls[call], own_id


class CallLMM:
    """A shared model as one call sees it: its requests name images by the ids of that call. The model stays open."""

    def __init__(self, lmm: LMM, prefix: str) -> None:
        self._lmm = lmm
        self._prefix = prefix

    @property
    def identity(self) -> str:
        return self._lmm.identity

    async def generate(self, request: LMMRequest) -> LMMResponse:
        messages = tuple(
            message.model_copy(
                update={
                    "content": tuple(
                        part.model_copy(update={"image_id": self._prefix + part.image_id})
                        if isinstance(part, ImagePart)
                        else part
                        for part in message.content
                    )
                }
            )
            for message in request.messages
        )
        return await self._lmm.generate(request.model_copy(update={"messages": messages}))

    async def aclose(self) -> None:
        """Nothing: the model serves other calls, too."""
