"""How many tokens a server counts of a short question about pictures: what they cost, and whether they fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fieldscope.core.errors import LMMError, LMMResponseError
from fieldscope.core.fingerprint import fingerprint_pixels
from fieldscope.service.wiring.models import open_bare_lmm

if TYPE_CHECKING:
    from PIL import Image as PILImage

    from fieldscope.service.wiring.settings import Settings

CAMERA = (4000, 3000)
"""Pixels of the picture that is taken for a usual one; it is scaled down as every other."""

QUESTION = "is this a photograph? answer yes or no."
_ALLOWED = (1, 512)  # tokens of the answer: more, where a model thinks first


def usual_picture(settings: Settings) -> PILImage.Image:
    """A picture of usual size as it reaches the server."""
    from PIL import Image as PILImage

    from fieldscope.core.image_encoding import ImageEncoding

    picture = PILImage.new("RGB", CAMERA, "gray")
    return ImageEncoding("jpeg", settings.max_side, settings.max_pixels).scale(picture)


async def prompt_tokens(settings: Settings, pictures: Sequence[PILImage.Image]) -> int:
    """How many tokens the settings' server reads of `QUESTION` about these pictures. Raises an `LMMError` where it does
    not answer, or does not count."""
    from fieldscope.agent.lmm.base import ImagePart, LMMRequest, Message, TextPart

    shown = _Pictures(pictures)
    images = [ImagePart(image_id=name, sha256=shown.pixel_hash(name)) for name in shown.ids]
    request = LMMRequest(messages=(Message(content=(*images, TextPart(text=QUESTION))),))
    async with open_bare_lmm(settings, shown) as lmm:
        for number, allowed in enumerate(_ALLOWED, start=1):
            try:
                response = await lmm.generate(request.model_copy(update={"max_tokens": allowed}))
            except LMMResponseError:  # it may have thought for longer
                if number == len(_ALLOWED):
                    raise
            else:
                if response.usage.prompt_tokens:
                    return response.usage.prompt_tokens
                break
    raise LMMError("the server does not count the tokens of a prompt (usage); use a server that does")


class _Pictures:
    """An image source of some pictures, whose ids are their numbers."""

    def __init__(self, pictures: Sequence[PILImage.Image]) -> None:
        self._pictures = {str(number): picture for number, picture in enumerate(pictures)}

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._pictures)

    def load(self, image_id: str) -> PILImage.Image:
        return self._pictures[image_id]

    def pixel_hash(self, image_id: str) -> str:
        return fingerprint_pixels(self._pictures[image_id])
