"""Documents in words, judged by the LMM on what they say."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from agent.asking import ask, messages
from agent.lmm.base import LMM, ImagePart, LMMRequest, TextPart
from agent.nodes.verify import verdict_of
from agent.types import Predicate, Verdict
from prompts.prompt import load_prompt

EVEN = 0.5

_MATCH = Predicate(id="match", question="does the document match the query?")


async def judge_texts(
    lmm: LMM, query: str, texts: Mapping[str, str], *, image: ImagePart | None = None, at_once: int = 32
) -> tuple[Verdict, ...]:
    """A verdict on each text, in order: whether it matches the query. `texts` maps a document's id, which stands in a
    verdict's `image_id`, to what it says.

    P(yes) is read from the log-probabilities of the answer, as for an image. The query is words, or an `image`: then
    each text is asked about as a description of it. With both the image is shown beside the question. A call that
    fails and an answer that can't be read are unknown, and what a budget does not allow is not asked; at most `at_once`
    calls are in flight.
    """
    places = asyncio.Semaphore(at_once)

    async def judge(document: str, text: str) -> Verdict:
        async with places:
            return verdict_of(await ask(lmm, question(query, text, image)), _MATCH, document)

    return tuple(await asyncio.gather(*(judge(document, text) for document, text in texts.items())))


def question(query: str, text: str, image: ImagePart | None = None) -> LMMRequest:
    """The request about one text."""
    if image is not None and not query.strip():
        prompt = load_prompt("match_yes_no")
        asked = prompt.render(query=text)
    else:
        prompt = load_prompt("match_text")
        asked = prompt.render(text=text, query=query)
    shown = (image,) if image is not None else ()
    return LMMRequest(messages=messages(prompt, *shown, TextPart(text=asked)), max_tokens=1, top_logprobs=20)


def score(verdict: Verdict) -> float:
    """What a text is ranked by: P(yes), strictly between 0 and 1. A text without an answer stands at even odds: nothing
    is known of it, and a text has no prior, so it goes neither before those that were confirmed nor behind those that
    were ruled out."""
    return verdict.p_yes if verdict.p_yes is not None else EVEN
