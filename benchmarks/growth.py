"""How the agent's own time grows with images, predicates and concurrent queries.

    python -m benchmarks.growth [--quick]

A model that answers at once is asked, so that what is measured is planning, fusion and the graph. Each row is a run of
its own; `slope` is that of log time over log size: 1 is linear, and what is below is better. A figure is written beside
the JSON.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import OUT, arguments, report
from benchmarks.scripted import answer, made_benchmark
from fieldscope.agent.graph import Agent
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.agent.types import Predicate
from fieldscope.service.workflows.collecting import seldom_collecting

SIZES = {
    "images": (100, 300, 1000, 3000, 10_000),
    "predicates": (1, 2, 4, 8, 16),
    "queries": (1, 4, 16, 64),
}
LINEAR = 1.1
"""The greatest slope that counts as linear. A repeated measurement differs by some hundredths."""

_PREDICATES, _IMAGES = 4, 100  # where they do not grow


def measure(sizes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """Processor time in seconds by size, and the slope, for each of the three."""
    figures: dict[str, Any] = {}
    for what, values in sizes.items():
        _rank({"images": 10, "predicates": 1, "queries": 1})  # the first run imports and compiles
        taken = {}
        for value in values:
            amounts = {"images": _IMAGES, "predicates": _PREDICATES, "queries": 1} | {what: value}
            taken[value] = _rank(amounts)
        slope = np.polyfit(np.log(list(taken)), np.log(list(taken.values())), 1)[0]
        figures[what] = {"seconds": {str(value): seconds for value, seconds in taken.items()}, "slope": float(slope)}
    return figures


def _rank(amounts: dict[str, int]) -> float:
    """The seconds in which so many queries with so many images and predicates are ranked, all at once."""
    bench = made_benchmark(amounts["queries"], amounts["images"])
    strategy = load_strategy("predicates", prompts="fieldnotes")
    agent = Agent(Resources(bench.images, ScriptedLMM(answer)), strategy)
    asked = tuple(
        Predicate(id=f"p{n}", question=f"is animal {n} there?", kind="subject") for n in range(amounts["predicates"])
    )
    given = bench.candidate_sets or {}

    async def work() -> None:
        await asyncio.gather(*(agent.rerank(query, given[query.id], predicates=asked) for query in bench.queries))

    with seldom_collecting():
        began = time.process_time()
        asyncio.run(work())
        return time.process_time() - began


def draw(figures: dict[str, Any], path: Path) -> None:
    """Time over size, both in logarithms, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(figures), figsize=(4 * len(figures), 3.2))
    for axis, (what, found) in zip(axes, figures.items(), strict=True):
        values = [int(value) for value in found["seconds"]]
        axis.loglog(values, list(found["seconds"].values()), marker="o")
        axis.set(xlabel=what, ylabel="seconds", title=f"slope {found['slope']:.2f}")
        axis.grid(True, which="both", alpha=0.3)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure, draw, and exit with 1 where something grows faster than linearly."""
    parser = arguments(__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out the two largest sizes")
    chosen = parser.parse_args()
    figures = measure({what: values[:-2] if chosen.quick else values for what, values in SIZES.items()})
    path = chosen.json or OUT / "growth.json"
    draw(figures, path.with_suffix(".png"))
    report("growth", "the agent's own processor time at several sizes", figures, path)
    if steep := [what for what, found in figures.items() if found["slope"] > LINEAR]:
        sys.exit(f"time grows faster than linearly with: {', '.join(steep)}")


if __name__ == "__main__":
    main()
