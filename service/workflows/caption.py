"""Captions: what the LMM says that each image of an index shows."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import LMMError
from fieldscope.service.wiring.bundled import FOREIGN
from fieldscope.service.wiring.feedback import progress, warn
from fieldscope.service.wiring.interruption import interruptible
from fieldscope.service.wiring.models import load_encoder, open_lmm
from fieldscope.service.wiring.own_pictures import all_fieldnotes
from fieldscope.service.wiring.prompt_pictures import with_examples
from fieldscope.service.wiring.prompts import prompts_for
from fieldscope.service.wiring.roles import require_servers
from fieldscope.service.wiring.settings import Settings

if TYPE_CHECKING:
    from fieldscope.agent.lmm.base import LMM
    from fieldscope.agent.roles import Role
    from fieldscope.core.types import ImageSource
    from fieldscope.prompts.prompt import Prompt
    from fieldscope.retrieval.progress import Report

MAX_TOKENS = 512
"""As a strategy asks about a reference image by default, so that both find one answer in the cache."""


@dataclass(frozen=True)
class Captioned:
    """How many of an index's images have a caption, why the others (by id) have none, and the warnings."""

    images: int
    captioned: int
    failed: Mapping[str, str]
    flags: tuple[str, ...]


def caption_index(folder: Path, settings: Settings) -> Captioned:
    """Write a caption for every image of an index, and keep them with it. Answers of an earlier call are in the cache.

    Raises `IndexMismatchError` for an index of another CLIP, and `LMMError` where no image gets a caption.
    """
    from fieldscope.retrieval.captions import write_captions
    from fieldscope.retrieval.library import open_library

    role: Role = "captioner"
    require_servers(settings, [role])
    settings = settings.of(role)
    encoder = load_encoder(settings)
    library = open_library(folder, encoder)
    images, ids = library.collection, library.ids
    flags = () if (settings.encoder and settings.lmm_url) or all_fieldnotes(images, ids) else (FOREIGN,)
    for flag in flags:
        warn(flag)
    with progress("captioning images") as report:
        work = _caption_images(images, ids, settings, report)
        kept = "captions so far are in the cache; rerun this command to continue"
        captions, failed = interruptible(work, kept)
    if not captions:
        first = next(iter(failed.values()))
        raise LMMError(f"none of {len(ids)} images got a caption (the first: {first}); check the model and its server")
    with progress("encoding captions") as report:
        write_captions(folder, captions, encoder, report)
    return Captioned(len(ids), len(captions), failed, flags)


async def _caption_images(
    images: ImageSource, image_ids: Sequence[str], settings: Settings, report: Report
) -> tuple[dict[str, str], dict[str, str]]:
    captions: dict[str, str] = {}
    failed: dict[str, str] = {}
    waiting = iter(image_ids)
    prompt = prompts_for(settings).load("caption")

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
