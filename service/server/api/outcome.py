"""From the agent's ranking and the LMM's verdicts on texts to a call's reply."""

from __future__ import annotations

from collections.abc import Sequence

from fieldscope.agent.trace_view import judged_images
from fieldscope.agent.types import Asked, Call, RerankResult
from fieldscope.service.server.api.calls import Document, HowJudged, ImageDocument, Scored, UnjudgedDocument
from fieldscope.service.server.api.errors import ApiError
from fieldscope.service.server.api.relevance import merged, relevances
from fieldscope.service.server.api.texts import Judged

_RETRY_AFTER = 30
_NOTHING_IN_TIME = "time ran out before the LMM answered any question; try again, or raise the limit max_seconds"
_NAMED = 5  # documents in a warning


def document_id(index: int) -> str:
    """A text document's id in a trace."""
    return f"document {index}"


def ordered(result: RerankResult, documents: Sequence[Document], texts: Judged) -> tuple[Scored, ...]:
    """Every document at its place: images by the ranking, texts by their scores, and documents without a score last.
    The same image twice is two documents, one after the other."""
    p_match = {ranked.image_id: ranked.p_match for ranked in result.ranking}
    reasons = {reason.image_id: reason.text for reason in result.reasons if reason.text}
    relevance = dict(zip(p_match, relevances(result.ranking), strict=True))
    places = {image_id: at for at, image_id in enumerate(p_match)}
    shown = {n: document.image_id for n, document in enumerate(documents) if isinstance(document, ImageDocument)}
    pictures = {n: relevance[shown[n]] for n in sorted(shown, key=lambda n: places[shown[n]])}
    scores, p_yes = texts.scores(), texts.p_yes
    words = {n: scores[document_id(n)] for n in range(len(documents)) if document_id(n) in scores}
    last = [n for n in range(len(documents)) if n not in shown and n not in words]
    looked_at = judged_images(result)
    judged: dict[int, HowJudged] = {n: "picture" for n, image_id in shown.items() if image_id in looked_at}
    judged |= dict.fromkeys(words, "text")
    return tuple(
        Scored(n, score, p_match[shown[n]], reasons.get(shown[n]), judged.get(n, "not judged"))
        if n in shown
        else Scored(n, score, p_yes.get(document_id(n)), judged=judged.get(n, "not judged"))
        for n, score in merged(pictures, words, last)
    )


def completed(result: RerankResult, flags: Sequence[str], captioned: Sequence[Call], texts: Judged) -> RerankResult:
    """The result with every call and every warning in it."""
    judged = [
        Call(
            stage="document",
            text=f"{verdict.image_id}: {verdict.answer}",
            **verdict.model_dump(include=set(Asked.model_fields)),
        )
        for verdict in texts.verdicts
    ]
    cut_short = any(verdict.state == "not_asked" for verdict in texts.verdicts)
    ended = result.ended or ("document" if cut_short else None)
    warnings = [
        *flags,
        *result.flags,
        *texts.flags(),
        *([f"time or budget ran out in stage {ended!r}; the ranking uses the answers until then"] if ended else []),
    ]
    return result.model_copy(
        update={
            "calls": (*captioned, *result.calls, *judged),
            "scores": (*result.scores, *texts.scored),
            "flags": tuple(dict.fromkeys(warnings)),
            "ended": ended,
        }
    )


def unjudged_flags(documents: Sequence[Document]) -> tuple[str, ...]:
    """The warning about documents that can't be judged."""
    reasons = [document.reason for document in documents if isinstance(document, UnjudgedDocument)]
    more = [f"and {len(reasons) - _NAMED} more"] if len(reasons) > _NAMED else []
    return (f"ranked last, because they can't be judged: {'; '.join([*reasons[:_NAMED], *more])}",) if reasons else ()


def require_knowledge(result: RerankResult, texts: Judged, *, prior: bool, late: bool) -> None:
    """Raise `ApiError` if the model was asked and answered nothing, so that the first stage's order is not taken for
    the model's: 503, or 502 if the LMM's server refuses every question and would again, or 504 if time ran out and
    there is no first stage either.

    A model whose answers can't be read was not made for texts: they are ranked by their prior then.
    """
    scores = [score for score in (*result.scores, *texts.scored) if score.state != "not_asked"]
    if scores and all(score.state == "unknown" for score in scores):
        raise ApiError(
            503,
            "scorer_failed",
            f"the scoring model gave none of {len(scores)} scores ({scores[0].error}); check its server",
            _RETRY_AFTER,
        )
    about_images = [question for question in (*result.verdicts, *result.comparisons) if question.state != "not_asked"]
    questions = [*about_images, *(verdict for verdict in texts.verdicts if verdict.state != "not_asked")]
    if not questions and late and not prior and result.ended:
        raise ApiError(504, "deadline", _NOTHING_IN_TIME)
    if not questions or any(question.state != "unknown" for question in questions):
        return
    if not about_images and texts.priors and not texts.failed:
        return
    no_answer = f"none of {len(questions)} questions got an answer ({questions[0].error}); check the LMM's server"
    if all(question.refused for question in questions):
        raise ApiError(502, "lmm_refused", no_answer)
    if not late:
        again = _RETRY_AFTER if about_images or texts.failed else None
        raise ApiError(503, "lmm_failed", no_answer, again)
    if not prior:
        raise ApiError(504, "deadline", _NOTHING_IN_TIME)
