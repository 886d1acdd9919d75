"""The TREC files of a run, read by trec_eval and ir_measures, which agree with what we wrote; ranx is in tests/slow."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import ir_measures
import pytest
import pytrec_eval

from fieldscope.eval.harness import evaluate
from tests.eval.shuffled import Shuffled, strange_benchmark

# Ours, trec_eval's, ir_measures'. Where k reaches all positives, AP@k is the same everywhere.
SHARED: Mapping[str, tuple[str, Any]] = {
    "AP@100": ("map_cut_100", ir_measures.AP @ 100),
    "nDCG@10": ("ndcg_cut_10", ir_measures.nDCG @ 10),
    "nDCG@50": ("ndcg_cut_50", ir_measures.nDCG @ 50),
    "nDCG@100": ("ndcg_cut_100", ir_measures.nDCG @ 100),
    "RR": ("recip_rank", ir_measures.RR),
    "P@10": ("P_10", ir_measures.P @ 10),
    "recall@10": ("recall_10", ir_measures.R @ 10),
    "hits@5": ("success_5", ir_measures.Success @ 5),
}


async def test_both_readers_agree_query_by_query(tmp_path: Path) -> None:
    (summary,) = await evaluate(strange_benchmark(), [Shuffled()], tmp_path)
    ours = json.loads((summary.out / "metrics.json").read_text())
    run_file, qrels_file = str(summary.out / "run.trec"), str(summary.out / "qrels.trec")
    with Path(run_file).open() as run_stream, Path(qrels_file).open() as qrels_stream:
        run, qrels = pytrec_eval.parse_run(run_stream), pytrec_eval.parse_qrel(qrels_stream)
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {trec for trec, _ in SHARED.values()}).evaluate(run)
    assert (
        {unquote(query) for query in theirs}
        == set(ours["per_query"])
        == {query.id for query in strange_benchmark().queries}
    )
    read_run = list(ir_measures.read_trec_run(run_file))  # type: ignore[no-untyped-call]
    read_qrels = list(ir_measures.read_trec_qrels(qrels_file))  # type: ignore[no-untyped-call]
    measured = {
        (unquote(found.query_id), str(found.measure)): found.value
        for found in ir_measures.iter_calc([measure for _, measure in SHARED.values()], read_qrels, read_run)
    }
    for name, (trec, measure) in SHARED.items():
        for query, values in theirs.items():
            own = ours["per_query"][unquote(query)][name]
            assert values[trec] == pytest.approx(own, abs=1e-9), (name, query)
            assert measured[unquote(query), str(measure)] == pytest.approx(own, abs=1e-9), (name, query)


async def test_ap_within_k_is_inquires_own_where_more_is_relevant_than_k(tmp_path: Path) -> None:
    """INQUIRE divides by min(positives, k), trec_eval by all positives; `docs/interchange.md` says so."""
    (summary,) = await evaluate(strange_benchmark(), [Shuffled()], tmp_path)
    ours = json.loads((summary.out / "metrics.json").read_text())["per_query"]
    read_run = ir_measures.read_trec_run(str(summary.out / "run.trec"))  # type: ignore[no-untyped-call]
    read_qrels = ir_measures.read_trec_qrels(str(summary.out / "qrels.trec"))  # type: ignore[no-untyped-call]
    many = 0
    for found in ir_measures.iter_calc([ir_measures.AP @ 50], list(read_qrels), list(read_run)):
        values = ours[unquote(found.query_id)]
        many += values["positives"] > 50
        assert found.value * values["positives"] / min(values["positives"], 50) == pytest.approx(values["AP@50"])
    assert many
    assert all(math.isfinite(values["AP@50"]) for values in ours.values())
