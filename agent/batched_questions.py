"""All questions about an image in one structured answer, and how far such answers are to be trusted.

One call instead of k. Later answers depend on earlier ones, so they are no independent evidence: their log-odds have a
temperature of their own (`Calibration`). And a sample of the images is asked one question at a time too; there the
joint questions are in a shuffled order, so that an answer that hangs on its place shows. Where the probabilities of the
two ways agree too little, all images are asked one question at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from hashlib import sha256

from fieldscope.agent.calibration import Calibration
from fieldscope.agent.state import RerankState
from fieldscope.agent.strategies.verification import Joint
from fieldscope.agent.types import Predicate

Questions = dict[str, tuple[Predicate, ...]]
"""Image id -> what to ask about it, the leading question first."""

_SMALLEST_SAMPLE = 3


def is_joint(joint: Joint | None, calibration: Calibration | None) -> bool:
    """Whether a strategy asks an image's questions together: always, or where the calibration says that it pays."""
    return joint is not None and (joint.use == "always" or (calibration is not None and calibration.joint_pays))


def is_trusted(state: RerankState, sample: Collection[str], joint: Joint) -> bool:
    """Whether joint answers agree with single ones, as far as both are there; until the rest of the `sample` is asked
    about they have the benefit of the doubt."""
    awaited = joint.sample_first is not None and single_questions(state, (), sample)
    return bool(awaited) or _agree(state, sample, joint)


def _agree(state: RerankState, sample: Collection[str], joint: Joint) -> bool:
    return (share := agreed(state, sample)) is None or share >= joint.agreement


def agreed(state: RerankState, sample: Collection[str]) -> float | None:
    """How well the probabilities of questions about the `sample` that were asked both ways agree: 1 less their mean
    difference; None where no question was. Other images are asked about alone where they are doubtful, so they would
    show less agreement than there is."""
    said: dict[tuple[str, str], dict[bool, float]] = {}
    for verdict in state.verdicts:
        if verdict.p_yes is not None and verdict.image_id in sample and verdict.look is None:
            said.setdefault((verdict.image_id, verdict.predicate), {})[verdict.joint] = verdict.p_yes
    apart = [abs(both[True] - both[False]) for both in said.values() if len(both) == 2]
    return 1.0 - sum(apart) / len(apart) if apart else None


def sampled(state: RerankState, window: int, joint: Joint) -> set[str]:
    """The images whose questions are also asked one at a time: a few first, and all of them where these don't do."""
    images = [candidate.image_id for candidate in state.candidates[:window]]
    by_chance = sorted(images, key=lambda image_id: _chance(state, image_id))
    sample = by_chance[: max(round(joint.sample * len(images)), _SMALLEST_SAMPLE) if joint.sample else 0]
    first = sample[: joint.sample_first]
    return set(first if _agree(state, first, joint) else sample)


def joint_questions(state: RerankState, images: Collection[str], sample: Collection[str]) -> Questions:
    """The questions about each of `images` that were not sent yet: the whole query first, where no other answer leads
    its own, then the predicates in their order, or in the `sample` in any."""
    sent = {(verdict.image_id, verdict.predicate) for verdict in state.verdicts if verdict.look is None}
    asked = _asked(state, images, lambda image_id, predicate: (image_id, predicate.id) not in sent)

    def place(image_id: str, predicate: Predicate) -> tuple[bool, bytes]:
        return predicate.kind != "query", _chance(state, image_id, predicate.id) if image_id in sample else b""

    return {i: tuple(sorted(predicates, key=partial(place, i))) for i, predicates in asked.items()}


def single_questions(state: RerankState, images: Collection[str], sample: Collection[str]) -> Questions:
    """What to ask one at a time beside joint answers: everything about the `sample`, as far as it is among `images` or
    was asked together, and whatever a joint answer left open."""
    together = {verdict.image_id for verdict in state.verdicts if verdict.joint} | set(images)
    single = {(v.image_id, v.predicate) for v in state.verdicts if not v.joint and v.look is None}
    unread = {(v.image_id, v.predicate) for v in state.verdicts if v.joint and v.state != "answered"}
    return _asked(
        state,
        together,
        lambda image_id, p: (image_id, p.id) not in single and (image_id in sample or (image_id, p.id) in unread),
    )


def without_joint(state: RerankState) -> RerankState:
    """The state as if no image had been asked about together."""
    return state.model_copy(update={"verdicts": tuple(verdict for verdict in state.verdicts if not verdict.joint)})


def _chance(state: RerankState, *names: str) -> bytes:
    """The same for the same names, and else as good as random."""
    return sha256(" ".join((state.query.id, *names)).encode()).digest()


def _asked(state: RerankState, images: Collection[str], wanted: Callable[[str, Predicate], bool]) -> Questions:
    asked = {
        candidate.image_id: tuple(p for p in state.predicates if wanted(candidate.image_id, p))
        for candidate in state.candidates
        if candidate.image_id in images
    }
    return {image_id: predicates for image_id, predicates in asked.items() if predicates}
