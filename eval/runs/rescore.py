"""A finished run ranked again, without the graph: with other weights, another calibration, another reading of answers.

The questions stay those of the run. A strategy that asks others needs a replay (`replay.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fieldscope.agent.budget import Account, Budget
from fieldscope.agent.calibration import UNCALIBRATED
from fieldscope.agent.call import Answer
from fieldscope.agent.context import Context
from fieldscope.agent.lmm.base import LMMResponse
from fieldscope.agent.nodes.compare import comparison_of
from fieldscope.agent.nodes.rank import rank
from fieldscope.agent.resources import Resources
from fieldscope.agent.scoring import read_again
from fieldscope.agent.state import RerankState
from fieldscope.agent.strategies.strategy import Strategy
from fieldscope.agent.strategies.verification import Mode
from fieldscope.agent.types import Asked, Comparison, Draw, Predicate, RerankResult, TraceEvent, Verdict
from fieldscope.agent.verdicts import read_draw, verdict_of
from fieldscope.core.errors import CacheError, ConfigError
from fieldscope.core.types import Candidate, Query

Responses = Callable[[str], str | None]
"""From a request's key to the JSON of its response, None where there is none."""

_LATER = ("ranked", "explained")


def require_same_questions(strategy: Strategy, prompts: Mapping[str, str], folder: Path) -> None:
    """Raise `ConfigError` unless all of a strategy's prompts are among those of a run (name to fingerprint)."""
    asked = set(prompts.values())
    if foreign := [prompt.name for prompt in strategy.prompts if prompt.fingerprint not in asked]:
        raise ConfigError(
            f"strategy {strategy.name!r} asks with the prompt {foreign[0]!r}, and the run in {folder} did not. "
            "Run it with `fieldscope eval`, or with --replay where its calls are recorded."
        )


def require_same_scores(strategy: Strategy, recorded: Strategy, folder: Path) -> None:
    """Raise `ConfigError` for a strategy that uses scores of a scoring model that the run of the `recorded` one does
    not have, or has as its prior."""
    own, run = strategy.score, recorded.score
    lacks = own is not None and (
        run is None or own.instruction != run.instruction or (own.predicates and not run.predicates)
    )
    if lacks or (strategy.retrieve.prior == "scorer") != (recorded.retrieve.prior == "scorer"):
        raise ConfigError(
            f"strategy {strategy.name!r} uses other scores of the scoring model than the run in {folder}. Run it with "
            "`fieldscope eval --scorer`."
        )


