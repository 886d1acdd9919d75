"""Where a model says that something is in an image: the request, and the boxes of its answer.

Models that can ground name boxes in one of the formats of Qwen-VL (https://github.com/QwenLM/Qwen3-VL): JSON with
`"bbox_2d": [left, top, right, bottom]`, or `<|box_start|>(left,top),(right,bottom)<|box_end|>`, in older models
`<box>...</box>`. Qwen3-VL and Qwen2-VL count from 0 to 1000 along each side, and so does this. Qwen2.5-VL counts pixels
of the picture as its server scaled it, which nobody else knows. What a model names is never trusted: only four plain
numbers are read, clipped to the picture, and boxes that are empty, inverted or minute are left out.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence

from fieldscope.agent.call import ask, image_parts, messages, one_line
from fieldscope.agent.lmm.base import LMM, ImagePart, LMMRequest, TextPart
from fieldscope.agent.strategies.inspection import Grounding
from fieldscope.agent.types import Call
from fieldscope.core.errors import ImageError
from fieldscope.core.looks import Region
from fieldscope.core.types import ImageSource

MOST = 5
"""Boxes of an image that are used."""

MARGIN = 0.25
"""How much of a box's width and height is added on each side: a box ends at the subject, and a look wants to show what
it is doing and where."""

_WHOLE = 1000  # the length of a side
_LONGEST = 20_000  # characters of an answer that are read
_KEPT = 500  # characters of an answer that the trace shows
_MOST_READ = 200  # boxes
_ALIKE = 0.8  # two boxes that share more of the smaller one are one

_NUMBER = r"\s{0,9}([+-]?\d{1,9}(?:\.\d{1,18})?(?:[eE][+-]?\d{1,3})?)\s{0,9}"
_JSON_BOX = re.compile(rf'"bbox(?:_2d)?"\s{{0,9}}:\s{{0,9}}\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]')
_CORNERS = rf"\({_NUMBER},{_NUMBER}\)\s{{0,9}},\s{{0,9}}\({_NUMBER},{_NUMBER}\)\s{{0,9}}"
_MARKED_BOX = re.compile(rf"<\|box_start\|>\s{{0,9}}{_CORNERS}<\|box_end\|>|<box>\s{{0,9}}{_CORNERS}</box>")


async def ground(
    lmm: LMM, images: ImageSource, image_ids: Sequence[str], description: str, settings: Grounding, at_once: int
) -> tuple[dict[str, tuple[Region, ...]], tuple[Call, ...]]:
    """The regions that the model names in each image for what the description says, and the calls. An image of which it
    names none, or that can't be read, is left out."""
    slots = asyncio.Semaphore(at_once)

    async def asked(image_id: str) -> tuple[tuple[Region, ...], Call]:
        async with slots:
            try:
                (image,) = await image_parts(images, [image_id])
            except ImageError as error:
                return (), Call(stage="ground", text=image_id, state="unknown", error=one_line(error))
            answer = await ask(lmm, ground_request(image, description, settings))
        said = answer.response.text if answer.response else ""
        return named_regions(said, MOST), Call(stage="ground", text=f"{image_id}: {said}"[:_KEPT], **answer.asked)

    named = await asyncio.gather(*map(asked, image_ids))
    regions = {image_id: own for image_id, (own, _) in zip(image_ids, named, strict=True) if own}
    return regions, tuple(call for _, call in named)


def ground_request(image: ImagePart, description: str, settings: Grounding) -> LMMRequest:
    """Where in the image is what the description says?"""
    text = TextPart(text=settings.prompt.render(query=description))
    shown = messages(settings.prompt, image, text)
    return LMMRequest(messages=shown, max_tokens=settings.max_tokens, extra_body=settings.extra_body)


def named_regions(answer: str, most: int) -> tuple[Region, ...]:
    """The regions that an answer names, in its order and with a `MARGIN` around each, at most `most`; none where it
    names none. Numbers count from 0 to 1000 along each side."""
    chosen: list[Region] = []
    for box in _boxes(answer[:_LONGEST]):
        region = _clipped(box)
        if region is not None and all(region.shared(other) <= _ALIKE for other in chosen):
            chosen.append(region)
        if len(chosen) == most:
            break
    return tuple(chosen)


def _boxes(answer: str) -> Iterator[list[float]]:
    """The numbers of each box, in the order of the answer."""
    found = [*_JSON_BOX.finditer(answer), *_MARKED_BOX.finditer(answer)]
    for match in sorted(found, key=lambda each: each.start())[:_MOST_READ]:
        yield [float(number) for number in match.groups() if number is not None]


def _clipped(box: list[float]) -> Region | None:
    named = Region.clipped(*(value / _WHOLE for value in box))
    if named is None:
        return None
    across, down = named.width * MARGIN, named.height * MARGIN
    return Region.clipped(named.left - across, named.top - down, named.right + across, named.bottom + down)
