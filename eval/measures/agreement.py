"""How far two models, or two wordings, say the same of the same images. Pure.

Two runs agree about a question where both find the same side more probable. Cohen's kappa (1960, "A coefficient of
agreement for nominal scales") is the share of equal verdicts beyond what the runs' own shares of yes would give by
chance: 1 is full agreement, 0 no more than chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from fieldscope.agent.trace_view import verdicts_by_image
from fieldscope.agent.types import RerankResult

Sides = Mapping[tuple[str, str, str], bool]
"""(query id, image id, predicate id) -> whether the verdict has the expected answer."""


@dataclass(frozen=True)
class Agreement:
    """Two runs on the questions that both answered. The counts are of verdicts with the expected answer (`both`), with
    the other one (`neither`), and of those on which the runs differ."""

    a: str
    b: str
    queries: int
    both: int
    only_a: int
    only_b: int
    neither: int

    @property
    def shared(self) -> int:
        """How many questions both answered."""
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def equal(self) -> float | None:
        """The share of equal verdicts, between 0 and 1; None without a shared question."""
        return (self.both + self.neither) / self.shared if self.shared else None

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa, between -1 and 1; None where chance alone would make all verdicts equal."""
        if self.equal is None:
            return None
        yes_a, yes_b = (self.both + self.only_a) / self.shared, (self.both + self.only_b) / self.shared
        chance = yes_a * yes_b + (1 - yes_a) * (1 - yes_b)
        return (self.equal - chance) / (1 - chance) if chance < 1 else None


def sides(results: Mapping[str, RerankResult]) -> Sides:
    """The side of every answered question of a run."""
    return {
        (result.query_id, image_id, name): verdict.p_expected > 0.5
        for result in results.values()
        for image_id, verdicts in verdicts_by_image(result).items()
        for name, verdict in verdicts.items()
        if verdict.p_expected is not None
    }


def agree(a: str, said_a: Sides, b: str, said_b: Sides) -> Agreement:
    """Compare two runs, by their names, on the questions that both answered: the same predicate of the same query about
    the same image."""
    shared = said_a.keys() & said_b.keys()
    counts = {(x, y): 0 for x in (True, False) for y in (True, False)}
    for question in shared:
        counts[said_a[question], said_b[question]] += 1
    return Agreement(
        a=a,
        b=b,
        queries=len({query_id for query_id, _, _ in shared}),
        both=counts[True, True],
        only_a=counts[True, False],
        only_b=counts[False, True],
        neither=counts[False, False],
    )


def agreements(runs: Mapping[str, Sides]) -> list[Agreement]:
    """Every two of the runs, by their names, in the order of the runs."""
    return [agree(a, runs[a], b, runs[b]) for a, b in combinations(runs, 2)]
