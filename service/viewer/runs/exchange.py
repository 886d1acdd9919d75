"""A call as pages show it: the request, its prompt, and the response."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from pydantic import ValidationError

from fieldscope.agent.lmm.base import LMMRequest, LMMResponse
from fieldscope.agent.lmm.yes_no import YES_NO
from fieldscope.agent.types import Asked, RerankResult
from fieldscope.prompts.prompt import Prompt
from fieldscope.prompts.prompt_set import list_sets, shipped_set
from fieldscope.service.viewer.runs.prompt_text import Wording, wording
from fieldscope.service.viewer.runs.rebuilt import answerer, rebuilt
from fieldscope.service.viewer.runs.run import Call, Run

Source = Literal["cache", "proven", "likely", "none"]
"""The source of a request: the response cache; rebuilt from the run's prompts with the recorded key (`proven`);
rebuilt with a different key (`likely`); or not available (`none`)."""


@dataclass(frozen=True)
class Alternative:
    """A possible first token of the answer, with its probability. `side` is yes or no in a yes/no question if the
    token counts as one of them, else None."""

    token: str
    logprob: float
    p: float
    side: Literal["yes", "no"] | None


@dataclass(frozen=True)
class Exchange:
    """One question. `request` is None where `source` is `none`; `response` and `provenance` come from the cache.
    `model` is the identity of the model that was asked, with its role, where the run has several."""

    asked: Asked
    source: Source
    request: LMMRequest | None = None
    wording: Wording | None = None
    response: LMMResponse | None = None
    provenance: Mapping[str, Any] | None = None
    model: str | None = None

    @property
    def alternatives(self) -> list[Alternative]:
        """The alternatives for the answer's token, most probable first."""
        binary = self.wording is not None and self.wording.prompt.answer == "yes_no"
        sides: dict[str, Literal["yes", "no"]] = {"positive": "yes", "negative": "no"}
        return [
            Alternative(
                token=each.token,
                logprob=each.logprob,
                p=math.exp(each.logprob),
                side=sides.get(YES_NO.side(each.token)) if binary else None,
            )
            for each in (self.response.answer_logprobs if self.response else ())
        ]


@dataclass(frozen=True)
class UsedPrompt:
    """A prompt that a run used. `prompt` is None if its text is not available."""

    name: str
    fingerprint: str
    prompt: Prompt | None


def used_prompts(run: Run) -> list[UsedPrompt]:
    """The prompts of a run, from its folder, or from this version if the fingerprints are the same."""
    if run.strategy_in_full is not None:
        return [UsedPrompt(each.name, each.fingerprint, each) for each in run.strategy_in_full.prompts]
    return [UsedPrompt(name, told, _shipped(name, told)) for name, told in run.configuration.strategy.prompts.items()]


def exchanges(run: Run, result: RerankResult, questions: Sequence[Asked]) -> list[Exchange]:
    """The request and response of each of these questions."""
    calls = run.calls(question.request_key for question in questions)
    prompts = [used.prompt for used in used_prompts(run) if used.prompt is not None]
    found = (_exchange(run, result, question, calls.get(question.request_key or ""), prompts) for question in questions)
    return [replace(exchange, model=_model(run, result, exchange.asked)) for exchange in found]


def _model(run: Run, result: RerankResult, question: Asked) -> str | None:
    role, model = answerer(run, result, question)
    return model and role and f"{model} ({role})"


def _exchange(
    run: Run, result: RerankResult, question: Asked, call: Call | None, prompts: Sequence[Prompt]
) -> Exchange:
    if call is not None:
        try:
            request = LMMRequest.model_validate(call.request)
            response = LMMResponse.model_validate(call.response)
        except ValidationError:
            pass  # an entry of another version
        else:
            return Exchange(question, "cache", request, wording(request, prompts), response, call.provenance)
    again = rebuilt(run, result, question)
    if again is None:
        return Exchange(question, "none")
    request, proven = again
    return Exchange(question, "proven" if proven else "likely", request, wording(request, prompts))


@lru_cache(maxsize=256)
def _shipped(name: str, fingerprint: str) -> Prompt | None:
    """The prompt of any shipped set that has this fingerprint."""
    shipped = (shipped_set(prompt_set) for prompt_set in list_sets())
    prompts = (prompts.load(name) for prompts in shipped if name in prompts.names)
    return next((prompt for prompt in prompts if prompt.fingerprint == fingerprint), None)
