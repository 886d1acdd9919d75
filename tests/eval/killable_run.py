"""An evaluation to be killed: yes or no about each picture, with a model that notes each call."""

from __future__ import annotations

import asyncio
from multiprocessing.connection import Connection
from pathlib import Path

from fieldscope.agent.graph import Agent
from fieldscope.agent.lmm.cached import CachedLMM
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.cache.sqlite import SqliteStore
from fieldscope.eval.benchmarks.inquire_rerank import load_inquire_rerank
from fieldscope.eval.harness import evaluate
from tests.eval.killing import Noted


def main(parquet: Path, folder: Path, most: int, notes: Connection) -> None:
    """Evaluate in `folder`, with `most` calls that are answered. P(yes) is drawn from the picture's hash."""
    bench = load_inquire_rerank(parquet, name="mini")
    model = ScriptedLMM(lambda request: 0.05 + 0.9 * int(request.images[0].sha256[:8], 16) / 16**8)
    lmm = CachedLMM(Noted(model, notes.send, most), SqliteStore(folder / "cache.sqlite"))
    agent = Agent(
        Resources(images=bench.images, lmm=lmm, max_concurrency=2), load_strategy("yes-no-fused", prompts="fieldnotes")
    )
    asyncio.run(evaluate(bench, [agent], folder / "out", query_concurrency=2))
