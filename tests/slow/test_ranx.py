"""ranx reads a run's TREC files and agrees; slow, since numba compiles it on its first use."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import unquote

import pytest
import ranx  # type: ignore[import-untyped]

from fieldscope.agent.graph import Agent
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.eval.harness import Reranker, evaluate
from tests.eval.shuffled import Shuffled, strange_benchmark

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# Ours and ranx's. Where k reaches all positives, AP@k is the same.
SHARED = {
    "AP@100": "map@100", "nDCG@10": "ndcg@10", "nDCG@50": "ndcg@50", "nDCG@100": "ndcg@100", "RR": "mrr",
    "P@10": "precision@10", "recall@10": "recall@10", "hits@5": "hit_rate@5",
}  # fmt: skip


async def test_every_query_has_the_same_metrics(tmp_path: Path) -> None:
    (summary,) = await evaluate(strange_benchmark(), [Shuffled()], tmp_path)
    ours = json.loads((summary.out / "metrics.json").read_text())["per_query"]
    run = ranx.Run.from_file(str(summary.out / "run.trec"))
    ranx.evaluate(ranx.Qrels.from_file(str(summary.out / "qrels.trec")), run, list(SHARED.values()))
    for name, theirs in SHARED.items():
        assert {unquote(query) for query in run.scores[theirs]} == set(ours)
        for query, value in run.scores[theirs].items():
            assert value == pytest.approx(ours[unquote(query)][name], abs=1e-9), (name, query)


async def test_its_comparison_has_our_means_by_the_names_of_strategies(tmp_path: Path) -> None:
    bench = strange_benchmark()
    prior = Agent(
        Resources(bench.images, None), load_strategy("clip", prompts="fieldnotes").model_copy(update={"name": "prior"})
    )
    agents: list[Reranker] = [Shuffled(), prior]
    runs = await evaluate(bench, agents, tmp_path)
    qrels = ranx.Qrels.from_file(str(runs[0].out / "qrels.trec"))
    read = [ranx.Run.from_file(str(summary.out / "run.trec")) for summary in runs]
    assert [run.name for run in read] == ["clip", "prior"]
    report = ranx.compare(qrels, read, ["map@100", "ndcg@50", "mrr"], stat_test="student").to_dict()
    for summary in runs:
        scores = report[summary.strategy]["scores"]
        for ours, theirs in (("mAP@100", "map@100"), ("nDCG@50", "ndcg@50"), ("MRR", "mrr")):
            assert scores[theirs] == pytest.approx(summary.metrics[ours], abs=1e-9)
