"""A ranking for the grid and the matrix: a tile or row for each image, a column for each predicate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fieldscope.agent.trace_view import verdicts_by_image
from fieldscope.agent.types import Predicate, RankedCandidate, Reason, RerankResult, Verdict
from fieldscope.service.viewer.runs.rounds import Round


class Cell(NamedTuple):
    """P(expected) of a predicate on an image as the matrix shows it. `kind` is its class, `value` what sorts it."""

    text: str
    kind: str
    value: str


@dataclass(frozen=True)
class Shown:
    """An image of the ranking. `match` says that it is judged a match, `reason` what the model said about it after the
    verdict. `unknown` and `not_asked` count questions without an answer."""

    ranked: RankedCandidate
    address: str
    match: bool
    reason: Reason | None
    unknown: int
    not_asked: int
    cells: tuple[Cell, ...]

    @property
    def doubted(self) -> bool:
        """Whether its reason contradicts its verdict."""
        return self.reason is not None and self.reason.agrees is False

    @property
    def moved(self) -> int:
        """The number of ranks that it rose (negative: sank)."""
        return self.ranked.prior_rank - self.ranked.rank


@dataclass(frozen=True)
class Answers:
    """A predicate and the number of images by outcome, and P(expected) of the reference image."""

    predicate: Predicate
    holds: int
    fails: int
    unknown: int
    not_asked: int
    reference: float | None


def images(result: RerankResult, relevant: frozenset[str] | None, address: Callable[[str], str]) -> list[Shown]:
    """Every image of the ranking, best first. `address` leads to an image's page."""
    verdicts = verdicts_by_image(result)
    reasons = {reason.image_id: reason for reason in result.reasons}
    found = []
    for ranked in result.ranking:
        its = verdicts.get(ranked.image_id, {})
        states = Counter(verdict.state for verdict in its.values())
        found.append(
            Shown(
                ranked=ranked,
                address=address(ranked.image_id),
                match=ranked.image_id in (relevant or ()),
                reason=reasons.get(ranked.image_id),
                unknown=states["unknown"],
                not_asked=states["not_asked"],
                cells=tuple(_cell(its.get(predicate.id)) for predicate in result.predicates),
            )
        )
    return found


def answers(shown: Sequence[Shown], result: RerankResult, thought: Sequence[Round]) -> list[Answers]:
    """The outcomes of every predicate, counted in the matrix, so that both agree."""
    holds = {name: p for each in thought if each.checked for name, p in each.checked.holds.items()}
    found = []
    for at, predicate in enumerate(result.predicates):
        kinds = Counter(_outcome(each.cells[at]) for each in shown)
        found.append(
            Answers(predicate, kinds["holds"], kinds["fails"], kinds["unknown"], kinds["open"], holds.get(predicate.id))
        )
    return found


def _outcome(cell: Cell) -> str:
    return cell.kind if not cell.value else "holds" if float(cell.value) > 0.5 else "fails"


def _cell(verdict: Verdict | None) -> Cell:
    if verdict is None or verdict.state == "not_asked":
        return _NOT_ASKED
    if verdict.p_expected is None:
        return _UNKNOWN
    p = verdict.p_expected
    return Cell(f"{p:.2f}", f"p{min(int(10 * p), 9)}", f"{p:.4f}")


_NOT_ASKED = Cell("·", "open", "")
_UNKNOWN = Cell("?", "unknown", "")
