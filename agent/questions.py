"""The requests about images: a question about one, and which of several is the best. Made here and asked elsewhere, so
that whoever shows a run can make them again."""

from __future__ import annotations

from collections.abc import Sequence

from fieldscope.agent.call import messages
from fieldscope.agent.lmm.base import ImagePart, LMMRequest, TextPart
from fieldscope.agent.lmm.choice import LETTERS
from fieldscope.agent.strategies.strategy import Compare, Verify
from fieldscope.agent.types import Predicate


def question(predicate: Predicate, image: ImagePart, settings: Verify) -> LMMRequest:
    """The request for one question about one image: image first, so that a server caches it for the next question."""
    whole = settings.whole_query if predicate.kind == "query" else None
    prompt = whole or settings.prompt
    text = predicate.question if whole else prompt.render(question=predicate.question)
    return LMMRequest(
        messages=messages(prompt, image, TextPart(text=text)),
        max_tokens=settings.max_tokens,
        top_logprobs=settings.top_logprobs,
        answer_after=settings.answer_after,
        extra_body=settings.extra_body,
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
        content += [TextPart(text="reference:"), reference] if named else [reference]
    for letter, image in zip(LETTERS, shown, strict=False):
        content += [TextPart(text=f"{letter}:"), image] if named else [image]
    question = TextPart(text=prompt.render(query=description))
    return LMMRequest(
        messages=messages(prompt, *content, question),
        max_tokens=1,
        top_logprobs=settings.top_logprobs,
        extra_body=settings.extra_body,
    )
