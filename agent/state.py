"""The graph's state: what is known about one query so far. Ids only; no pixels, no clients."""

from __future__ import annotations

import operator
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from agent.types import Predicate, RerankResult, TraceEvent, Verdict
from core.types import Candidate, Query


class _State(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RerankInput(_State):
    """What a run of the graph starts from. Without `given` candidates the retriever finds them.

    `top_k` bounds how many take part: retrieved ones (None: as many as the strategy says), or given ones, best prior
    first (None: all).
    """

    query: Query
    given: tuple[Candidate, ...] | None = None
    top_k: int | None = Field(default=None, ge=1)


class RerankState(RerankInput):
    """`candidates` are in the order of their prior; `verdicts` and `trace` grow, in the order in which tasks were sent.

    `started` is the monotonic clock's reading, in seconds, when the query began; `wave` counts the waves sent.
    """

    candidates: tuple[Candidate, ...] = ()
    started: float = 0.0
    wave: int = 0
    predicates: tuple[Predicate, ...] = ()
    verdicts: Annotated[tuple[Verdict, ...], operator.add] = ()
    trace: Annotated[tuple[TraceEvent, ...], operator.add] = ()
    result: RerankResult | None = None


class VerifyTask(_State):
    """One question about one image: all that a verify task can see."""

    predicate: Predicate
    image_id: str
    wave: int
    started: float


class RerankOutput(_State):
    """What a run of the graph ends with."""

    result: RerankResult
