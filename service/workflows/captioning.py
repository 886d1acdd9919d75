"""Images captioned by the LMM, in this process or by a cluster's workers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fieldscope.retrieval.opening import reopen_collection
from fieldscope.service.wiring.cluster import Block, Cluster, Done
from fieldscope.service.wiring.models import open_lmm
from fieldscope.service.wiring.prompt_pictures import with_examples
from fieldscope.service.wiring.settings import Settings

if TYPE_CHECKING:
    from fieldscope.agent.lmm.base import LMM
    from fieldscope.core.types import ImageSource
    from fieldscope.prompts.prompt import Prompt
    from fieldscope.retrieval.collection import Collection
    from fieldscope.retrieval.progress import Report

MAX_TOKENS = 512
"""As a strategy asks about a reference image by default, so that both find one answer in the cache."""

Captions = tuple[dict[str, str], dict[str, str]]
"""Captions by image, and why other images have none."""


async def caption_images(
    images: ImageSource, image_ids: Sequence[str], prompt: Prompt, settings: Settings, report: Report
) -> Captions:
    """Ask for a caption of each of these images, as many at once as the settings allow."""
    captions: dict[str, str] = {}
    failed: dict[str, str] = {}
    waiting = iter(image_ids)

    async def work(lmm: LMM) -> None:
        for image_id in waiting:
            text, error = await _caption(lmm, images, image_id, prompt)
            if error is None:
                captions[image_id] = text
            else:
                failed[image_id] = error
            report(len(captions) + len(failed), len(image_ids))

    async with open_lmm(settings, with_examples(images, [prompt])) as lmm, asyncio.TaskGroup() as group:
        for _ in range(settings.concurrency):
            group.create_task(work(lmm))
    return {image_id: captions[image_id] for image_id in image_ids if image_id in captions}, failed


async def _caption(lmm: LMM, images: ImageSource, image_id: str, prompt: Prompt) -> tuple[str, str | None]:
    """The caption on one line, and what went wrong."""
    from fieldscope.agent.call import ask, image_parts, messages, one_line
    from fieldscope.agent.lmm.base import LMMRequest, TextPart
    from fieldscope.core.errors import ImageError

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


class CaptionWorker:
    """The captions of images, on a cluster's worker."""

    def __init__(self, locator: Mapping[str, Any], settings: Settings, prompt: Prompt) -> None:
        self._images, self._settings, self._prompt = reopen_collection(locator), settings, prompt

    def __call__(self, block: Block) -> Iterator[Done]:
        work = caption_images(self._images, block, self._prompt, self._settings, lambda *_: None)
        captions, failed = asyncio.run(work)
        yield from (Done(image_id, text.encode()) for image_id, text in captions.items())
        yield from (Done(image_id, None, why) for image_id, why in failed.items())


def captions_on(
    cluster: Cluster, images: Collection, image_ids: Sequence[str], prompt: Prompt, settings: Settings, report: Report
) -> Captions:
    """The same by a cluster's workers, whose settings these are."""
    captions: dict[str, str] = {}
    failed: dict[str, str] = {}
    for block in cluster.each_block(image_ids, CaptionWorker, images.locator(), settings, prompt):
        captions |= {done.image_id: done.data.decode() for done in block if done.data is not None}
        failed |= {done.image_id: done.why for done in block if done.data is None}
        report(len(captions) + len(failed), len(image_ids))
    return {image_id: captions[image_id] for image_id in image_ids if image_id in captions}, failed
