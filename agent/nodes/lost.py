"""Stages that came to nothing: which one, the server's words, and what the ranking rests on in its place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fieldscope.agent.state import RerankState
from fieldscope.agent.types import Asked, Reason, lost_flag

UNREAD = (
    "the change was not read: the reference image shows all that was asked for already, so the order rests on the "
    "first stage; word the change in another way"
)
"""The warning of a composed request of which the model understood no change."""


def lost_stages(state: RerankState) -> Iterator[str]:
    """A warning for each stage that was asked and got no answer that it could use. Where a budget ended a stage, the
    result's `ended` says so."""
    thought = [call for call in state.calls if call.stage in ("caption", "synthesize")]
    taken_apart = [call for call in state.calls if call.stage == "decompose"]
    joint = [call for call in state.calls if call.stage == "joint"]
    if state.synthesis is not None and state.synthesis.fallback and (why := _failure(thought)):
        yield lost_flag("synthesize", why, "the query's own words stand in for what it would have thought out")
    if why := _failure(taken_apart[-1:]):
        yield lost_flag("decompose", why, "each instruction is asked as it stands")
    if why := _failure(joint):
        yield lost_flag("joint", why, "the questions are asked one by one")
    if state.unread:
        yield UNREAD
    grounded = [call for call in state.calls if call.stage == "ground"]
    if why := _failure(grounded):
        yield lost_flag("ground", why, "regions were chosen by the first stage's encoder alone")
    of_query = [score for score in state.scores if score.predicate is None]
    if why := _failure(of_query):
        yield lost_flag("score", why, "the first stage's scores stand in for the scorer's")
    elif unscored := sum(score.state == "unknown" for score in of_query):
        yield f"the scorer gave no score for {unscored} of {len(of_query)} images; they keep their first-stage position"
    if why := _failure(state.verdicts):
        compared = any(comparison.state == "answered" for comparison in state.comparisons)
        rest = "the first stage and the comparisons" if compared else "the first stage alone"
        yield lost_flag("verify", why, f"the order rests on {rest}")
    if why := _failure(state.comparisons):
        judged = any(verdict.state == "answered" for verdict in state.verdicts)
        yield lost_flag("compare", why, f"the order rests on the {'verdicts' if judged else 'first stage'}")


def lost_reasons(reasons: Sequence[Reason]) -> Iterator[str]:
    """The same of the reasons, which are asked for after the ranking stands."""
    if why := _failure(reasons):
        yield lost_flag("explain", why, "the ranking stands without reasons")


def _failure(questions: Sequence[Asked]) -> str | None:
    """Why none of the questions has an answer; None where one has, a budget cut one off, or there are none."""
    if not questions or any(question.state != "unknown" for question in questions):
        return None
    return questions[-1].error or "no reason given"
