"""The size and the speed of the viewer's pages over runs of 160 queries x 100 images x 6 predicates.

Makes two such runs, opens pages of every kind, and prints for each kind the time of the slowest page when it is opened
first and again (the best of three), and the size of the largest. The results are read once per run, before the first
page; that time is printed separately. Times are CPU times. Exits with 1 if a page takes longer than 15 % of that
reading, first or again, or is larger than 500 kB: a ratio within one run also holds on a busy machine.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHARE = 0.15  # of the time in which all results are read
BYTES = 500_000
TIMES = 3


@dataclass(frozen=True)
class Measured:
    """The slowest page of a kind, in seconds when it was opened first and again, and the largest, in bytes of UTF-8.
    It may take `allowed` seconds."""

    kind: str
    first: float
    again: float
    size: int
    allowed: float

    @property
    def holds(self) -> bool:
        """Whether both are within the limits."""
        return max(self.first, self.again) < self.allowed and self.size < BYTES


def measure(folder: Path, queries: int = 160, candidates: int = 100, predicates: int = 6) -> Iterator[Measured]:
    """Make the runs below `folder`, and open pages of each kind."""
    from fieldscope.service.viewer import addresses
    from fieldscope.service.viewer.site import Site
    from tests.service.viewer import shelves

    made = shelves.big(folder, queries, candidates, predicates)
    site = Site(made.shelf(), live=True)
    began = time.process_time()
    a, b = site.run_list.runs()
    queries_read = len(a.digests) + len(b.digests)
    reading = time.process_time() - began
    print(f"reading {queries_read} queries, once: {reading:.1f} s")
    chosen = [list(a.digests)[n] for n in (0, len(a.digests) // 2, -1)]
    images = {query: a.result(query).ranking for query in chosen}
    pair = [a.key, b.key]
    kinds = {
        "runs": [addresses.INDEX],
        "run": [addresses.run_page(key) for key in pair],
        "query": [addresses.query_page(a.key, query) for query in chosen],
        "image": [
            addresses.image_page(a.key, query, ranking[n].image_id)
            for query, ranking in images.items()
            for n in (0, -1)
        ],
        "compare": [addresses.compare_page(pair)],
        "compare, query": [addresses.compare_query_page(pair, query) for query in chosen],
        "prompts": [addresses.prompts_page(a.key)],
        "annotations": [addresses.annotations_page(a.key)],
    }
    for kind, pages in kinds.items():
        first = again = 0.0
        largest = 0
        for address in pages:
            times = []
            for _ in range(1 + TIMES):
                _forget_results()
                started = time.process_time()
                html = site.render(site.page(address))
                times.append(time.process_time() - started)
                largest = max(largest, len(html.encode()))
            first, again = max(first, times[0]), max(again, min(times[1:]))
        yield Measured(kind, first, again, largest, SHARE * reading)


def _forget_results() -> None:
    """Each query is read from the disk again, as for a first visit."""
    from fieldscope.service.viewer.runs import run

    run._read_result.cache_clear()


def main() -> int:
    """Print a line for each kind of page. Returns the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FIELDSCOPE_CACHE"] = str(Path(folder) / "cache")
        measurements = []
        print(f"{'page':16}{'first, ms':>10}{'again, ms':>10}{'kB':>8}")
        for page in measure(Path(folder)):
            measurements.append(page)
            line = f"{page.kind:16}{1000 * page.first:10.0f}{1000 * page.again:10.0f}{page.size / 1000:8.0f}"
            print(line if page.holds else f"{line}  too much")
    return 0 if all(page.holds for page in measurements) else 1


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
