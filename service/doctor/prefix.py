"""Is a picture read once, however many questions follow? (prompt-prefix caching)"""

from __future__ import annotations

from statistics import median

from fieldscope.agent.lmm.base import LMMRequest
from fieldscope.agent.lmm.completion import read_cached_tokens
from fieldscope.agent.lmm.openai import OpenAILMM
from fieldscope.core.errors import FieldscopeError
from fieldscope.service.doctor.asker import Asker
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.pictures import mosaic
from fieldscope.service.doctor.probes import Probe

NAME = "prefix caching"
_PICTURES = 3
_SIDE = 672
_ONCE = "a picture is read once, however many questions follow"
_SLOWER = "every question of an image costs as much as the first: the ranking is the same, and slower"
_FLAGS = "serve with --enable-prefix-caching; short prompts need small blocks (--block-size)"


async def check_prefix(asker: Asker, probe: Probe) -> Finding:
    """Two questions about each of a few new pictures: how many of its tokens does the server find in its cache?

    Where it does not count them the time is shown, and nothing follows from it: a busy machine takes its own time.
    """
    lmm = asker.lmm
    if not isinstance(lmm, OpenAILMM):
        return Finding(NAME, "ok", "the bundled LMM, in this process", _ONCE)
    first_question, second_question = (known.question for known in probe.known[:2])
    firsts, seconds = [], []
    try:
        for _ in range(_PICTURES):
            picture = asker.images.add(mosaic(_SIDE))
            firsts.append(await _measure(asker, lmm, await asker.question(first_question, picture)))
            seconds.append(await _measure(asker, lmm, await asker.question(second_question, picture)))
    except FieldscopeError as error:
        return Finding(NAME, "unknown", str(error), "a new picture of this size could not be asked about")
    counted = [tokens for _, tokens, _ in seconds if tokens is not None]
    if counted:
        gained = int(median(counted)) - int(median(tokens or 0 for _, tokens, _ in firsts))
        whole = int(median(tokens for _, _, tokens in seconds))
        seen = f"the second question finds {max(gained, 0)} more of its {whole} tokens cached than the first"
        if gained > 0:
            return Finding(NAME, "ok", seen, _ONCE)
        return Finding(NAME, "warn", seen, _SLOWER, _FLAGS)
    first, second = (median(taken for taken, *_ in each) for each in (firsts, seconds))
    seen = f"no count; the second question takes {second / first:.0%} of the first one's {1000 * first:.0f} ms"
    meaning = "the time alone does not show whether a picture is kept: it depends on what else the machine does"
    return Finding(NAME, "unknown", seen, meaning, "serve with --enable-prompt-tokens-details, and vLLM counts them")


async def _measure(asker: Asker, lmm: OpenAILMM, request: LMMRequest) -> tuple[float, int | None, int]:
    """Seconds, tokens from the cache where they are counted, and tokens of the whole prompt."""
    asker.calls += 1
    response, body = await lmm.exchange(request)
    return response.latency, read_cached_tokens(body), response.usage.prompt_tokens
