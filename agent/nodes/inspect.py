"""inspect: which closer looks there are at images; `plan` decides which of them are taken."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fieldscope.agent.closer_looks import OF_ALL_SUBJECTS
from fieldscope.agent.context import Context
from fieldscope.agent.inspection import uninspected
from fieldscope.agent.posterior import believe
from fieldscope.agent.query_text import asked_text
from fieldscope.agent.state import RerankState
from fieldscope.agent.strategies.inspection import Inspect
from fieldscope.agent.types import ProposedLooks
from fieldscope.core.errors import ConfigError
from fieldscope.core.fingerprint import fingerprint
from fieldscope.core.looks import Look, Region
from fieldscope.retrieval.regions import LEAST_GAIN, Proposal


async def inspect(state: RerankState, context: Context) -> dict[str, Any]:
    """The looks at the images that may be worth one: regions from the proposer, where there is one, and the enhanced
    picture, where the strategy has it."""
    strategy, resources = context.strategy, context.resources
    settings, verify = strategy.inspect, strategy.verify
    if settings is None or verify is None:
        raise ConfigError(f"strategy {strategy.name!r} has no stage `inspect`; add it to the strategy")
    window = state.widened or verify.top_k or len(state.candidates)
    belief = believe(state, resources, strategy)
    images = uninspected(state, belief, settings, window)
    texts = (asked_text(state.query, state.synthesis),)
    least_gain = 0.0 if belief.calibration.looks or settings.always else LEAST_GAIN
    regions: Mapping[str, Sequence[Proposal]] = {}
    if settings.regions and resources.regions is not None:
        regions = await asyncio.to_thread(resources.regions.propose, texts, images, settings.regions, least_gain)
    holds_all = any(predicate.kind in OF_ALL_SUBJECTS for predicate in state.predicates) and not any(
        predicate.kind == "query" for predicate in state.predicates
    )
    priors = {candidate.image_id: candidate for candidate in state.candidates}
    proposed = tuple(
        ProposedLooks(
            image_id=image_id,
            looks=tuple(_looks(regions.get(image_id, ()), settings, holds_all)),
            similarity=priors[image_id].prior if priors[image_id].standing is not None else None,
        )
        for image_id in images
    )
    data = {
        "wave": state.wave,
        "images": len(images),
        "proposals": proposals_key(texts, settings.regions, least_gain),
        "regions": {i: [[*_box(each.region), each.similarity] for each in own] for i, own in regions.items() if own},
    }
    return {"looks": proposed, "trace": (state.event("inspected", data),)}


def proposals_key(texts: Sequence[str], most: int, least_gain: float) -> str:
    """What was asked of a proposer, of whatever images."""
    return fingerprint({"texts": list(texts), "most": most, "least_gain": least_gain})


def _box(region: Region) -> tuple[float, float, float, float]:
    return region.left, region.top, region.right, region.bottom


def _looks(proposals: Sequence[Proposal], settings: Inspect, holds_all: bool) -> Iterator[Look]:
    """Each look once; where a question is about all subjects, the region that holds all of them among them."""
    regions = [Look(region=each.region, proposed_by="tiles", similarity=each.similarity) for each in proposals]
    if holds_all and len(proposals) > 1:
        first, *others = (each.region for each in proposals)
        around = first.around(*others)
        if all(around != each.region for each in proposals):
            regions.append(Look(region=around, proposed_by="tiles"))
    yield from regions
    if settings.enhance:
        yield Look(enhance=True)
    if settings.enhance_regions:
        yield from (look.model_copy(update={"enhance": True}) for look in regions)