class Rescorer:
    """A `Reranker` that asks nothing: it ranks a run's queries again, from their verdicts and comparisons.

    Verdicts on the whole query count where the strategy asks for them, others where it asks predicates; comparisons
    where it compares. With `responses` the answers are read again, as a new version may read them otherwise.
    """

    account: Account | None = None

    def __init__(
        self,
        strategy: Strategy,
        results: Mapping[str, RerankResult],
        resources: Resources,
        responses: Responses | None = None,
    ) -> None:
        self.strategy = strategy
        self._results = results
        self._resources = resources
        self._responses = responses

    async def rerank(
        self, query: Query, candidates: Sequence[Candidate] | None = None, *, budget: Budget | None = None
    ) -> RerankResult:
        """Candidates and budget are those of the run. Raises `CacheError` where a response is missing."""
        before = self._results[query.id]
        result: RerankResult = rank(self._state(query, before), Context(self._resources, self.strategy))["result"]
        reasons = before.reasons if self.strategy.explain else ()
        return result.model_copy(update={"reasons": reasons})

    def _state(self, query: Query, before: RerankResult) -> RerankState:
        """Where the query stood before its ranking. Nothing in it is checked again: it was when it was read."""
        strategy = self.strategy
        predicates = {p.id: p for p in before.predicates if self._asks(p)}
        # The ranking adds the questions that were never sent; those that a budget refused have an error.
        verdicts = [
            verdict
            for verdict in before.verdicts
            if (verdict.state != "not_asked" or (verdict.error and before.ended))
            and (verdict.look is None or strategy.inspect is not None)
            and (verdict.predicate in predicates or (strategy.verify is not None and strategy.verify.by_predicates))
        ]
        comparisons = before.comparisons if strategy.compare else ()
        calibration = self._resources.calibration or UNCALIBRATED
        verdicts = list(read_again(verdicts, tuple(predicates.values()), before.scores, calibration))
        if self._responses is not None:
            verdicts = [self._read(verdict, predicates.get(verdict.predicate)) for verdict in verdicts]
            comparisons = tuple(map(self._read_comparison, comparisons))
        by_prior = sorted(before.ranking, key=attrgetter("prior_rank"))
        return RerankState.model_construct(
            started=time.monotonic(),
            query=query,
            candidates=tuple([ranked.candidate for ranked in by_prior]),
            synthesis=before.synthesis,
            predicates=tuple(predicates.values()),
            verdicts=tuple(verdicts),
            comparisons=comparisons,
            calls=before.calls if strategy.prompts else (),
            scores=before.scores if strategy.score else (),
            trace=tuple(
                [
                    self._restarted(event) if event.kind == "started" else event
                    for event in before.trace
                    if event.kind not in _LATER
                ]
            ),
            ended=before.ended,
        )

    def _asks(self, predicate: Predicate) -> bool:
        """Whether the strategy has this question. Not all that is of the kind `query` is asked beside the predicates:
        where no instruction could be had, it stands in for them, under an id like theirs."""
        verify = self.strategy.verify
        if verify is None:
            return False
        beside = predicate.id.partition("-")[0] == "query"
        return verify.whole_query is not None if beside else verify.by_predicates

    def _restarted(self, event: TraceEvent) -> TraceEvent:
        """The run's first event, as of this strategy."""
        rescored = {"rescored": event.data.get("strategy_fingerprint")}
        return event.model_copy(update={"data": {**event.data, **self._own, **rescored}})

    @cached_property
    def _own(self) -> Mapping[str, Any]:
        """What the first event says of this strategy."""
        fitted = self._resources.calibration
        return {
            "strategy": self.strategy.name,
            "strategy_fingerprint": self.strategy.fingerprint,
            "prompts": {prompt.name: prompt.fingerprint for prompt in self.strategy.prompts},
            "calibrated": fitted is not None and fitted.key is not None,
        }

    def _read(self, verdict: Verdict, predicate: Predicate | None) -> Verdict:
        if verdict.joint or verdict.mode == "scored" or predicate is None:
            return verdict
        mode = verdict.mode or "logprobs"
        if verdict.draws:
            draws = [self._read_draw(draw, predicate, mode) for draw in verdict.draws]
        else:
            answer = self._answer(verdict)
            if answer is None:
                return verdict
            draws = [read_draw(answer, mode)]
        again = verdict_of(draws, predicate, verdict.image_id, mode)
        return again.model_copy(update={"look": verdict.look})

    def _read_draw(self, draw: Draw, predicate: Predicate, mode: Mode) -> Draw:
        answer, reason = self._answer(draw), self.strategy.verify and self.strategy.verify.reason
        prompt = reason.prompt_for(predicate.kind) if reason and draw.reasoned else None
        if answer is None:
            return draw
        marker = prompt.answer_after if prompt else None
        return read_draw(answer, mode, sample=draw.sample, reasoned=draw.reasoned, answer_after=marker)

    def _read_comparison(self, comparison: Comparison) -> Comparison:
        answer = self._answer(comparison)
        return comparison if answer is None else comparison_of(answer, comparison.shown, comparison.mode or "logprobs")

    def _answer(self, question: Asked) -> Answer | None:
        """What the model said, None where it said nothing."""
        key, responses = question.request_key, self._responses
        if key is None or responses is None:
            return None
        response = responses(key)
        if response is None:
            if question.state == "unknown":
                return None
            raise CacheError(
                f"response {key[:12]} is not in the response cache, so it can't be read again. Name the run's cache "
                "in FIELDSCOPE_CACHE, or leave --reread out."
            )
        try:
            answer = LMMResponse.model_validate_json(response)
        except ValidationError as error:
            raise CacheError(f"cache entry {key[:12]} can't be read. Ask again with --cache refresh.") from error
        return Answer("answered", answer.model_copy(update={"cached": True}), request_key=key)
