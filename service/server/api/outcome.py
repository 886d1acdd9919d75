"""From what the agent and the LMM said to what a call gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fieldscope.agent.types import Asked, Call, RerankResult, Verdict
from fieldscope.service.server.api.calls import Document, ImageDocument, Scored, UnjudgedDocument
from fieldscope.service.server.api.errors import ApiError
from fieldscope.service.server.api.relevance import merged, relevances
from fieldscope.service.server.api.texts import Judged

_RETRY_AFTER = 30
_NOTHING_IN_TIME = "time ran out before the LMM had answered anything"
_NAMED = 5  # documents in a warning


def document_id(index: int) -> str:
    """What a document in words goes by in a trace."""
    return f"document {index}"


def ordered(result: RerankResult, documents: Sequence[Document], texts: Judged) -> tuple[Scored, ...]:
    """Every document at its place, pictures by the ranking and texts by what is known of them, and those of which
    nothing is known last. The same picture twice is two documents, one after the other."""
    p_match = {ranked.image_id: ranked.p_match for ranked in result.ranking}
    reasons = _reasons(result)
    relevance = dict(zip(p_match, relevances(result.ranking), strict=True))
    places = {image_id: at for at, image_id in enumerate(p_match)}
    shown = {n: document.image_id for n, document in enumerate(documents) if isinstance(document, ImageDocument)}
    pictures = {n: relevance[shown[n]] for n in sorted(shown, key=lambda n: places[shown[n]])}
    scores, p_yes = texts.scores(), texts.p_yes
    words = {n: scores[document_id(n)] for n in range(len(documents)) if document_id(n) in scores}
    last = [n for n in range(len(documents)) if n not in shown and n not in words]
    return tuple(
        Scored(n, score_, p_match[shown[n]], reasons.get(shown[n]), shown[n])
        if n in shown
        else Scored(n, score_, p_yes.get(document_id(n)))
        for n, score_ in merged(pictures, words, last)
    )


def found(result: RerankResult) -> tuple[Scored, ...]:
    """Every image of a search at its place."""
    reasons = _reasons(result)
    return tuple(
        Scored(each.prior_rank - 1, relevance, each.p_match, reasons.get(each.image_id), each.image_id)
        for each, relevance in zip(result.ranking, relevances(result.ranking), strict=True)
    )


def completed(result: RerankResult, flags: Sequence[str], captioned: Sequence[Call], texts: Judged) -> RerankResult:
    """The result with all that was asked for it, and every warning in it."""
    judged = [
        Call(stage="document", text=f"{verdict.image_id}: {verdict.answer}", **_asked(verdict))
        for verdict in texts.verdicts
    ]
    cut_short = any(verdict.state == "not_asked" for verdict in texts.verdicts)
    ended = result.ended or ("document" if cut_short else None)
    told = [
        *flags,
        *result.flags,
        *texts.flags(),
        *(
            [f"time or budget ended the work in the stage {ended!r}; the ranking stands on what was known"]
            if ended
            else []
        ),
    ]
    return result.model_copy(
        update={
            "calls": (*captioned, *result.calls, *judged),
            "flags": tuple(dict.fromkeys(told)),
            "ended": ended,
        }
    )


def unjudged_flags(documents: Sequence[Document]) -> tuple[str, ...]:
    """The warning about documents that hold nothing to judge."""
    reasons = [document.reason for document in documents if isinstance(document, UnjudgedDocument)]
    more = [f"and {len(reasons) - _NAMED} more"] if len(reasons) > _NAMED else []
    return (f"ranked last, because they can't be judged: {'; '.join([*reasons[:_NAMED], *more])}",) if reasons else ()


def require_knowledge(result: RerankResult, texts: Judged, *, prior: bool, late: bool) -> None:
    """Raise `ApiError` where the model was asked and said nothing at all, so that nobody takes the first stage's order
    for its own: 503, or where the LMM's server refuses every question, and would again, 502, or where time ran out and
    there is no first stage either, 504.

    A model that answers, but nothing that can be read, was not made for texts: these stand on their prior then.
    """
    pictures = [each for each in (*result.verdicts, *result.comparisons) if each.state != "not_asked"]
    asked = [*pictures, *(verdict for verdict in texts.verdicts if verdict.state != "not_asked")]
    if not asked and late and not prior and result.ended:
        raise ApiError(504, "deadline", _NOTHING_IN_TIME)
    if not asked or any(each.state != "unknown" for each in asked):
        return
    if not pictures and texts.priors and not texts.failed:
        return
    if all(each.refused for each in asked):
        raise ApiError(502, "lmm_refused", f"none of {len(asked)} questions got an answer: {asked[0].error}")
    if not late:
        again = _RETRY_AFTER if pictures or texts.failed else None
        raise ApiError(503, "lmm_failed", f"none of {len(asked)} questions got an answer: {asked[0].error}", again)
    if not prior:
        raise ApiError(504, "deadline", _NOTHING_IN_TIME)


def _reasons(result: RerankResult) -> Mapping[str, str]:
    return {reason.image_id: reason.text for reason in result.reasons if reason.text}


def _asked(verdict: Verdict) -> dict[str, object]:
    return {name: getattr(verdict, name) for name in Asked.model_fields}
