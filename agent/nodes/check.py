"""check: is what was thought out of a reference image true of it?

A composed request is read from a caption of its reference image, and what the caption gets wrong would be asked of
every candidate. But to judge is easier than to describe: so each predicate is first asked about the reference image
itself. One that comes from the reference must hold there; the change must not. Where the reference shows all of it even
after another thought, the change was not read: answers would favour images like the reference, and none are asked for.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fieldscope.agent.call import image_parts, one_line, spent
from fieldscope.agent.context import Context
from fieldscope.agent.nodes.assess import fault_text
from fieldscope.agent.nodes.verify import judge
from fieldscope.agent.query_text import asked_text, own_words
from fieldscope.agent.state import Next, RerankState
from fieldscope.agent.types import Asked, Call, Draw, Predicate, Verdict
from fieldscope.core.errors import ImageError
from fieldscope.core.types import Query


async def check(state: RerankState, context: Context) -> Next:
    """Leave out what the reference image contradicts, and think again where it shows everything already; where no round
    is left for that, ask nothing of the candidates. Other requests pass; where nothing can be asked about the reference
    image, everything stays."""
    strategy = context.strategy
    settings, lmm = context.asking(strategy.verify)
    lmm = context.model(strategy.check.asks) if strategy.check else lmm
    if state.query.reference_image is None or not state.predicates:
        return Next("plan")
    settings = settings.about(asked_text(state.query, state.synthesis))
    parts = [predicate for predicate in state.predicates if predicate.kind != "query"]
    try:
        (image,) = await image_parts(context.resources.images, [state.query.reference_image])
    except ImageError as error:
        return Next("plan", {"trace": (state.event("checked", {"round": state.round, "error": one_line(error)}),)})
    verdicts = await asyncio.gather(*(judge(lmm, predicate, [image], settings) for predicate in parts))
    calls = tuple(
        _call(predicate, asked)
        for predicate, verdict in zip(parts, verdicts, strict=True)
        for asked in verdict.draws or (verdict,)
    )
    holds = {verdict.predicate: verdict.p_expected for verdict in verdicts if verdict.p_expected is not None}
    untrue = [p for p in parts if holds.get(p.id, 1.0) < 0.5 and not _of_the_change(p, state.query)]
    unchanged = len(holds) == len(parts) > 0 and min(holds.values()) >= 0.5
    again = unchanged and state.round < (strategy.refine.rounds if strategy.refine else 0)
    unread = unchanged and not again and not state.fixed
    said = {
        "round": state.round,
        "holds": {name: round(p, 4) for name, p in holds.items()},
        "left_out": [predicate.question for predicate in untrue],
        "unchanged": unchanged,
        "again": again,
        **spent(calls),
    }
    update: dict[str, Any] = {
        "predicates": tuple(p for p in state.predicates if p not in untrue),
        "misread": state.misread or bool(untrue),
        "unread": unread,
        "calls": calls,
        "trace": (state.event("checked", said),),
    }
    if again:
        update |= {"round": state.round + 1, "fault": fault_text("unchanged", strategy)}
    return Next("synthesize" if again else "assess" if unread else "plan", update)


def _of_the_change(predicate: Predicate, query: Query) -> bool:
    """Whether a predicate comes from the change, as the request words it, or has no known origin."""
    return not predicate.words or bool(own_words(predicate.words, query))


def _call(predicate: Predicate, said: Verdict | Draw) -> Call:
    asked = said.model_dump(include=set(Asked.model_fields))
    return Call(stage="check", text=f"{predicate.question} {said.answer}".strip(), **asked)
