"""Does the server read an image once for all questions about it (prompt-prefix caching)?"""

from __future__ import annotations

from statistics import median
from typing import Protocol, runtime_checkable

from fieldscope.agent.lmm.base import LMM, LMMRequest
from fieldscope.agent.lmm.completion import read_cached_tokens
from fieldscope.agent.lmm.openai import OpenAILMM
from fieldscope.core.errors import FieldscopeError
from fieldscope.service.doctor.asker import Asker
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.images import mosaic
from fieldscope.service.doctor.probes import Probe

NAME = "prefix caching"
_PICTURES = 3
_SIDE = 672
_ONCE = "an image is read once for all questions about it"
_SLOWER = "every question about an image costs as much as the first; the ranking is the same, but slower"
_FLAGS = "serve with --enable-prefix-caching, and with small blocks (--block-size) if prompts are short"


@runtime_checkable
class ReadsImages(Protocol):
    """An LMM in this process that says how it reads the images of several questions."""

    @property
    def reads_images_once(self) -> bool: ...


async def check_prefix(asker: Asker, probe: Probe) -> Finding:
    """Ask two questions about each of a few new images, and read how many tokens the server found in its cache.

    If the server does not count them, the time is shown but decides nothing, because the machine may be busy.
    """
    lmm = asker.lmm
    if not isinstance(lmm, OpenAILMM):
        return _in_process(lmm)
    first_question, second_question = (known.question for known in probe.known[:2])
    firsts, seconds = [], []
    try:
        for _ in range(_PICTURES):
            image = asker.images.add(mosaic(_SIDE))
            firsts.append(await _measure(asker, lmm, await asker.question(first_question, image)))
            seconds.append(await _measure(asker, lmm, await asker.question(second_question, image)))
    except FieldscopeError as error:
        return Finding(NAME, "unknown", str(error), "no question about a new image of this size was answered")
    counted = [tokens for _, tokens, _ in seconds if tokens is not None]
    if counted:
        gained = int(median(counted)) - int(median(tokens or 0 for _, tokens, _ in firsts))
        whole = int(median(tokens for _, _, tokens in seconds))
        seen = f"of {whole} tokens, {max(gained, 0)} more are cached for the second question than for the first"
        if gained > 0:
            return Finding(NAME, "ok", seen, _ONCE)
        return Finding(NAME, "warn", seen, _SLOWER, _FLAGS)
    first, second = (median(taken for taken, *_ in each) for each in (firsts, seconds))
    seen = "the server does not count cached tokens; the second question takes "
    seen += f"{second / first:.0%} of the first one's {1000 * first:.0f} ms"
    meaning = "the time alone does not show whether the image is cached, because it depends on the machine's load"
    return Finding(
        NAME, "unknown", seen, meaning, "serve with --enable-prompt-tokens-details, so that vLLM counts cached tokens"
    )


def _in_process(lmm: LMM) -> Finding:
    if not isinstance(lmm, ReadsImages):
        return Finding(
            NAME, "unknown", "the model runs in this process", "its back end does not say how it reads images"
        )
    if lmm.reads_images_once:
        return Finding(NAME, "ok", "the model runs in this process", _ONCE)
    seen = "the model runs in this process, which reads the images of its family again for every question"
    return Finding(NAME, "warn", seen, _SLOWER, "serve the model with vLLM, which reads an image once")


async def _measure(asker: Asker, lmm: OpenAILMM, request: LMMRequest) -> tuple[float, int | None, int]:
    """Seconds, tokens from the cache where they are counted, and tokens of the whole prompt."""
    asker.calls += 1
    response, body = await lmm.exchange(request)
    return response.latency, read_cached_tokens(body), response.usage.prompt_tokens
