"""Asks the model as the strategies do, and reads its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fieldscope.agent.call import ask, image_parts, messages
from fieldscope.agent.lmm.base import LMM, ImagePart, LMMRequest, TextPart, TokenLogprob
from fieldscope.agent.lmm.choice import LETTERS, choose
from fieldscope.agent.lmm.yes_no import YES_NO, p_yes, word
from fieldscope.prompts.prompt_set import PromptSet
from fieldscope.service.doctor.images import Drawn

_DOUBT = 0.2


@dataclass(frozen=True)
class Reading:
    """One answer. `p` is P(yes), in [0, 1]: from the log-probabilities, or 0 or 1 by the text if there are none; None
    if neither can be read. `reason` says why the log-probabilities can't be read, `error` why there is no answer."""

    p: float | None = None
    text: str = ""
    alternatives: tuple[TokenLogprob, ...] = ()
    error: str | None = None
    reason: str | None = None

    def apart(self, other: Reading) -> float:
        """How far two answers differ, in [0, 1]: by P(yes) where both have one, else by their text."""
        if self.p is not None and other.p is not None:
            return abs(self.p - other.p)
        return float(self.text != other.text)

    def strays(self, other: Reading) -> float:
        """How far two answers to one request differ, in [0, 1]. 1 if their texts contradict each other although P(yes)
        is clear: then the server samples at a temperature of its own."""
        sure = self.p is not None and abs(self.p - 0.5) > _DOUBT
        drawn = sure and {_said(self.text), _said(other.text)} == {"positive", "negative"}
        return 1.0 if drawn else self.apart(other)


class Asker:
    """The model, its images, the set that words its questions, and how many log-probabilities (0 to 20) are requested.
    Counts its `calls`."""

    def __init__(self, lmm: LMM, images: Drawn, prompts: PromptSet) -> None:
        self.lmm = lmm
        self.images = images
        self.prompts = prompts
        self.top_logprobs = 20
        self.calls = 0
        self._predicate, self._pair, self._set = map(prompts.load, ("ask_predicate", "compare_pair", "compare_set"))

    async def yes_no(self, question: str, *image_ids: str) -> Reading:
        """Ask a yes/no question about an image."""
        return await self.read(await self.question(question, *image_ids))

    async def question(self, question: str, *image_ids: str) -> LMMRequest:
        """The request of a yes/no question."""
        text = TextPart(text=self._predicate.render(question=question))
        shown = await image_parts(self.images, image_ids)
        return LMMRequest(messages=messages(self._predicate, *shown, text), top_logprobs=self.top_logprobs)

    async def read(self, request: LMMRequest) -> Reading:
        """Send a request, and read P(yes)."""
        self.calls += 1
        answer = await ask(self.lmm, request)
        if answer.response is None:
            return Reading(error=answer.error)
        text, alternatives = answer.response.text, answer.response.answer_logprobs
        if alternatives:
            read = p_yes(alternatives)
            return Reading(read.p_yes, text, alternatives, reason=read.reason)
        return Reading({"positive": 1.0, "negative": 0.0, "neither": None}[_said(text)], text)

    async def best(self, description: str, image_ids: Sequence[str]) -> tuple[int | None, str | None]:
        """The place of the image, of two to four, that the model takes for the best match. None if its answer can't be
        read; the second value is the error of a failed call."""
        prompt = self._pair if len(image_ids) == 2 else self._set
        content: list[TextPart | ImagePart] = []
        for letter, image in zip(LETTERS, await image_parts(self.images, image_ids), strict=False):
            content += [TextPart(text=prompt.form("candidate", letter=letter, capital=letter.upper())), image]
        content.append(TextPart(text=prompt.render(query=description)))
        request = LMMRequest(messages=messages(prompt, *content), top_logprobs=self.top_logprobs)
        self.calls += 1
        answer = await ask(self.lmm, request)
        if answer.response is None:
            return None, answer.error
        if answer.response.answer_logprobs:
            chances = choose(answer.response.answer_logprobs, len(image_ids)).probabilities
            return (chances.index(max(chances)) if chances else None), None
        letters = LETTERS[: len(image_ids)]
        said = word(answer.response.text.strip().partition(" ")[0])
        return (letters.index(said) if said in letters else None), None


def _said(text: str) -> Literal["positive", "negative", "neither"]:
    return YES_NO.side(text.strip().partition(" ")[0])
