"""Do no harm: where a strategy ranks worse than the first stage did, and by how much. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fieldscope.eval.reported import GENERAL

LEAST_CHANGE = -0.01
"""The mean change of AP in a supercategory that is still no harm."""

LOSS = 0.05
MOST_LOSING = 0.05
"""At most this share of a set's queries may lose more than `LOSS`."""


_ROUNDING = 1e-9


@dataclass(frozen=True)
class Change:
    """A strategy against the prior over some queries: mean change of AP, and the share that lose more than `LOSS`."""

    queries: int
    change: float
    losing: float


@dataclass(frozen=True)
class Harm:
    """One set of queries as a whole, and each of its supercategories. `metric` is the AP that is compared."""

    overall: Change
    groups: Mapping[str, Change]
    metric: str = GENERAL.headline

    @property
    def broken(self) -> list[str]:
        """What breaks a bound, a line each; empty where no harm is done."""
        lines = [
            f"{group}: the mean change of AP is {change.change:+.3f}, under {LEAST_CHANGE}"
            for group, change in self.groups.items()
            if change.change < LEAST_CHANGE - _ROUNDING
        ]
        if self.overall.losing > MOST_LOSING:
            lines.append(f"{self.overall.losing:.1%} of the queries lose more than {LOSS}, over {MOST_LOSING:.0%}")
        return lines


def harm(
    prior: Mapping[str, float], strategy: Mapping[str, float], groups: Mapping[str, str], metric: str = GENERAL.headline
) -> Harm:
    """Compare AP, that of `metric`, per query id. `groups` names the supercategory of a query; where none does, the set
    is its only one.

    Raises ValueError unless both have the same queries, and at least one.
    """
    if not prior or prior.keys() != strategy.keys():
        raise ValueError("harm is measured over the same queries, and at least one")
    changes = {query: strategy[query] - prior[query] for query in prior}
    named: dict[str, list[float]] = {}
    for query, change in changes.items():
        named.setdefault(groups.get(query) or "all", []).append(change)
    by_group = {group: _change(named[group]) for group in sorted(named)}
    return Harm(_change(list(changes.values())), by_group, metric)


def _change(changes: list[float]) -> Change:
    losing = sum(change < -LOSS - _ROUNDING for change in changes)
    return Change(len(changes), sum(changes) / len(changes), losing / len(changes))
