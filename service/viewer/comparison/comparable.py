"""Which runs can be compared, and in which order: the first is the one that the others are compared with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

from fieldscope.eval.runs.read import names_of
from fieldscope.service.viewer.runs.run import Run
from fieldscope.service.viewer.runs.run_list import RunList


@dataclass(frozen=True)
class Companion:
    """A comparison with a run in it: the names of the others, and all runs in their order."""

    names: Sequence[str]
    runs: Sequence[Run]

    @property
    def keys(self) -> list[str]:
        """The runs as an address names them."""
        return [run.key for run in self.runs]

    def ranked(self, query_id: str) -> bool:
        """Whether every run of it has this query."""
        return all(query_id in run.digests for run in self.runs)


def comparable(runs: Sequence[Run]) -> Iterator[list[Run]]:
    """Runs of one benchmark and split that can be shown: every two in both orders, and all of them where there are
    more. The run with the fewest calls comes first."""
    tasks: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if run.problem is None:
            benchmark = run.configuration.benchmark
            tasks.setdefault((benchmark.fingerprint or benchmark.name, benchmark.split), []).append(run)
    for several in tasks.values():
        several.sort(key=_calls)
        yield from map(list, permutations(several, 2))
        if len(several) > 2:
            yield several


def companions(run: Run, run_list: RunList) -> list[Companion]:
    """The comparisons of a run with each other run, which comes first, and with all of them."""
    found = []
    for several in comparable(run_list.runs()):
        keys = [other.key for other in several]
        if keys[-1] == run.key or (len(keys) > 2 and run.key in keys):
            names = dict(zip(keys, names_of([other.folder for other in several]), strict=True))
            found.append(Companion([name for key, name in names.items() if key != run.key], several))
    return found


def _calls(run: Run) -> float:
    """The mean number of calls of its queries."""
    return sum(digest.calls for digest in run.digests.values()) / len(run.digests)
