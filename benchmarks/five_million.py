"""A large index against exact search: recall, speed, memory and build time, on vectors with a power-law spectrum.

    OMP_NUM_THREADS=1 python -m benchmarks.five_million --vectors 200000

The vectors are drawn again wherever they are needed, and never held as a whole. Exact search is the product of float32
vectors on the same threads, measured on as many vectors as fit into memory and scaled to all. A search is measured in a
process of its own: cold with the index's files out of the page cache, then warm. With --check the figures are held
against what the index promises.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import arguments, memory, report, seconds
from benchmarks.power_law import PowerLaw
from fieldscope.core.text_rows import MappedTexts
from fieldscope.retrieval.half_vectors import merged
from fieldscope.retrieval.index_plan import IndexPlan, lists_for, plan_index
from fieldscope.retrieval.large_build import Owner, VectorSource, build_large, recall
from fieldscope.retrieval.large_index import LargeIndex

K = 100
BATCH = 250
EXACT_QUERIES = 100
FITS = 400_000  # float32 vectors of length 1,024 in 1.6 GB


def main() -> None:
    """Build, search, compare."""
    parser = arguments(__doc__)
    parser.add_argument("--vectors", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--memory", type=float, default=1.0, help="GB that the index may take")
    parser.add_argument("--folder", type=Path, help="where to build the index, which is kept then")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a promise is broken")
    parser.add_argument("--search-only", type=Path, help="for the second process")
    chosen = parser.parse_args()
    data = PowerLaw(chosen.vectors, chosen.dim)
    if chosen.search_only:
        print(json.dumps(_search(chosen.search_only, data)))
        return
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="five-million-"))
    try:
        figures = _measure(folder, data, int(chosen.memory * 1e9))
    finally:
        if chosen.folder is None:
            shutil.rmtree(folder)
    compared = (
        f"a search of {chosen.vectors:,} vectors of length {chosen.dim} by product codes and exact scores of the best, "
        "with the product of all float32 vectors on the same threads"
    )
    report(f"large-index-{chosen.vectors}", compared, figures, chosen.json)
    if chosen.check and (broken := _broken(figures, chosen.vectors)):
        sys.exit("\n".join(broken))


def _measure(folder: Path, data: PowerLaw, budget: int) -> dict[str, Any]:
    plan = plan_index(data.count, data.dim, budget)
    if plan.kind != "pq":  # a small collection would get an exact index; this one is about codes
        plan = IndexPlan("pq", 0, lists_for(data.count), 64)
    ids = MappedTexts(_named, range(data.count))
    source = VectorSource(ids, data.dim, f"power law {data}", data.blocks)
    before = _peak()
    started = time.perf_counter()
    built = build_large(folder, source, plan, Owner("power law"), memory=budget, progress=_Shown())
    build = {"seconds": time.perf_counter() - started, "peak_mb": _peak(), "peak_before_mb": before}
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e9
    _forget(folder)
    command = [sys.executable, "-m", "benchmarks.five_million", "--search-only", str(folder)]
    command += ["--vectors", str(data.count), "--dim", str(data.dim)]
    searched = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    exact = _exact(data)
    return {
        "index": {"lists": built.lists, "code_bytes": built.code_bytes, "probes": built.probes, "disk_gb": size},
        "build": build,
        "recall_at_100": {"at_build_time": built.recall.recall, **_recall(folder, data)},
        "search": searched,
        "product": exact,
        "times_faster": {
            "one_query": exact["one_query_seconds"] / searched["warm"]["one_query_seconds"],
            "batch": exact["batch_seconds"] / searched["warm"]["batch_seconds"],
        },
    }


def _named(row: int) -> str:
    """An id that is made when it is read."""
    return f"train/{row % 10_000:05}/{row:012x}.jpg"


class _Shown:
    """Progress on standard error, a line for each tenth."""

    def __init__(self) -> None:
        self._tenth = -1

    def __call__(self, done: int, total: int) -> None:
        if (tenth := 10 * done // total) > self._tenth:
            self._tenth = tenth
            print(f"build: {10 * tenth} %, {memory()['anonymous']:,.0f} MB", file=sys.stderr, flush=True)


def _search(folder: Path, data: PowerLaw) -> dict[str, Any]:
    """What a process that only searches takes; first with the files out of the page cache."""
    before = memory()["anonymous"]
    queries = data.queries(BATCH)
    started = time.perf_counter()
    index = LargeIndex(folder)
    opened = time.perf_counter() - started
    cold = [seconds(partial(index.nearest, queries[at : at + 1], K)) for at in range(10)]
    warm = seconds(lambda: [index.nearest(queries[at : at + 1], K) for at in range(10)], 5) / 10
    index.nearest(queries, K)
    batch = seconds(lambda: index.nearest(queries, K), 3)
    return {
        "opening_seconds": opened,
        "cold": {"first_query_seconds": cold[0], "next_queries_seconds": float(np.median(cold[1:]))},
        "warm": {"one_query_seconds": warm, "batch_seconds": batch, "batch": BATCH},
        "memory_mb": {"before": before, **memory()},
    }


def _recall(folder: Path, data: PowerLaw) -> dict[str, float]:
    """Against exact search over the float32 vectors, with queries that the index has not seen."""
    queries = data.queries(BATCH)[:EXACT_QUERIES]
    scores = np.full((len(queries), K), -np.inf, np.float32)
    rows = np.full((len(queries), K), -1, np.int64)
    start = 0
    for block in data.blocks():
        scores, rows = merged(scores, rows, queries @ block.T, np.arange(start, start + len(block)), K)
        start += len(block)
    index = LargeIndex(folder)
    codes = index.candidates(queries, K, K, index.manifest.probes)
    return {"rescored": recall(index.nearest(queries, K)[1], rows), "product_codes_alone": recall(codes, rows)}


def _exact(data: PowerLaw) -> dict[str, Any]:
    fits = min(data.count, FITS * 1024 // data.dim)
    vectors = np.empty((fits, data.dim), np.float32)
    done = 0
    for block in data.blocks():
        taken = block[: fits - done]
        vectors[done : done + len(taken)] = taken
        done += len(taken)
        if done == fits:
            break
    queries, scale = data.queries(BATCH), data.count / fits
    return {
        "measured_on": fits,
        "scaled_by": scale,
        "one_query_seconds": scale * seconds(lambda: vectors @ queries[0], 5),
        "batch_seconds": scale * seconds(lambda: queries @ vectors.T, 2),
    }


def _broken(figures: dict[str, Any], count: int) -> list[str]:
    recalls, faster = figures["recall_at_100"], figures["times_faster"]
    promises = [
        (recalls["rescored"] >= 0.98, "recall@100 is below 0.98"),
        (recalls["product_codes_alone"] < 0.85, "product codes alone reach 0.85, so this tests little"),
        (figures["search"]["memory_mb"]["anonymous"] <= 3000, "a search takes more than 3 GB"),
    ]
    if count >= 5_000_000:  # a smaller product fits into caches, and is no work for an index
        promises += [
            (faster["one_query"] >= 20, "one query is less than 20 times as fast as the product"),
            (faster["batch"] >= 4, "a batch is less than 4 times as fast as the product"),
        ]
    return [words for kept, words in promises if not kept]


def _forget(folder: Path) -> None:
    """Drop the files from the page cache."""
    os.sync()
    for path in folder.iterdir():
        with path.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _peak() -> float:
    """The most memory that this process has held so far, in MB, pages of files among it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


if __name__ == "__main__":
    main()
