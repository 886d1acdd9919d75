"""Canned or computed answers of an LMM, for tests and for trying out a strategy without a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from fieldscope.agent.lmm.base import LMMRequest, LMMResponse, TokenLogprob, Tokens
from fieldscope.core.errors import LMMRequestError

Answer = LMMResponse | str | float | Exception
"""A response as it is; a text; P(yes), between 0 and 1; or an error to raise."""


class ScriptedLMM:
    """An LMM that answers from a script.

    `answer` is either a function of the request, or a mapping: the first key that occurs in the request's text has
    the answer, and a text without any is an `LMMRequestError`. `requests` are all requests so far, in order.
    """

    def __init__(
        self, answer: Mapping[str, Answer] | Callable[[LMMRequest], Answer], identity: str = "scripted"
    ) -> None:
        self._answer = answer
        self._identity = identity
        self.requests: list[LMMRequest] = []

    @property
    def identity(self) -> str:
        return self._identity

    async def generate(self, request: LMMRequest) -> LMMResponse:
        self.requests.append(request)
        answer = self._answer(request) if callable(self._answer) else self._look_up(self._answer, request)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, LMMResponse):
            return answer
        usage = Tokens(prompt_tokens=len(request.text.split()), completion_tokens=1)
        if isinstance(answer, str):
            return LMMResponse(text=answer, usage=usage)
        p = min(max(float(answer), 1e-9), 1 - 1e-9)
        spoken = sorted((("Yes", p), ("No", 1 - p)), key=lambda pair: -pair[1])
        logprobs = tuple(TokenLogprob(token=token, logprob=math.log(share)) for token, share in spoken)
        return LMMResponse(text=spoken[0][0], answer_logprobs=logprobs, usage=usage)

    async def aclose(self) -> None:
        """Nothing to release."""

    @staticmethod
    def _look_up(script: Mapping[str, Answer], request: LMMRequest) -> Answer:
        text = request.text
        for key, answer in script.items():
            if key in text:
                return answer
        raise LMMRequestError(f"the script has no answer to {text!r}; add one")
