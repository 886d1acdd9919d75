"""What the agent says: predicates, verdicts, and a ranking with its reasons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Predicate(_Record):
    """A yes/no question with the answer that a match must give (ImageScope's atomic proposition, arXiv 2503.10166).

    `kind` is `query` for the whole query at once, else the attribute asked about; `words` are the query's own words.
    """

    id: str
    question: str
    expected: Literal["yes", "no"] = "yes"
    kind: str = "query"
    words: str = ""


class Verdict(_Record):
    """What the model said about one predicate on one image.

    `state` is `answered`, `unknown` (the call failed, or its answer could not be read; `error` says why) or
    `not_asked`. `p_yes` and `p_expected` lie strictly between 0 and 1 and are None unless answered.
    """

    predicate: str
    image_id: str
    state: Literal["answered", "unknown", "not_asked"]
    p_yes: float | None = None
    p_expected: float | None = None
    answer: str = ""
    error: str | None = None
    request_key: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    latency: float = 0.0
    cached: bool = False


def unknown_flag(verdicts: Sequence[Verdict]) -> str | None:
    """The warning of a result some of whose questions got no answer; None where all that were asked did."""
    unknown = sum(verdict.state == "unknown" for verdict in verdicts)
    asked = sum(verdict.state != "not_asked" for verdict in verdicts)
    return f"{unknown} of {asked} verdicts are unknown" if unknown else None


class RankedCandidate(_Record):
    """An image at its rank (1 is best), with the score that put it there and what the score is made of.

    `score` is what the ranking is sorted by; no two are equal. `p_match` is the probability of a match where
    the strategy claims one. `prior_rank` is its rank before.
    """

    image_id: str
    rank: int = Field(ge=1)
    score: float
    prior: float
    prior_rank: int = Field(ge=1)
    p_match: float | None = None


class TraceEvent(_Record):
    """One thing that happened on the way to a ranking. `at` is seconds since the query began."""

    kind: str
    at: float
    data: dict[str, Any] = Field(default_factory=dict)


class RerankResult(_Record):
    """A ranking and everything that led to it. `flags` are plain warnings, e.g. that the bundled models were used
    on foreign images."""

    query_id: str
    query_text: str
    strategy: str
    ranking: tuple[RankedCandidate, ...]
    predicates: tuple[Predicate, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    trace: tuple[TraceEvent, ...] = ()
    flags: tuple[str, ...] = ()
