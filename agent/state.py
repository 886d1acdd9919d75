"""The graph's state: what is known about one query so far. Ids only; no pixels, no clients."""

from __future__ import annotations

import operator
import time
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from fieldscope.agent.types import (
    Call,
    Comparison,
    ImageScore,
    Predicate,
    ProposedLooks,
    Reason,
    RerankResult,
    Synthesis,
    TraceEvent,
    Verdict,
)
from fieldscope.core.documents import Modality
from fieldscope.core.looks import Look
from fieldscope.core.types import Candidate, Query


class _State(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Begun(_State):
    """`started` is the monotonic clock's reading, in seconds, when the query began."""

    started: float = Field(default_factory=time.monotonic)

    def event(self, kind: str, data: dict[str, Any]) -> TraceEvent:
        """A trace event that happens now."""
        return TraceEvent(kind=kind, at=time.monotonic() - self.started, data=data)


class RerankInput(_Begun):
    """What a run of the graph starts from. Without `given` candidates the retriever finds them.

    `top_k` bounds how many take part: retrieved ones (None: as many as the strategy says), or given ones, best prior
    first (None: all). `fixed` predicates are asked in place of those that the model would derive.
    """

    query: Query
    given: tuple[Candidate, ...] | None = None
    top_k: int | None = Field(default=None, ge=1)
    fixed: tuple[Predicate, ...] = ()


class RerankState(RerankInput):
    """`candidates` are in the order of their prior; what was asked grows in the order in which tasks were sent.
    `first_stage` are the candidates with their first-stage scores, where those of the scorer are the priors.

    `wave` counts the waves of questions and of comparisons; `round` the rounds of refinement, and `fault` is what
    was wrong when the last of them began. `widened` is the window once a round has widened it. `misread` says that part
    of the synthesis is untrue of the reference image, `unread` that it lacks the change. `ended` is the stage in which
    the budget ran out. `looks` are the closer looks that were proposed, once for an image.
    """

    synthesis: Synthesis | None = None
    caption: str = ""
    candidates: tuple[Candidate, ...] = ()
    first_stage: tuple[Candidate, ...] = ()
    predicates: tuple[Predicate, ...] = ()
    wave: int = 0
    round: int = 0
    fault: str = ""
    widened: int | None = None
    misread: bool = False
    unread: bool = False
    ended: str | None = None
    verdicts: Annotated[tuple[Verdict, ...], operator.add] = ()
    comparisons: Annotated[tuple[Comparison, ...], operator.add] = ()
    reasons: Annotated[tuple[Reason, ...], operator.add] = ()
    calls: Annotated[tuple[Call, ...], operator.add] = ()
    scores: Annotated[tuple[ImageScore, ...], operator.add] = ()
    looks: Annotated[tuple[ProposedLooks, ...], operator.add] = ()
    trace: Annotated[tuple[TraceEvent, ...], operator.add] = ()
    result: RerankResult | None = None


class VerifyTask(_Begun):
    """Questions about one image: all that a verify task can see. The first leads, so that a server that caches
    prefixes reads the image once; the others follow together. A `joint` task asks all of them in one call. `query` is
    what is asked for, for prompts that also name it, and `look` how the image is shown (None: as it is). `kind` is what
    the query is made of, and `reference` its own image: for prompts that depend on what the candidate is."""

    query: str = ""
    kind: Modality = "text"
    reference: str | None = None
    predicates: tuple[Predicate, ...]
    image_id: str
    joint: bool = False
    look: Look | None = None
    wave: int


class CompareTask(_Begun):
    """Candidates to show together, in every one of `orders` (image ids in the order of showing)."""

    query: Query
    description: str
    orders: tuple[tuple[str, ...], ...]
    wave: int


@dataclass(frozen=True)
class Next:
    """What a node returns that chooses its successor: the name of the next node, and an update of the state.

    With `tasks` the next node runs once for each of them, on that task alone, and all of them at once.
    """

    node: str
    update: dict[str, Any] = field(default_factory=dict)
    tasks: tuple[VerifyTask | CompareTask, ...] = ()


class RerankOutput(_State):
    """What a run of the graph ends with."""

    result: RerankResult
