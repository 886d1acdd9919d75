"""compare: candidates side by side, in every order of a task. A failed call is unknown, and favours no image."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fieldscope.agent.call import Answer, ask, image_parts, one_line
from fieldscope.agent.context import Context
from fieldscope.agent.lmm.base import LMM, ImagePart, TokenLogprob
from fieldscope.agent.lmm.choice import choose
from fieldscope.agent.lmm.plain_answer import plain_letter, plain_yes_no, smoothed
from fieldscope.agent.lmm.yes_no import p_yes
from fieldscope.agent.requests import which_is_best
from fieldscope.agent.state import CompareTask
from fieldscope.agent.strategies.ordering import Compare
from fieldscope.agent.types import Comparison
from fieldscope.agent.verdicts import one_line_of
from fieldscope.core.errors import ImageError


async def judge_order(
    lmm: LMM, shown: Sequence[ImagePart], reference: ImagePart | None, description: str, settings: Compare
) -> Comparison:
    """Ask, and read P(best) of each that is shown (of a single one P(yes)). A call that fails and an answer that can't
    be read are unknown."""
    answer = await ask(lmm, which_is_best(shown, reference, description, settings))
    return comparison_of(answer, tuple(image.image_id for image in shown), settings.reading)


def comparison_of(
    answer: Answer, shown: tuple[str, ...], mode: Literal["logprobs", "samples"] = "logprobs"
) -> Comparison:
    """What an answer says about the images (ids) that were shown."""
    known: dict[str, Any] = {"shown": shown, "mode": mode, **answer.asked}
    if answer.response is None:
        return Comparison(**known)
    known["answer"] = answer.response.text
    if mode == "logprobs":
        probabilities, reason = _read(answer.response.answer_logprobs, len(shown))
    else:
        probabilities, reason = _read_choice(answer.response.text, len(shown))
    if not probabilities:
        return Comparison(**known | {"state": "unknown", "error": reason})
    return Comparison(**known, probabilities=probabilities)


async def compare(task: CompareTask, context: Context) -> dict[str, Any]:
    """One task of a wave: a comparison for each order, and its event."""
    settings, lmm = context.asking(context.strategy.compare)
    images = context.resources.images
    candidates = sorted({image_id for order in task.orders for image_id in order})
    reference_id = task.query.reference_image
    try:
        loaded = await image_parts(images, candidates)
        reference = (await image_parts(images, [reference_id]))[0] if reference_id is not None else None
    except ImageError as error:
        return failed(task, one_line(error))
    parts: Mapping[str, ImagePart] = dict(zip(candidates, loaded, strict=True))

    async def judge(order: Sequence[str]) -> Comparison:
        return await judge_order(lmm, [parts[i] for i in order], reference, task.description, settings)

    lead, *rest = task.orders
    return _update(task, [await judge(lead), *await asyncio.gather(*(judge(order) for order in rest))])


def failed(task: CompareTask, error: str) -> dict[str, Any]:
    """The update of a task that failed as a whole: its comparisons are unknown."""
    return _update(task, [Comparison(shown=order, state="unknown", error=error) for order in task.orders])


def _read(logprobs: Sequence[TokenLogprob], shown: int) -> tuple[tuple[float, ...], str | None]:
    if shown == 1:
        read = p_yes(logprobs)
        return () if read.p_yes is None else (read.p_yes,), read.reason
    choice = choose(logprobs, shown)
    return choice.probabilities, choice.reason


def _read_choice(text: str, shown: int) -> tuple[tuple[float, ...], str | None]:
    """One plain choice, smoothed: of two images the chosen one is the best with probability 3/4."""
    if shown == 1:
        said = plain_yes_no(text)
        place = None if said is None else ("yes", "no").index(said)
    else:
        place = plain_letter(text, shown)
    if place is None:
        return (), f"the answer names none of the choices: {one_line_of(text)!r}; reword the prompt"
    shares = smoothed([int(choice == place) for choice in range(max(shown, 2))])
    return (shares if shown > 1 else shares[:1]), None


def _update(task: CompareTask, comparisons: Sequence[Comparison]) -> dict[str, Any]:
    data = {
        "wave": task.wave,
        "shown": list(task.orders[0]),
        "states": dict(Counter(comparison.state for comparison in comparisons)),
        "cached": sum(comparison.cached for comparison in comparisons),
        "tokens": sum(comparison.prompt_tokens + comparison.completion_tokens for comparison in comparisons),
        "request_keys": [comparison.request_key for comparison in comparisons],
    }
    event = task.event("compared", data)
    return {"comparisons": tuple(comparisons), "trace": (event,)}
