"""An evaluation to be killed, of a whole strategy: `killable_agent.py STRATEGY MAX_CALLS PICTURES FOLDER ASKED`.

The model tells the truth, after a while that differs from call to call and from run to run, and notes each call. A
MAX_CALLS of 0 is no limit.
"""

from __future__ import annotations

import asyncio
import random
import sys
from contextlib import closing
from pathlib import Path

from agent.budget import Budget
from agent.calibration import Calibration
from agent.deps import Deps
from agent.graph import Agent
from agent.lmm.base import LMM, LMMRequest, LMMResponse
from agent.lmm.cached import CachedLMM
from agent.strategies.strategy import load_strategy
from cache.sqlite import SqliteStore
from eval.harness import evaluate
from eval.types import Benchmark
from retrieval.collection import FolderCollection
from tests.agent.oracle import draw_cases, oracle_of

QUERIES = 4
CANDIDATES = 12
SLOWEST = 0.03  # seconds


class Slow:
    """Any LMM, after a pause; `asked` gets a line as each call begins."""

    def __init__(self, lmm: LMM, asked: Path) -> None:
        self._lmm = lmm
        self._asked = asked
        self._chance = random.Random()

    @property
    def identity(self) -> str:
        return self._lmm.identity

    async def generate(self, request: LMMRequest) -> LMMResponse:
        with self._asked.open("a") as lines:
            lines.write(request.key(self.identity) + "\n")
        await asyncio.sleep(self._chance.uniform(0, SLOWEST))
        return await self._lmm.generate(request)

    async def aclose(self) -> None:
        await self._lmm.aclose()


async def main(strategy: str, max_calls: int, pictures: Path, folder: Path, asked: Path) -> None:
    images = FolderCollection(pictures)
    cases = draw_cases(QUERIES, candidates=CANDIDATES)
    bench = Benchmark(
        name="facts",
        split="test",
        queries=tuple(case.query for case in cases),
        qrels={case.query.id: dict.fromkeys(sorted(case.relevant), 1) for case in cases},
        images=images,
        candidate_sets={case.query.id: case.candidates for case in cases},
    )
    with closing(SqliteStore(folder / "cache.sqlite")) as store:
        lmm = CachedLMM(Slow(oracle_of(images), asked), store)
        unsure = Calibration(spread=5.0)  # so that there is something to compare
        agent = Agent(Deps(images=images, lmm=lmm, calibration=unsure, max_concurrency=4), load_strategy(strategy))
        budget = Budget(max_calls=max_calls or None)
        await evaluate(bench, [agent], folder / "out", query_concurrency=2, budget=budget)


if __name__ == "__main__":
    _, name, limit, *paths = sys.argv
    asyncio.run(main(name, int(limit), *map(Path, paths)))
