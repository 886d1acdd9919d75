"""explain: why the best images match or not, asked after the ranking stands, so that no reason can sway it."""

from __future__ import annotations

import asyncio
import re
from typing import Any, Literal

from fieldscope.agent.call import ask, image_parts, one_line, spent
from fieldscope.agent.context import Context
from fieldscope.agent.lmm.base import LMM, ImagePart
from fieldscope.agent.lmm.yes_no import YES_NO
from fieldscope.agent.nodes.lost import lost_reasons
from fieldscope.agent.query_text import description
from fieldscope.agent.requests import reason_request
from fieldscope.agent.state import RerankState
from fieldscope.agent.strategies.ordering import Explain
from fieldscope.agent.types import Reason, RerankResult, TraceEvent, unknown_flag
from fieldscope.core.errors import ImageError
from fieldscope.core.types import ImageSource

_FIRST_WORD = re.compile(r"\w+")
_SIDES: dict[str, Literal["yes", "no"]] = {"positive": "yes", "negative": "no"}


async def explain(state: RerankState, context: Context) -> dict[str, Any]:
    """The result with reasons for the best images of those with a P(match). A reason that speaks against the ranking's
    verdict changes nothing; the event names its image."""
    result, resources = state.result, context.resources
    if context.strategy.explain is None or result is None:
        return {}
    settings, lmm = context.asking(context.strategy.explain)
    described = description(state.query, state.synthesis)
    judged = {ranked.image_id: ranked.p_match for ranked in result.ranking if ranked.p_match is not None}
    best = list(judged)[: settings.top_k]
    shown = await asyncio.gather(*(_shown(image_id, resources.images) for image_id in best))
    at_once = asyncio.Semaphore(resources.max_concurrency)

    async def reason(image: ImagePart | Reason) -> Reason:
        if isinstance(image, Reason):
            return image
        async with at_once:
            return await ask_reason(lmm, image, judged[image.image_id], described, settings)

    # The images were read before, so that the last calls of a budget go to the best and not to whichever is read first.
    reasons = tuple(await asyncio.gather(*map(reason, shown)))
    data = {
        "images": [reason.image_id for reason in reasons],
        "disagree": [reason.image_id for reason in reasons if reason.agrees is False],
        **spent(reasons),
    }
    event = state.event("explained", data)
    return {"result": _with_reasons(result, reasons, event), "reasons": reasons, "trace": (event,)}


async def _shown(image_id: str, images: ImageSource) -> ImagePart | Reason:
    """The image, or where it can't be read what there is to say of it."""
    try:
        (image,) = await image_parts(images, [image_id])
    except ImageError as error:
        return Reason(image_id=image_id, state="unknown", error=one_line(error))
    return image


async def ask_reason(lmm: LMM, image: ImagePart, p_match: float, description: str, settings: Explain) -> Reason:
    """Ask about one image. Which side the words take is their first word, and nothing further on in them."""
    image_id = image.image_id
    answer = await ask(lmm, reason_request(image, description, settings))
    if answer.response is None:
        return Reason(image_id=image_id, **answer.asked)
    text = " ".join(answer.response.text.split())
    if not text:
        return Reason(image_id=image_id, **answer.asked | {"state": "unknown", "error": "the answer is empty"})
    first = _FIRST_WORD.search(text)
    says = _SIDES.get(YES_NO.side(first[0])) if first else None
    agrees = None if says is None else (says == "yes") == (p_match > 0.5)
    return Reason(image_id=image_id, text=text, says=says, agrees=agrees, **answer.asked)


def _with_reasons(result: RerankResult, reasons: tuple[Reason, ...], event: TraceEvent) -> RerankResult:
    """The count of unanswered calls among the flags takes in the reasons; a budget that ended here is said."""
    explained = result.model_copy(update={"reasons": reasons})
    before, now = unknown_flag(result.asked), unknown_flag(explained.asked)
    flags = (*(flag for flag in result.flags if flag != before), *lost_reasons(reasons), *([now] if now else []))
    cut_short = any(reason.state == "not_asked" for reason in reasons)
    ended = result.ended or ("explain" if cut_short else None)
    return explained.model_copy(update={"trace": (*result.trace, event), "flags": flags, "ended": ended})
