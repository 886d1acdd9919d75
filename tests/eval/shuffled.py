"""A benchmark with ids that no file format likes, and a reranker that ranks it by chance."""

from __future__ import annotations

import random
from typing import Any

from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.agent.types import RankedCandidate, RerankResult
from fieldscope.core.types import Candidate, Query
from fieldscope.eval.types import Benchmark
from fieldscope.retrieval.collection import FilesCollection

IDS = ("plain", "with space", "per%cent", "tab\tbed", "no-break\u00a0space", "dir/é.jpg", "#1", '"quoted"', "a|b")


class Shuffled:
    """A reranker that ranks by chance, with scores that single precision can hardly tell apart."""

    account = None
    strategy = load_strategy("clip", prompts="fieldnotes")

    async def rerank(self, query: Query, candidates: Any = None, *, budget: Any = None) -> RerankResult:
        chance = random.Random(query.id)
        order = chance.sample(list(enumerate(candidates, start=1)), k=len(candidates))
        ranking = tuple(
            RankedCandidate(image_id=c.image_id, rank=n, score=1 - n * 1e-9, prior=c.prior, prior_rank=before)
            for n, (before, c) in enumerate(order, start=1)
        )
        return RerankResult(query_id=query.id, query_text=query.text, strategy="clip", ranking=ranking)


def strange_benchmark() -> Benchmark:
    """Twenty queries of one hundred candidates or fewer, with ids that a file split at white space must survive."""
    chance = random.Random(7)
    queries = tuple(Query(id=f"{IDS[n % len(IDS)]} {n}", text="?") for n in range(20))
    sets = {}
    qrels = {}
    for n, query in enumerate(queries):
        images = [f"{IDS[i % len(IDS)]}{i}" for i in range(100 if n % 2 else 3 + n)]
        sets[query.id] = tuple(Candidate(image, -float(i)) for i, image in enumerate(images))
        relevant = chance.sample(images, k=min(len(images), (1, 2, 100, 55)[n % 4]))
        qrels[query.id] = {image: int(image in relevant) for image in images}
    return Benchmark("strange", "validation", queries, qrels, FilesCollection({}), sets)
