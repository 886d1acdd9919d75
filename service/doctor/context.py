"""Is the model's context large enough for as many pictures as a strategy shows at once?"""

from __future__ import annotations

from collections.abc import Sequence

from fieldscope.agent.strategies.strategy import Strategy
from fieldscope.core.errors import ContextLengthError, LMMError
from fieldscope.core.types import Query
from fieldscope.eval.tuning.estimate import Need, largest_requests
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.wiring.models import probe_server
from fieldscope.service.wiring.prompt_tokens import QUESTION, prompt_tokens, usual_picture
from fieldscope.service.wiring.settings import Settings

NAME = "context"
_QUERY = Query(id="doctor", text="a red circle and a blue square")
_CHANGE = (
    "serve with a larger context (vLLM: --max-model-len), scale images further down (--max-side), or show fewer at "
    "once (compare.mode: pair)"
)


async def check_context(settings: Settings, strategy: Strategy) -> tuple[Sequence[Finding], int]:
    """A finding for each server's model that the strategy shows pictures to, and the calls that it took: one each, with
    as many pictures of usual size as a stage shows at once."""
    needs = [need for need in largest_requests([strategy], [_QUERY]) if need.images]
    models = {
        chosen: roles
        for chosen, roles in settings.by_model({need.role for need in needs}).items()
        if chosen.asks_server
    }
    findings = []
    for chosen, roles in models.items():
        name = NAME if len(models) == 1 else f"{NAME} of {chosen.model}"
        findings.append(await _check(name, chosen, [need for need in needs if need.role in roles]))
    return findings, len(findings)


async def _check(name: str, settings: Settings, needs: Sequence[Need]) -> Finding:
    largest = max(needs, key=lambda need: need.images)
    picture = usual_picture(settings)
    shown = f"{largest.images} images of {picture.width:,} x {picture.height:,} pixels ({largest.stage})"
    meaning = f"the stage {largest.stage!r} of {largest.strategy} fails with the first images of this size"
    try:
        context = await probe_server(settings)
        read = await prompt_tokens(settings, [picture] * largest.images)
    except ContextLengthError as error:
        return Finding(name, "fail", f"{settings.model} can't read {shown}: {error}", meaning, _CHANGE)
    except LMMError as error:
        return Finding(name, "unknown", f"{shown} were not answered: {error}", "the pictures' tokens are not known")
    seen = f"{settings.model} reads {read:,} tokens of {shown}" + (f", of {context:,}" if context else "")
    try:
        for need in needs if context else ():
            need.require(context or 0, (read - len(QUESTION.split())) / largest.images)
    except ContextLengthError as error:
        return Finding(name, "fail", f"{seen}; {error}", meaning, _CHANGE)
    return Finding(name, "ok", seen, "as many images as the strategy shows at once fit into the context")
