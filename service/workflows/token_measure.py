"""How many tokens a model reads of a prompt: asked of its server, or by the rule of its family."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image as PILImage

from fieldscope.core.errors import LMMError, LMMResponseError
from fieldscope.core.fingerprint import fingerprint_pixels
from fieldscope.service.wiring.models import open_bare_lmm

if TYPE_CHECKING:
    from fieldscope.agent.lmm.base import LMM, LMMRequest
    from fieldscope.eval.tuning.estimate import Measure
    from fieldscope.service.wiring.settings import Settings

CAMERA = (4000, 3000)
"""Pixels of the picture that is taken for a usual one; it is scaled down as every other."""

_PICTURE = "picture"
_QUESTION = "is this a photograph? answer yes or no."
_ALLOWED = (1, 512)  # tokens of the answer: more, where a model thinks first


@dataclass(frozen=True)
class TokenMeasure:
    """A measure, and in `source` what it rests on, for people."""

    measure: Measure
    source: str


def measured_tokens(settings: Settings) -> TokenMeasure:
    """A measure by one question about one picture of usual size, which the settings' server is asked; it costs as many
    tokens. Raises an `LMMError` where it does not answer, or does not count."""
    return asyncio.run(_ask(settings))


def tokens_by_rule(settings: Settings) -> TokenMeasure:
    """A measure by the rule of the model's family, found in its name, else by a rule of thumb. Asks nothing."""
    from fieldscope.eval.tuning.estimate import by_picture, rule_of_thumb
    from fieldscope.eval.tuning.picture_tokens import TOKENS_PER_PICTURE, family_of

    width, height = usual_size(settings)
    family = family_of(settings.model or "")
    if family is None:
        source = f"a rule of thumb, {TOKENS_PER_PICTURE} for a picture, since the model's name tells no known family"
        return TokenMeasure(rule_of_thumb, source)
    tokens = family.tokens(width, height)
    source = f"{family.name}'s rule, {tokens:,} for a picture of {width:,} x {height:,} pixels"
    return TokenMeasure(by_picture(tokens), source)


def usual_size(settings: Settings) -> tuple[int, int]:
    """Width and height of the usual picture when it reaches the server."""
    return _usual_picture(settings).size


def _usual_picture(settings: Settings) -> PILImage.Image:
    from fieldscope.agent.lmm.image_encoding import ImageEncoding

    picture = PILImage.new("RGB", CAMERA, "gray")
    return ImageEncoding("jpeg", settings.max_side, settings.max_pixels).scale(picture)


async def _ask(settings: Settings) -> TokenMeasure:
    from fieldscope.agent.lmm.base import ImagePart, LMMRequest, Message, TextPart
    from fieldscope.eval.tuning.estimate import CHARACTERS_PER_TOKEN, by_picture

    picture = _usual_picture(settings)
    image = ImagePart(image_id=_PICTURE, sha256=fingerprint_pixels(picture))
    request = LMMRequest(messages=(Message(content=(image, TextPart(text=_QUESTION))),))
    async with open_bare_lmm(settings, _OnePicture(picture)) as lmm:
        read = await _prompt_tokens(lmm, request)
    tokens = read - len(_QUESTION) / CHARACTERS_PER_TOKEN
    width, height = picture.size
    source = f"the server, {read:,} for a picture of {width:,} x {height:,} pixels and a short question (measured)"
    return TokenMeasure(by_picture(tokens), source)


async def _prompt_tokens(lmm: LMM, request: LMMRequest) -> int:
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
    raise LMMError("the server does not count the tokens of a prompt (usage); measure them with `fieldscope calibrate`")


class _OnePicture:
    """An image source of one picture."""

    def __init__(self, picture: PILImage.Image) -> None:
        self._picture = picture

    def load(self, image_id: str) -> PILImage.Image:
        return self._picture

    def pixel_hash(self, image_id: str) -> str:
        return fingerprint_pixels(self._picture)
