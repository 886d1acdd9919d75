"""Where a model says that something is in an image: the request, and the boxes of its answer.

Models that can ground name boxes in one of the formats of Qwen-VL (https://github.com/QwenLM/Qwen3-VL): JSON with
`"bbox_2d": [left, top, right, bottom]`, or `<|box_start|>(left,top),(right,bottom)<|box_end|>`, in older models
`<box>...</box>`. Qwen3-VL and Qwen2-VL count from 0 to 1000 along each side, Qwen2.5-VL in pixels of the picture that
it saw. What a model names is never trusted: only four plain numbers are read, clipped to the picture, and boxes that
are empty, inverted or minute are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from fieldscope.agent.call import messages
from fieldscope.agent.lmm.base import ImagePart, LMMRequest, TextPart
from fieldscope.core.looks import Region
from fieldscope.prompts.prompt import Prompt

MARGIN = 0.25
"""How much of a box's width and height is added on each side: a box ends at the subject, and a look wants to show what
it is doing and where."""

_RELATIVE = (1000, 1000)
_LONGEST = 20_000  # characters of an answer that are read
_MOST_READ = 200  # boxes
_ALIKE = 0.8  # two boxes that share more of the smaller one are one

_NUMBER = r"\s{0,9}([+-]?\d{1,9}(?:\.\d{1,18})?(?:[eE][+-]?\d{1,3})?)\s{0,9}"
_JSON_BOX = re.compile(rf'"bbox(?:_2d)?"\s{{0,9}}:\s{{0,9}}\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]')
_CORNERS = rf"\({_NUMBER},{_NUMBER}\)\s{{0,9}},\s{{0,9}}\({_NUMBER},{_NUMBER}\)\s{{0,9}}"
_MARKED_BOX = re.compile(rf"<\|box_start\|>\s{{0,9}}{_CORNERS}<\|box_end\|>|<box>\s{{0,9}}{_CORNERS}</box>")


def ground_request(
    image: ImagePart, description: str, prompt: Prompt, max_tokens: int, extra_body: dict[str, Any]
) -> LMMRequest:
    """Where in the image is what the description says? `prompt` takes the variable `query`."""
    text = TextPart(text=prompt.render(query=description))
    return LMMRequest(messages=messages(prompt, image, text), max_tokens=max_tokens, extra_body=extra_body)


def named_regions(answer: str, most: int, seen: tuple[int, int] | None = None) -> tuple[Region, ...]:
    """The regions that an answer names, in its order and with a `MARGIN` around each, at most `most`; none where it
    names none.

    `seen` is the size in pixels of the picture that the model saw, for a model that answers in pixels; None is for one
    that counts from 0 to 1000. Boxes between marks are always counted so.
    """
    chosen: list[Region] = []
    for box, size in _boxes(answer[:_LONGEST], seen or _RELATIVE):
        region = _clipped(box, size)
        if region is not None and all(region.shared(other) <= _ALIKE for other in chosen):
            chosen.append(region)
        if len(chosen) == most:
            break
    return tuple(chosen)


def _boxes(answer: str, size: tuple[int, int]) -> Iterator[tuple[list[float], tuple[int, int]]]:
    """The numbers of each box, in the order of the answer, and what they are counted in."""
    found = [(match, size) for match in _JSON_BOX.finditer(answer)]
    found += [(match, _RELATIVE) for match in _MARKED_BOX.finditer(answer)]
    for match, counted in sorted(found, key=lambda each: each[0].start())[:_MOST_READ]:
        yield [float(number) for number in match.groups() if number is not None], counted


def _clipped(box: list[float], size: tuple[int, int]) -> Region | None:
    left, top, right, bottom = (value / size[at % 2] for at, value in enumerate(box))
    named = Region.clipped(left, top, right, bottom)
    if named is None:
        return None
    across, down = named.width * MARGIN, named.height * MARGIN
    return Region.clipped(named.left - across, named.top - down, named.right + across, named.bottom + down)
