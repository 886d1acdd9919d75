"""An evaluation to be killed, of a whole strategy, with a model that tells the truth and notes each call."""

from __future__ import annotations

import asyncio
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path

from fieldscope.agent.budget import Budget
from fieldscope.agent.calibration import Calibration
from fieldscope.agent.graph import Agent
from fieldscope.agent.lmm.cached import CachedLMM
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.cache.sqlite import SqliteStore
from fieldscope.eval.harness import evaluate
from fieldscope.eval.types import Benchmark
from fieldscope.retrieval.collection import FolderCollection
from tests.agent.oracle import draw_cases, oracle_of
from tests.eval.killing import Noted

QUERIES = 4
CANDIDATES = 12


def main(strategy: str, max_calls: int, pictures: Path, folder: Path, most: int, notes: Connection) -> None:
    """Evaluate in `folder`, with `most` calls that are answered. A `max_calls` of 0 is no limit."""
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
        lmm = CachedLMM(Noted(oracle_of(images), notes.send, most), store)
        unsure = Calibration(spread=5.0)  # so that there is something to compare
        agent = Agent(
            Resources(images=images, lmm=lmm, calibration=unsure, max_concurrency=4),
            load_strategy(strategy, prompts="fieldnotes"),
        )
        budget = Budget(max_calls=max_calls or None)
        asyncio.run(evaluate(bench, [agent], folder / "out", query_concurrency=2, budget=budget))
