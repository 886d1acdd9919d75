"""Finding out which parameters a server takes, while it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from fieldscope.agent.lmm.base import LMMRequest
from fieldscope.agent.lmm.chat_request import chat_parameters
from fieldscope.agent.lmm.refusal import Refusal
from fieldscope.agent.lmm.server_profile import KnownProfile, ServerProfile, known_profile, remember_profile
from fieldscope.core.errors import ContextLengthError, LMMRequestError

AnswerT = TypeVar("AnswerT")
Send = Callable[[LMMRequest, ServerProfile], Awaitable[AnswerT]]
"""Sends a request as a server of this profile takes it. Raises `LMMRequestError` where the server refuses it."""


class Negotiation:
    """What one client knows of a server's parameters, and how it finds out more; for one event loop.

    A refused request is sent otherwise, one parameter after another, by one call at a time: those that were refused
    meanwhile wait, and then use what was found out. Nothing is remembered that the server did not accept in the end, so
    words that were misread change nothing. What a user has set in `chosen` is never changed.
    """

    def __init__(self, url: str, model: str, chosen: ServerProfile | None = None) -> None:
        self._server = (url, model)
        self._chosen = chosen
        self._lock = asyncio.Lock()
        self._outdated: set[tuple[str, ...]] = set()

    @property
    def known(self) -> KnownProfile:
        """What is known of the parameters that the server takes."""
        return known_profile(*self._server).fix(self._chosen)

    async def answer(self, request: LMMRequest, send: Send[AnswerT]) -> AnswerT:
        """Send a request as the server takes it. Raises what `send` raises, and `LMMRequestError` where the request
        needs log-probabilities and the server gives none."""
        while True:
            known = self.known
            self._require_logprobs(request, known)
            try:
                return await send(request, known.profile)
            except LMMRequestError as refusal:
                async with self._lock:
                    if known == self.known:  # else another call has found out meanwhile
                        return await self._find_out(request, send, known, refusal)

    async def stands(self, request: LMMRequest, adapted: tuple[str, ...], send: Send[AnswerT]) -> bool:
        """Whether an answer that was `adapted` so is still the best to be had: the server refuses again what it refused
        then. A request that it refuses costs nothing; one that it takes is the last of its kind."""
        async with self._lock:
            known = self.known
            while adapted not in self._outdated:
                if set(adapted) <= set(known.profile.adapted(request)):
                    remember_profile(*self._server, known)  # which the answer itself shows to be accepted
                    return True
                try:
                    await send(request, known.profile)
                except LMMRequestError as refusal:
                    learned = _after(known, refusal, request)
                    if learned is None:
                        raise
                    known = learned
                else:
                    self._outdated.add(adapted)
            return False

    async def _find_out(
        self, request: LMMRequest, send: Send[AnswerT], known: KnownProfile, refusal: LMMRequestError
    ) -> AnswerT:
        """Send a refused request otherwise until it is accepted. Raises the first refusal that names no parameter."""
        while (learned := _after(known, refusal, request)) is not None:
            known = learned
            try:
                answer = await send(request, known.profile)
            except LMMRequestError as again:
                refusal = again
            else:
                remember_profile(*self._server, known)
                self._require_logprobs(request, known)
                return answer
        raise refusal

    def _require_logprobs(self, request: LMMRequest, known: KnownProfile) -> None:
        if request.top_logprobs and not known.profile.top_logprobs:
            url, model = self._server
            said = f" ({words})" if (words := known.words.get("top_logprobs")) else ""
            raise LMMRequestError(
                f"{url} gives no log-probabilities of {model}{said}, so P(yes) can't be read from them: use the mode "
                "`samples` or `stated` (in the strategy's verify `samples: 8`, or a prompt that asks for a probability)"
                ", or a server that gives them (vLLM)"
            )


def _after(known: KnownProfile, refusal: LMMRequestError, request: LMMRequest) -> KnownProfile | None:
    """What is known after a refusal; None where it names no parameter."""
    if isinstance(refusal, ContextLengthError) or not refusal.words:
        return None
    return known.after(Refusal(refusal.words, refusal.body), chat_parameters(request, known.profile))
