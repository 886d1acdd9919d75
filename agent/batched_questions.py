"""All predicates of an image in one structured answer, and how far such answers are to be trusted.

One call instead of k, at the price of probabilities: a joint answer says yes or no. So a sample of the images is asked
one question at a time too, and where the two ways agree too little all images are.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

from fieldscope.agent.state import RerankState
from fieldscope.agent.strategies.settings import Joint
from fieldscope.agent.types import Predicate

Questions = dict[str, tuple[Predicate, ...]]
"""Image id -> what to ask about it, the leading question first."""

JOINT_CONFIDENCE = 0.9
"""P of what a joint answer says: it has no log-probability of its own for each of its words."""

_SMALLEST_SAMPLE = 3


def joint_questions(state: RerankState, window: int) -> Questions:
    """The predicates of each image in the window that no question was sent about yet, and not the whole query, which
    would answer them."""
    sent = {(verdict.image_id, verdict.predicate) for verdict in state.verdicts}
    return _asked(state, window, lambda image_id, p: p.kind != "query" and (image_id, p.id) not in sent)


def single_questions(state: RerankState, window: int, joint: Joint) -> Questions:
    """What to ask one at a time: the whole query where the strategy asks it; predicates about a sample of the images at
    first, about all once the two ways agree too little, and about whatever a joint answer left open."""
    images = [candidate.image_id for candidate in state.candidates[:window]]
    by_chance = sorted(images, key=lambda image_id: sha256(f"{state.query.id} {image_id}".encode()).digest())
    size = max(round(joint.sample * len(images)), _SMALLEST_SAMPLE) if joint.sample else 0
    everywhere = (share := agreed(state)) is not None and share < joint.agreement
    checked = set(images if everywhere else by_chance[:size])
    single = {(v.image_id, v.predicate) for v in state.verdicts if not v.joint}
    unread = {(v.image_id, v.predicate) for v in state.verdicts if v.joint and v.state != "answered"}
    return _asked(
        state,
        window,
        lambda image_id, p: (
            (image_id, p.id) not in single and (p.kind == "query" or image_id in checked or (image_id, p.id) in unread)
        ),
    )


def agreed(state: RerankState) -> float | None:
    """The share of verdicts asked both ways that say the same; None where none was."""
    said: dict[tuple[str, str], dict[bool, bool]] = {}
    for verdict in state.verdicts:
        if verdict.p_yes is not None:
            said.setdefault((verdict.image_id, verdict.predicate), {})[verdict.joint] = verdict.p_yes > 0.5
    same = [both[True] == both[False] for both in said.values() if len(both) == 2]
    return sum(same) / len(same) if same else None


def _asked(state: RerankState, window: int, wanted: Callable[[str, Predicate], bool]) -> Questions:
    asked = {
        candidate.image_id: tuple(p for p in state.predicates if wanted(candidate.image_id, p))
        for candidate in state.candidates[:window]
    }
    return {image_id: predicates for image_id, predicates in asked.items() if predicates}
