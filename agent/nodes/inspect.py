"""inspect: which closer looks there are at images; `plan` decides which of them are taken."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fieldscope.agent.call import spent
from fieldscope.agent.context import Context
from fieldscope.agent.grounding import ground
from fieldscope.agent.inspection import uninspected
from fieldscope.agent.posterior import believe
from fieldscope.agent.query_text import asked_text
from fieldscope.agent.state import RerankState
from fieldscope.agent.strategies.inspection import Inspect
from fieldscope.agent.types import Call, ProposedLooks
from fieldscope.core.errors import ConfigError
from fieldscope.core.fingerprint import fingerprint
from fieldscope.core.looks import Look, Region
from fieldscope.retrieval.regions import LEAST_GAIN, MOST_SHARED, Proposal, RegionProposer


async def inspect(state: RerankState, context: Context) -> dict[str, Any]:
    """The looks at the images that may be worth one: regions that the model names and that the proposer finds, where
    there is one, and the enhanced picture, where the strategy has it."""
    strategy, resources = context.strategy, context.resources
    settings, verify = strategy.inspect, strategy.verify
    if settings is None or verify is None:
        raise ConfigError(f"strategy {strategy.name!r} has no stage `inspect`; add it to the strategy")
    window = state.widened or verify.top_k or len(state.candidates)
    belief = believe(state, resources, strategy)
    images = uninspected(state, belief, settings, window)
    texts = (asked_text(state.query, state.synthesis),)
    least_gain = 0.0 if belief.calibration.looks or settings.always else LEAST_GAIN
    tiles: Mapping[str, Sequence[Proposal]] = {}
    named: Mapping[str, Sequence[tuple[Region, float]]] = {}
    calls: tuple[Call, ...] = ()
    if settings.regions and (proposer := resources.regions) is not None:
        if settings.ground is not None:
            lmm, at_once = context.model(verify.asks), resources.max_concurrency
            said, calls = await ground(lmm, resources.images, images, texts[0], settings.ground, at_once)
            named = await asyncio.to_thread(_with_gains, said, proposer)
        tiles = await asyncio.to_thread(proposer.propose, texts, images, settings.regions, least_gain)
    boxes = {i: [region for region, gain in own if gain >= least_gain] for i, own in named.items()}
    priors = {candidate.image_id: candidate for candidate in state.candidates}
    proposed = tuple(
        ProposedLooks(
            image_id=image_id,
            looks=tuple(_looks(boxes.get(image_id, ()), tiles.get(image_id, ()), settings)),
            similarity=priors[image_id].prior if priors[image_id].standing is not None else None,
        )
        for image_id in images
    )
    data = {
        "wave": state.wave,
        "images": len(images),
        "proposals": proposals_key(texts, settings.regions, least_gain),
        "regions": {i: [[*_box(each.region), each.similarity] for each in own] for i, own in tiles.items() if own},
    }
    if settings.ground is not None:
        data["named"] = {i: [[*_box(region), gain] for region, gain in own] for i, own in named.items()}
        data |= spent(calls)
    return {"looks": proposed, "calls": calls, "trace": (state.event("inspected", data),)}


def proposals_key(texts: Sequence[str], most: int, least_gain: float) -> str:
    """What was asked of a proposer, of whatever images."""
    return fingerprint({"texts": list(texts), "most": most, "least_gain": least_gain})


def _box(region: Region) -> tuple[float, float, float, float]:
    return region.left, region.top, region.right, region.bottom


def _with_gains(
    named: Mapping[str, Sequence[Region]], proposer: RegionProposer
) -> dict[str, list[tuple[Region, float]]]:
    return {i: [(region, proposer.gain(i, region)) for region in own] for i, own in named.items()}


def _looks(named: Sequence[Region], proposals: Sequence[Proposal], settings: Inspect) -> Iterator[Look]:
    """Each look once: boxes that the model named, then tiles that lie mostly outside of them; of several regions also
    the one that holds them all, since a group of animals fits into none of them. None of an image without any region:
    it has too few pixels for a closer look."""
    boxes = [Look(region=region, proposed_by="model") for region in named]
    tiles = [
        Look(region=each.region, proposed_by="tiles", similarity=each.similarity)
        for each in proposals
        if all(each.region.shared(region) <= MOST_SHARED for region in named)
    ]
    regions = (boxes + tiles)[: settings.regions]
    if settings.regions and not regions:
        return
    yield from regions
    if len(regions) > 1:
        first, *others = (look.region for look in regions if look.region is not None)
        around = first.around(*others)
        if around not in (first, *others):
            yield Look(region=around, proposed_by="around")
    if settings.enhance:
        yield Look(enhance=True)
    if settings.enhance_regions:
        yield from (look.model_copy(update={"enhance": True}) for look in regions)
