"""The seeded scorers of `checks/cascade.py` are as skilled as they say, and the check sees what is out of bounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from checks.cascade import Outcome, SeededScorer, reached
from fieldscope.agent.usage import Usage
from fieldscope.core.types import Candidate, Query
from fieldscope.eval.types import Benchmark
from fieldscope.retrieval.collection import FilesCollection

QUERY = Query(id="q", text="a crab")


def bench(images: int) -> Benchmark:
    ids = [str(n) for n in range(images)]
    return Benchmark(
        name="b",
        split="validation",
        queries=(QUERY,),
        qrels={"q": {image_id: int(image_id) % 10 == 0 for image_id in ids}},
        images=FilesCollection({name: Path(name) for name in ids}),
        candidate_sets={"q": tuple(Candidate(image_id, 0.0) for image_id in ids)},
    )


@pytest.mark.parametrize("auc", [0.95, 0.85, 0.5])
async def test_a_seeded_scorer_has_its_auc(auc: float) -> None:
    benchmark = bench(20_000)
    scores = await SeededScorer(benchmark, auc).scores(QUERY, [str(n) for n in range(20_000)])
    values = np.array([score.value for score in scores])
    judged = benchmark.judgments("q")
    relevant = np.array([judged[score.image_id] for score in scores], dtype=np.bool_)
    ranks = values.argsort().argsort() + 1
    hits = relevant.sum()
    measured = (ranks[relevant].sum() - hits * (hits + 1) / 2) / (hits * (len(values) - hits))
    assert measured == pytest.approx(auc, abs=0.01)


async def test_a_seed_decides_every_score() -> None:
    benchmark = bench(20)
    ids = [str(n) for n in range(20)]
    first = await SeededScorer(benchmark, 0.85).scores(QUERY, ids)
    assert list(await SeededScorer(benchmark, 0.85).scores(QUERY, ids[::-1]))[::-1] == list(first)
    assert await SeededScorer(benchmark, 0.85, seed=1).scores(QUERY, ids) != first


def run(calls: int, points: float) -> Outcome:
    return Outcome("r", Usage(calls=calls), 0, points)


def test_what_is_out_of_bounds_is_said() -> None:
    agent = run(1000, 90.0)
    assert reached({None: agent, 0.95: run(400, 89.5), 0.85: run(900, 10.0), 0.5: run(1200, 89.5)}) == []
    assert len(reached({None: agent, 0.95: run(401, 89.4), 0.5: run(10, 89.4)})) == 3
