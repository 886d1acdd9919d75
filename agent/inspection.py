"""Which closer looks are worth taking: at which images, and of which kind.

A look is another answer to a question that was asked before. By how much it moves the log-odds of a match was measured
by a calibration (`LookWeights.moves`, a standard deviation s). Where P(match) is P now, the expected change is
2 P (1 - P) (2 Φ(s / 2) - 1): that of a question that settles the matter, times how much of it a look settles. So it is
on the scale on which `plan` weighs questions, and the larger of the two is asked.

Before the first look at an image, a model's "no" to the picture as it is counts for nothing in this: it may not have
seen the subject, and was fitted to pictures in which it does. P is then what the prior says, where that is more.
Without a calibration of looks that goes for pictures whose subject may be small.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from math import erf, sqrt

from fieldscope.agent.calibration import Calibration
from fieldscope.agent.closer_looks import LookSet, answerable, fitted_weights, kind_of, look_set
from fieldscope.agent.posterior import Belief
from fieldscope.agent.state import RerankState
from fieldscope.agent.strategies.inspection import Inspect
from fieldscope.agent.strategies.verification import Verify
from fieldscope.agent.types import Predicate
from fieldscope.core.looks import Look

MOVES = 1.0
"""By how much a look is expected to move the log-odds of a match where that was never measured."""


@dataclass(frozen=True)
class CloserLook:
    """A look that may be taken, what to ask of it, and by how much each of its calls is expected to change P(match)."""

    image_id: str
    look: Look
    predicates: tuple[Predicate, ...]
    value: float


def uninspected(state: RerankState, belief: Belief, settings: Inspect, window: int) -> list[str]:
    """The images of the window for which no looks were proposed yet, and of which one might be worth taking."""
    known = {proposed.image_id for proposed in state.looks}
    worth = max((_moves(kind, LookSet(), True, belief.calibration) for kind in _kinds(settings)), default=0.0)
    return [
        candidate.image_id
        for i, candidate in enumerate(belief.candidates[:window])
        if candidate.image_id not in known
        and belief.finished[i].any()
        and (settings.always or _change(_p(belief, i, unseen=True), worth) >= settings.stop_below)
    ]


def closer_looks(
    state: RerankState, belief: Belief, settings: Inspect, verify: Verify, window: int
) -> list[CloserLook]:
    """The look at each image that is expected to change its P(match) most, the most telling first; those that are worth
    less than `stop_below` are left out. With `always` all looks at all images are left in."""
    rows = {candidate.image_id: i for i, candidate in enumerate(belief.candidates[:window])}
    asked: dict[tuple[str, str], set[str]] = defaultdict(set)
    for verdict in state.verdicts:
        if verdict.look is not None:
            asked[verdict.image_id, verdict.look.shows].add(verdict.predicate)
    found: list[CloserLook] = []
    for proposed in state.looks:
        row = rows.get(proposed.image_id)
        if row is None:
            continue
        here = {look: asked.get((proposed.image_id, look.shows), set()) for look in proposed.looks}
        taken = look_set(look for look, of_look in here.items() if of_look)
        looks = list(_askable(here, belief, row))
        if settings.always:
            found += [CloserLook(proposed.image_id, look, predicates, 1.0) for look, predicates in looks]
            continue
        unseen = not any(taken) and (bool(belief.calibration.looks) or proposed.may_be_small)
        p = _p(belief, row, unseen)
        of_image = []
        for look, predicates in looks:
            if look.proposed_by == "around" and not belief.calibration.looks and predicates[0].kind == "query":
                continue  # nothing says what it is worth beside the regions that it holds
            moves = _moves(kind_of(look), taken, proposed.seems_small, belief.calibration)
            calls = sum(verify.most_calls(predicate.kind) for predicate in predicates)
            of_image.append(CloserLook(proposed.image_id, look, predicates, _change(p, moves) / calls))
        best = max(of_image, key=lambda closer: closer.value, default=None)
        if best is not None and best.value >= settings.stop_below:
            found.append(best)
    return sorted(found, key=lambda closer: -closer.value)


def _askable(
    asked: Mapping[Look, Collection[str]], belief: Belief, row: int
) -> Iterator[tuple[Look, tuple[Predicate, ...]]]:
    """The looks with what can be asked of each: what the picture as it is was asked before, and the look was not."""
    finished = {predicate.id for k, predicate in enumerate(belief.predicates) if belief.finished[row, k]}
    for look, of_look in asked.items():
        fitting = answerable(belief.predicates, look)
        left = tuple(predicate for predicate in fitting if predicate.id not in of_look)
        if left and all(predicate.id in finished for predicate in fitting):
            yield look, left


def _kinds(settings: Inspect) -> Iterator[str]:
    if settings.regions:
        yield "regions"
    if settings.regions > 1:
        yield "around"
    if settings.enhance:
        yield "enhanced"
    if settings.enhance_regions:
        yield "enhanced_regions"


def _moves(kind: str, taken: LookSet, seems_small: bool, calibration: Calibration) -> float:
    """By how much one more look of a kind moves the log-odds of a match; 0 for one that was not measured where others
    were."""
    if not calibration.looks:
        return MOVES
    after = taken._replace(**{kind: getattr(taken, kind) + 1})
    fitted = fitted_weights(after, calibration)
    if fitted is None:
        return 0.0
    return (fitted.moves_small if seems_small else fitted.moves).get(kind, 0.0)


def _p(belief: Belief, row: int, unseen: bool) -> float:
    """P(match), as it counts in what a look is expected to change: `unseen` says that the subject may not have been
    seen so far."""
    p = float(belief.p_match[row])
    return max(p, float(belief.p_before[row])) if unseen else p


def _change(p: float, moves: float) -> float:
    """The expected change of a probability whose log-odds are moved by so much, as a standard deviation."""
    return 2.0 * p * (1.0 - p) * erf(moves / 2.0 / sqrt(2.0))
