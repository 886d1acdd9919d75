"""An evaluation to be killed, with a slow model that notes each call: `killable_run.py PARQUET STORE OUT ASKED`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from agent.deps import Deps
from agent.graph import Agent
from agent.lmm.base import LMMRequest, LMMResponse
from agent.lmm.cached import CachedLMM
from agent.lmm.scripted import ScriptedLMM
from agent.strategies.strategy import load_strategy
from cache.sqlite import SqliteStore
from eval.benchmarks.inquire_rerank import load_inquire_rerank
from eval.harness import evaluate


class Slow(ScriptedLMM):
    """P(yes) is drawn from the picture's hash; `asked` gets a line as each call begins."""

    def __init__(self, asked: Path) -> None:
        super().__init__(lambda request: 0.05 + 0.9 * int(request.images[0].sha256[:8], 16) / 16**8)
        self.asked = asked

    async def generate(self, request: LMMRequest) -> LMMResponse:
        with self.asked.open("a") as lines:
            lines.write(request.key(self.identity) + "\n")
        await asyncio.sleep(0.02)
        return await super().generate(request)


async def main(parquet: Path, store: Path, out: Path, asked: Path) -> None:
    bench = load_inquire_rerank(parquet, name="mini")
    lmm = CachedLMM(Slow(asked), SqliteStore(store))
    agent = Agent(Deps(images=bench.images, lmm=lmm, max_concurrency=2), load_strategy("yes-no-fused"))
    await evaluate(bench, [agent], out, query_concurrency=2)


if __name__ == "__main__":
    asyncio.run(main(*map(Path, sys.argv[1:])))
