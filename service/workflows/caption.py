"""What the LMM says that each image of a library shows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fieldscope.service.wiring.feedback import progress
from fieldscope.service.wiring.interruption import interruptible
from fieldscope.service.wiring.models import open_lmm
from fieldscope.service.wiring.settings import Settings

if TYPE_CHECKING:
    from fieldscope.agent.lmm.base import LMM
    from fieldscope.core.types import ImageSource
    from fieldscope.retrieval.progress import Report

MAX_TOKENS = 512
"""As a strategy asks about a reference image by default, so that both find one answer in the cache."""


def caption_images(
    images: ImageSource, image_ids: Sequence[str], settings: Settings
) -> tuple[dict[str, str], dict[str, str]]:
    """A caption by image id, in the order of the ids, and for each image without one the reason. What was asked before
    comes from the cache."""
    with progress("captioning images") as report:
        work = _caption_images(images, image_ids, settings, report)
        return interruptible(work, "captions so far are in the cache, and the same command finds them there")


async def _caption_images(
    images: ImageSource, image_ids: Sequence[str], settings: Settings, report: Report
) -> tuple[dict[str, str], dict[str, str]]:
    captions: dict[str, str] = {}
    failed: dict[str, str] = {}
    waiting = iter(image_ids)

    async def work(lmm: LMM) -> None:
        for image_id in waiting:
            text, error = await _caption(lmm, images, image_id)
            if error is None:
                captions[image_id] = text
            else:
                failed[image_id] = error
            report(len(captions) + len(failed), len(image_ids))

    async with open_lmm(settings, images) as lmm, asyncio.TaskGroup() as group:
        for _ in range(settings.concurrency):
            group.create_task(work(lmm))
    return {image_id: captions[image_id] for image_id in image_ids if image_id in captions}, failed


async def _caption(lmm: LMM, images: ImageSource, image_id: str) -> tuple[str, str | None]:
    """The caption on one line, and what went wrong."""
    from fieldscope.agent.call import ask, image_parts, messages, one_line
    from fieldscope.agent.lmm.base import LMMRequest, TextPart
    from fieldscope.core.errors import ImageError
    from fieldscope.prompts.prompt import load_prompt

    prompt = load_prompt("caption")
    try:
        parts = await image_parts(images, [image_id])
    except ImageError as error:
        return "", one_line(error)
    shown = messages(prompt, *parts, TextPart(text=prompt.render()))
    answer = await ask(lmm, LMMRequest(messages=shown, max_tokens=MAX_TOKENS))
    if answer.response is None:
        return "", answer.error or "no reason given"
    text = " ".join(answer.response.text.split())
    return text, None if text else "the answer is empty"
