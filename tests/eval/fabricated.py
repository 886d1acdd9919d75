"""Finished runs with scores that a test chooses, written as the harness writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from fieldscope.agent.types import Call, RankedCandidate, RerankResult
from fieldscope.eval.runs.runfolder import RunFolder
from fieldscope.eval.runs.trec import qrels_lines

Scores = Mapping[str, float]
TEXTS = {"q1": "a red crab", "q2": "two <b>owls</b> | asleep", "q3": "a heron"}


def fabricate(
    folder: Path,
    scores: Scores,
    *,
    texts: Mapping[str, str] | None = None,
    qrels: Mapping[str, Mapping[str, int]] | None = None,
    groups: Mapping[str, Mapping[str, str]] | None = None,
    calls: int = 0,
    lmm: str | None = None,
) -> Path:
    """A run whose AP@50, nDCG@50 and RR are each query's score, half of it, and 1; its calls take 10 tokens, write 2,
    and last half a second each."""
    configuration = {
        "benchmark": {"name": "birds", "split": "test", "fingerprint": "f"},
        "strategy": {"name": folder.name},
        "lmm": lmm,
    }
    run = RunFolder(folder, configuration)
    for query in scores:
        call = Call(state="answered", stage="joint", prompt_tokens=10, completion_tokens=2, latency=0.5, cached=True)
        result = RerankResult(
            query_id=query,
            query_text=(texts or TEXTS).get(query, f"picture {query}"),
            strategy=folder.name,
            ranking=(RankedCandidate(image_id="1", rank=1, score=1.0, prior=0.5, prior_rank=1),),
            calls=(call,) * calls,
        )
        run.commit(result, {})
    run.write("qrels.trec", qrels_lines(qrels or {query: {"1": 1, "2": 0} for query in scores}))
    metrics = {
        "benchmark": "birds",
        "split": "test",
        "strategy": folder.name,
        "cost": {"calls": calls * len(scores), "seconds": 0.1},
        "asked": calls * len(scores),
        "unknown": 0,
        "ended": {},
        "per_query": {
            query: {"positives": 1, "AP@50": score, "nDCG@50": score / 2, "RR": 1.0} for query, score in scores.items()
        },
        "groups": dict(groups or {}),
    }
    run.write("metrics.json", [json.dumps(metrics)])
    run.close()
    return folder
