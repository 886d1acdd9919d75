"""Every request that the stages make, as pure functions: the nodes send them, and the viewer makes them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from fieldscope.agent.call import messages
from fieldscope.agent.lmm.base import ImagePart, LMMRequest, TextPart
from fieldscope.agent.lmm.choice import LETTERS
from fieldscope.agent.query_text import instructions_text, request_text
from fieldscope.agent.schemas import AnswersAnswer, PredicatesAnswer, StatedAnswer, SynthesisAnswer
from fieldscope.agent.strategies.ordering import Compare, Explain
from fieldscope.agent.strategies.query_stages import Decompose, Synthesize
from fieldscope.agent.strategies.verification import Joint, Verify
from fieldscope.agent.types import Instruction, Predicate
from fieldscope.core.errors import ConfigError
from fieldscope.core.types import Query, Turn
from fieldscope.prompts.prompt import Prompt


def caption_request(reference: ImagePart, settings: Synthesize) -> LMMRequest:
    """What does the reference image show?"""
    return _request(settings.caption, settings, reference)


def synthesis_request(query: Query, caption: str, settings: Synthesize) -> LMMRequest:
    """What must a match show? `caption` describes the reference image, where the query has one."""
    schema = SynthesisAnswer.model_json_schema()
    return _request(settings.prompt, settings, schema=schema, request=request_text(query, caption, settings.prompt))


def refinement_request(query: Query, caption: str, earlier: str, fault: str, settings: Synthesize) -> LMMRequest:
    """The same in a later round: `earlier` is the description of the round before, `fault` what was wrong with it."""
    values = {"request": request_text(query, caption, settings.again), "earlier": earlier, "wanting": fault}
    return _request(settings.again, settings, schema=SynthesisAnswer.model_json_schema(), **values)


def turn_request(turn: Turn, earlier: str, settings: Synthesize) -> LMMRequest:
    """What must a match show after this turn of a dialogue? `earlier` is the description before it. Raises
    `ConfigError` where the settings have no prompt for a turn."""
    if settings.turn is None:
        raise ConfigError("the strategy has no prompt for a turn of a dialogue; add it as `synthesize.turn`")
    said = settings.turn.form("round", question=turn.question, answer=turn.answer).strip()
    return _request(settings.turn, settings, schema=SynthesisAnswer.model_json_schema(), request=said, earlier=earlier)


def predicates_request(instructions: Sequence[Instruction], settings: Decompose) -> LMMRequest:
    """Which yes/no questions follow from the instructions?"""
    schema = PredicatesAnswer.model_json_schema()
    return _request(
        settings.prompt, settings, schema=schema, instructions=instructions_text(instructions, settings.prompt)
    )


def joint_request(predicates: Sequence[Predicate], image: ImagePart, settings: Joint) -> LMMRequest:
    """All questions about one image at once, numbered from 1. Log-probabilities are asked for of every token, since the
    answers stand where they stand."""
    questions = questions_text(predicates, settings.prompt)
    request = _request(settings.prompt, settings, image, schema=AnswersAnswer.model_json_schema(), questions=questions)
    return request.model_copy(update={"top_logprobs": settings.top_logprobs, "logprobs_of": "all"})


def questions_text(predicates: Sequence[Predicate], prompt: Prompt) -> str:
    """Questions as a joint prompt lists them."""
    return prompt.form("separator").join(
        prompt.form(
            "whole" if predicate.kind == "query" else "question",
            number=str(number),
            question=predicate.question,
            query=predicate.words or predicate.question,
        )
        for number, predicate in enumerate(predicates, start=1)
    )


def reason_request(image: ImagePart, description: str, settings: Explain) -> LMMRequest:
    """Why does the image match the description, or not?"""
    return _request(settings.prompt, settings, image, query=description)


SAMPLED_AT = 1.0
"""The temperature of plain answers whose share is taken: the one at which they follow the model's probabilities."""

THOUGHT_AT = 0.7
"""The temperature of several thoughts about one question, as in self-consistency (Wang et al. 2022, arXiv
2203.11171)."""


def question(predicate: Predicate, images: Sequence[ImagePart], settings: Verify, sample: int = 0) -> LMMRequest:
    """The request for one question about one image, or whatever `images` show: images first, so that a server caches
    them for the next question. `sample` numbers the answers where several are drawn."""
    whole = settings.whole_query if predicate.kind == "query" else None
    prompt = whole or settings.prompt
    text = predicate.question if whole else prompt.render(question=predicate.question)
    return LMMRequest(
        messages=messages(prompt, *images, TextPart(text=text)),
        max_tokens=settings.answer_tokens,
        temperature=SAMPLED_AT if settings.mode == "samples" else 0.0,
        sample=sample,
        top_logprobs=settings.top_logprobs if settings.mode == "logprobs" else 0,
        json_schema=StatedAnswer.model_json_schema() if settings.mode == "stated" else None,
        answer_after=settings.answer_after,
        extra_body=settings.extra_body,
    )


def reasoned_question(
    predicate: Predicate, images: Sequence[ImagePart], settings: Verify, sample: int = 0
) -> LMMRequest:
    """The same, but the model says what it sees before it answers. Raises `ConfigError` where the settings let it
    think about no such question."""
    reason = settings.reason
    prompt = reason.prompt_for(predicate.kind) if reason else None
    if reason is None or prompt is None:
        raise ConfigError("the strategy has no prompt to think about this question; add it to `verify.reason`")
    whole = predicate.kind == "query"
    words = {"query": predicate.words or predicate.question} if whole else {"question": predicate.question}
    text = prompt.render(**words)
    return LMMRequest(
        messages=messages(prompt, *images, TextPart(text=text)),
        max_tokens=reason.max_tokens,
        temperature=THOUGHT_AT if reason.thoughts > 1 else 0.0,
        sample=sample,
        top_logprobs=settings.top_logprobs if settings.mode == "logprobs" else 0,
        answer_after=prompt.answer_after,
        extra_body=reason.extra_body,
    )


def which_is_best(
    shown: Sequence[ImagePart], reference: ImagePart | None, description: str, settings: Compare
) -> LMMRequest:
    """The request for one showing: the reference image, where there is one, the candidates in order, the question.

    Each of several images follows its name; a walk's single candidate needs none.
    """
    prompt = settings.prompt if reference is None else settings.reference
    named = settings.mode != "walk"
    content: list[TextPart | ImagePart] = []
    if reference is not None:
        content += [TextPart(text=prompt.form("reference")), reference] if named else [reference]
    for letter, image in zip(LETTERS, shown, strict=False):
        name = prompt.form("candidate", letter=letter, capital=letter.upper())
        content += [TextPart(text=name), image] if named else [image]
    question = TextPart(text=prompt.render(query=description))
    return LMMRequest(
        messages=messages(prompt, *content, question),
        max_tokens=settings.answer_tokens,
        top_logprobs=settings.top_logprobs,
        extra_body=settings.extra_body,
    )


class _Generation(Protocol):
    """What the settings of every stage say about its answers."""

    @property
    def max_tokens(self) -> int: ...

    @property
    def extra_body(self) -> dict[str, Any]: ...


def _request(
    prompt: Prompt, settings: _Generation, *images: ImagePart, schema: dict[str, Any] | None = None, **values: str
) -> LMMRequest:
    return LMMRequest(
        messages=messages(prompt, *images, TextPart(text=prompt.render(**values))),
        max_tokens=settings.max_tokens,
        json_schema=schema,
        extra_body=settings.extra_body,
    )
