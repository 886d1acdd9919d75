"""pair: which candidates to compare next. It sends one wave of comparisons, sees what came of it, and chooses again."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from fieldscope.agent.agreement import agreement_order
from fieldscope.agent.calibration import UNCALIBRATED
from fieldscope.agent.context import Context
from fieldscope.agent.query_text import comparison_text, last_asked, plain_words
from fieldscope.agent.resources import Resources
from fieldscope.agent.scheduling import WAVE, compared_head, doubts, expected_gains, next_groups
from fieldscope.agent.state import CompareTask, Next, RerankState
from fieldscope.agent.strategies.ordering import Compare
from fieldscope.agent.strategies.strategy import Strategy
from fieldscope.agent.types import Comparison, Synthesis
from fieldscope.core.errors import ConfigError
from fieldscope.core.types import Query

Orders = tuple[tuple[str, ...], ...]

_SILENT = 4  # showings without any answer after which an image is no longer compared


def pair(state: RerankState, context: Context) -> Next:
    """Send the next wave, or say why there is none and go on to rank."""
    strategy, resources = context.strategy, context.resources
    settings = strategy.compare
    if settings is None:
        raise ConfigError(f"strategy {strategy.name!r} has no stage `compare`; add it to the strategy")
    left = settings.max_calls - sum(comparison.state != "not_asked" for comparison in state.comparisons)
    wave: list[Orders] = []
    why: dict[str, Any]
    if cut_off := next((c.error for c in state.comparisons if c.state == "not_asked"), None):
        why = {"stopped": cut_off}
    elif settings.mode == "walk":
        wave, why = walk(state, strategy, left, settings)
    elif (resources.calibration or UNCALIBRATED).comparison_weight == 0.0:
        why = {"stopped": "comparisons are off: this model's calibration shows no benefit"}
    else:
        # A group that can't be paid for in full is begun all the same, but alone: its second order then records that
        # the budget ended, and no other task can take the last call first.
        shown = settings.set_size if settings.mode == "set" else 2
        kind = (shown + (state.query.reference_image is not None), settings.answer_tokens)
        affordable = max(1, math.floor(min(context.account.calls_left(kind), 2 * WAVE) / 2))
        wave, why = contests(state, resources, strategy, min(left // 2, affordable), settings)
    if (refused := context.account.empty()) or not wave:
        unasked = [Comparison(shown=order, state="not_asked", error=refused) for orders in wave[:1] for order in orders]
        said = {"wave": state.wave, **({"stopped": refused} if wave else why)}
        return Next("rank", {"comparisons": tuple(unasked), "trace": (state.event("paired", said),)})
    description = compared_text(state.query, state.synthesis, strategy)
    tasks = [
        CompareTask(
            query=state.query, description=description, orders=orders, wave=state.wave + 1, started=state.started
        )
        for orders in wave
    ]
    said = {"wave": state.wave + 1, "calls": sum(len(orders) for orders in wave), **why}
    update: dict[str, Any] = {"wave": state.wave + 1, "trace": (state.event("paired", said),)}
    return Next("compare", update, tuple(tasks))


def compared_text(query: Query, synthesis: Synthesis | None, strategy: Strategy) -> str:
    """The query as the strategy's comparisons word it."""
    if strategy.compare is not None and strategy.compare.query is not None:
        return plain_words(last_asked(query, strategy.by_turns))
    return comparison_text(query, synthesis)


def contests(
    state: RerankState, resources: Resources, strategy: Strategy, most: int, settings: Compare
) -> tuple[list[Orders], dict[str, Any]]:
    """At most `most` groups of the head to compare next, each in two orders, and the uncertainty that led to them; or
    no group, and why."""
    belief, head, compared = compared_head(state, resources, strategy)
    if compared is None or len(head) < 2:
        return [], {"stopped": "there are fewer than two candidates to compare"}
    if most < 1:
        return [], {"stopped": f"the strategy allows {settings.max_calls} comparisons, and all are used"}
    ids = [belief.candidates[index].image_id for index in head]
    gains = expected_gains(compared, (resources.calibration or UNCALIBRATED).comparison_weight)
    silent = [at for at, image_id in enumerate(ids) if image_id in _silent(state.comparisons)]
    gains[silent] = gains[:, silent] = 0.0
    place = {image_id: at for at, image_id in enumerate(ids)}
    done = {frozenset(place.get(image_id, -1) for image_id in comparison.shown) for comparison in state.comparisons}
    size = 2 if settings.mode == "pair" else settings.set_size
    groups = next_groups(gains, done, size=size, most=most, stop_below=settings.stop_below)
    if not groups:
        return [], {"stopped": "no order that matters is still uncertain"}
    doubt = doubts(compared)
    chosen = [
        {
            "images": [ids[at] for at in group],
            "gain": round(float(gains[np.ix_(group, group)].max()), 4),
            "doubt": round(float(doubt[np.ix_(group, group)].max()), 4),
        }
        for group in groups
    ]
    shown = [tuple(ids[at] for at in group) for group in groups]
    return [(order, order[::-1]) for order in shown], {"compared": chosen}


def walk(state: RerankState, strategy: Strategy, left: int, settings: Compare) -> tuple[list[Orders], dict[str, Any]]:
    """ImageScope's final evaluation (arXiv 2503.10166): the next image down the ranking, until the first yes."""
    seen = {comparison.shown: comparison for comparison in state.comparisons}
    if yes := next((shown[0] for shown, said in seen.items() if said.probabilities[:1] > (0.5,)), None):
        return [], {"stopped": "a candidate matches as a whole", "image_id": yes}
    window = strategy.verify.top_k if strategy.verify else None
    head = agreement_order(state, window)[: settings.top_k]
    remaining = [image_id for image_id in head if (image_id,) not in seen]
    if not remaining:
        return [], {"stopped": f"none of the best {len(head)} matches as a whole"}
    if left < 1:
        return [], {"stopped": f"the strategy allows {settings.max_calls} comparisons, and all are used"}
    return [((remaining[0],),)], {"rank": head.index(remaining[0]) + 1, "image_id": remaining[0]}


def _silent(comparisons: Sequence[Comparison]) -> set[str]:
    """Images without any answer, however often they were shown."""
    failed = Counter(image_id for c in comparisons if c.state == "unknown" for image_id in c.shown)
    answered = {image_id for c in comparisons if c.state == "answered" for image_id in c.shown}
    return {image_id for image_id, times in failed.items() if times >= _SILENT and image_id not in answered}
