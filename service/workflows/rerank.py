"""One query over candidates, from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from fieldscope.core.errors import LMMError
from fieldscope.service.wiring.calibrations import find_calibration
from fieldscope.service.wiring.feedback import warn
from fieldscope.service.wiring.interruption import interruptible
from fieldscope.service.wiring.models import open_lmm
from fieldscope.service.wiring.settings import Settings

if TYPE_CHECKING:
    from fieldscope.agent.budget import Budget
    from fieldscope.agent.resources import Retriever
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.agent.types import RerankResult
    from fieldscope.core.types import Candidate, ImageSource, Query


def rerank_once(
    query: Query,
    candidates: Sequence[Candidate] | None,
    images: ImageSource,
    strategy: Strategy,
    settings: Settings,
    flags: Sequence[str] = (),
    budget: Budget | None = None,
    encoder: str | None = None,
    retriever: Retriever | None = None,
    top_k: int | None = None,
) -> RerankResult:
    """The candidates reranked under a strategy, with the bundled LMM or the settings' server where it asks one.

    Where none are given the `retriever` finds them, at first `top_k` (None: as many as the strategy says), by whatever
    the strategy thinks out. `encoder` is the fingerprint of the CLIP that their priors come from, if any did.
    """

    async def work() -> RerankResult:
        from fieldscope.agent.graph import Agent
        from fieldscope.agent.resources import Resources

        async with AsyncExitStack() as stack:
            lmm = await stack.enter_async_context(open_lmm(settings, images)) if strategy.prompts else None
            calibration = find_calibration(lmm.identity if lmm else None, strategy, encoder)
            deps = Resources(images, lmm, retriever, settings.concurrency, calibration, tuple(flags))
            return await Agent(deps, strategy).rerank(query, candidates, top_k, budget)

    return interruptible(work(), "answers so far are in the cache, and the same command finds them there")


def warn_of_end(result: RerankResult) -> None:
    """Say where a budget ended the work."""
    if result.ended:
        warn(f"the budget ended the work in the stage {result.ended!r}; the ranking stands on what was known by then")


def require_verdicts(result: RerankResult) -> None:
    """Raise `LMMError` where the model was asked about candidates and said nothing at all of them: the ranking is the
    prior's then."""
    asked = [each for each in (*result.verdicts, *result.comparisons) if each.state != "not_asked"]
    if asked and all(each.state == "unknown" for each in asked):
        raise LMMError(
            f"none of {len(asked)} questions about the images got an answer ({asked[0].error}), so this is the first "
            "stage's order; mend the model or its server and give the same command again"
        )
