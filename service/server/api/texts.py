"""Text documents, judged by the LMM, and by CLIP if the LMM gives no answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from fieldscope.agent.call import Answer, ask, one_line
from fieldscope.agent.documents import asked_words, document_request
from fieldscope.agent.fusion import sigmoid, standardise
from fieldscope.agent.lmm.base import LMM, ImagePart, LMMRequest
from fieldscope.agent.types import ImageScore, Predicate, Verdict
from fieldscope.agent.verdicts import read_draw, verdict_of
from fieldscope.core.errors import ContextLengthError
from fieldscope.prompts.prompt_set import PromptSet

_NAMED = 5

_MATCH = Predicate(id="match", question="does the document match the query?")


@dataclass(frozen=True)
class Judged:
    """The judgments of a call's texts, by their ids: the LMM's verdicts, in order (none if the strategy asks no
    questions), the similarity to the query of those that CLIP can read, and, where the strategy ranks by a scoring
    model, its scores instead, each with the text's id in place of an image's."""

    documents: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    priors: Mapping[str, float] = field(default_factory=dict)
    scored: tuple[ImageScore, ...] = ()

    @property
    def p_yes(self) -> dict[str, float]:
        """P(yes) of every text that has an answer."""
        return {verdict.image_id: verdict.p_yes for verdict in self.verdicts if verdict.p_yes is not None}

    @property
    def failed(self) -> bool:
        """Whether a question failed, other than by an answer that is neither yes nor no."""
        return any(verdict.state == "unknown" and not _answered(verdict) for verdict in self.verdicts)

    @property
    def nothing(self) -> bool:
        """Whether all texts were judged, and neither the LMM nor CLIP could read any of them."""
        silent = all(verdict.state == "unknown" and _answered(verdict) for verdict in self.verdicts)
        return bool(self.documents) and silent and not self.priors and not self.scored

    def scores(self) -> dict[str, float]:
        """The score of each judged text, strictly between 0 and 1: P(yes), or without an answer the prior, standardised
        around even odds if several texts have different priors; or the scoring model's score, squashed as those of
        images are."""
        if self.scored:
            return {score.image_id: sigmoid(score.value) for score in self.scored if score.value is not None}
        priors = list(self.priors.values())
        spread = standardise(priors) if len(set(priors)) > 1 else priors
        placed = {document: sigmoid(prior) for document, prior in zip(self.priors, spread, strict=True)} | self.p_yes
        return {document: placed[document] for document in self.documents if document in placed}

    @property
    def unplaced(self) -> list[str]:
        """The texts that could not be judged, which rank last."""
        placed = self.scores()
        return [document for document in self.documents if document not in placed]

    def flags(self) -> list[str]:
        """Warnings about texts without an answer."""
        verdicts = [verdict for verdict in self.verdicts if verdict.state != "not_asked"]
        silent = sum(verdict.state == "unknown" for verdict in verdicts)
        unplaced = self.unplaced
        warnings = []
        if silent:
            about = "texts" if silent == len(verdicts) else f"{silent} of {len(verdicts)} texts"
            place = "they are ranked by CLIP's similarity to the query" if self.priors else "they rank last"
            warnings.append(f"the model gave no answers about {about}; {place}")
        if unplaced:
            more = f" and {len(unplaced) - _NAMED} more" if len(unplaced) > _NAMED else ""
            named = ", ".join(unplaced[:_NAMED]) + more
            why = "the scoring model could not" if self.scored else "neither the model nor CLIP could"
            warnings.append(f"ranked last, because {why} judge the text: {named}")
        return warnings


def _answered(verdict: Verdict) -> bool:
    return bool(verdict.answer or verdict.completion_tokens)


async def judge_texts(
    lmm: LMM,
    query: str,
    texts: Mapping[str, str],
    prompts: PromptSet,
    *,
    image: ImagePart | None = None,
    at_once: int = 32,
) -> tuple[Verdict, ...]:
    """A verdict on each text, in order: whether it matches the query. `texts` maps a document's id, which is a
    verdict's `image_id`, to its text.

    P(yes) is read from the log-probabilities of the answer, as for an image. The query is words, or an `image`: then
    each text is judged as a description of it. With both the image is shown beside the question. A call that fails and
    an answer that can't be read are unknown, and questions beyond the budget are not asked; at most `at_once` calls are
    in flight.
    """
    places = asyncio.Semaphore(at_once)

    async def judge(document: str, text: str) -> Verdict:
        async with places:
            try:
                answer = await ask(lmm, question(query, text, prompts, image))
            except ContextLengthError as error:  # for this document only
                answer = Answer("unknown", error=one_line(error), refused=True)
            return verdict_of([read_draw(answer, "logprobs")], _MATCH, document, "logprobs")

    return tuple(await asyncio.gather(*(judge(document, text) for document, text in texts.items())))


def question(query: str, text: str, prompts: PromptSet, image: ImagePart | None = None) -> LMMRequest:
    """The request about one text."""
    if image is not None and not query.strip():
        prompt, words = prompts.load("match_yes_no"), {"query": text}
    else:
        prompt, words = prompts.load("match_text"), {"query": query, "text": text}
    return document_request(prompt, asked_words(prompt, **words), (image,) if image is not None else ())
