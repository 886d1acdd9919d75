"""The share of near misses in the first ten places: a metric where the benchmark knows them, and absent elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fieldscope.agent.types import RankedCandidate, RerankResult
from fieldscope.eval.measures.run_comparison import compare_runs
from fieldscope.eval.measures.scoring import NEAR_MISSES, score, shown_metrics
from fieldscope.eval.runs.inputs import QueryLine, benchmark_lines, make_benchmark
from fieldscope.eval.runs.scored import read_scored
from fieldscope.eval.types import Benchmark
from fieldscope.fieldnotes.queries import images_one_fact_short, load_split
from tests.eval.fabricated import fabricate


def ranked(benchmark: Benchmark, query_id: str) -> RerankResult:
    ids = sorted(benchmark.candidate_ids(query_id), key=int)
    ranking = tuple(
        RankedCandidate(image_id=i, rank=n, score=-float(n), prior=0.0, prior_rank=n)
        for n, i in enumerate(ids, start=1)
    )
    return RerankResult(query_id=query_id, query_text="", strategy="by id", ranking=ranking)


@pytest.fixture
def known(bench: Benchmark) -> Benchmark:
    """The first query has two near misses in its list; the others have none."""
    first = bench.queries[0].id
    near = {query.id: frozenset[str]() for query in bench.queries}
    return replace(bench, near_misses={**near, first: frozenset(bench.candidate_ids(first)[-2:])})


def test_the_share_is_out_of_ten_places(known: Benchmark) -> None:
    scores = score(known, {query.id: ranked(known, query.id) for query in known.queries})
    assert scores.values[NEAR_MISSES].tolist() == [0.2, 0, 0, 0, 0]
    assert scores.means()[NEAR_MISSES] == pytest.approx(0.04)
    assert NEAR_MISSES in shown_metrics(known)


def test_a_benchmark_that_does_not_know_them_has_no_such_metric(bench: Benchmark) -> None:
    scores = score(bench, {query.id: ranked(bench, query.id) for query in bench.queries})
    assert NEAR_MISSES not in scores.values and NEAR_MISSES not in shown_metrics(bench)


def test_it_is_over_the_queries_of_the_other_means_and_over_all_where_none_has_a_match(known: Benchmark) -> None:
    first = known.queries[0].id
    partly = replace(known, qrels={**known.qrels, first: {}})
    scores = score(partly, {query.id: ranked(partly, query.id) for query in partly.queries})
    assert scores.per_query()[first][NEAR_MISSES] is None
    assert scores.means()[NEAR_MISSES] == 0
    without = replace(known, qrels={query_id: {} for query_id in known.qrels})
    scores = score(without, {query.id: ranked(without, query.id) for query in without.queries})
    assert scores.means()[NEAR_MISSES] == pytest.approx(0.04)
    assert scores.means()["mAP@50"] is None


def test_a_recorded_benchmark_keeps_them_and_its_fingerprint(known: Benchmark, bench: Benchmark) -> None:
    assert known.fingerprint == bench.fingerprint
    line, *queries = benchmark_lines(known)
    lines = [each for each in queries if isinstance(each, QueryLine)]
    assert make_benchmark(line, lines, known.images).near_misses == known.near_misses  # type: ignore[arg-type]
    _, *without = benchmark_lines(bench)
    assert all("near_misses" not in each.model_dump_json(exclude_none=True) for each in without)


def test_runs_are_compared_in_it_where_all_of_them_know_it(tmp_path: Path) -> None:
    runs = [fabricate(tmp_path / name, {"q1": 0.5, "q2": 1.0}) for name in "ab"]
    without = [read_scored(folder) for folder in runs]
    assert NEAR_MISSES not in compare_runs(without).metrics
    shares = ({"q1": 0.3, "q2": 0.1}, {"q1": 0.1, "q2": 0.1})
    having = [
        replace(run, values={query: {**values, NEAR_MISSES: own[query]} for query, values in run.values.items()})
        for run, own in zip(without, shares, strict=True)
    ]
    (pair,) = compare_runs(having).pairs
    assert pair.effects[NEAR_MISSES].test.difference == pytest.approx(-0.1)
    assert NEAR_MISSES not in compare_runs([having[0], without[1]]).metrics


def test_near_misses_are_the_images_that_lack_one_fact() -> None:
    split = load_split("validation")
    near = images_one_fact_short(split)
    for query in split.queries:
        facts = query.spec.facts()
        assert near[query.id] == {
            i for i, scene in split.scenes.items() if query.spec.satisfied(scene) == len(facts) - 1
        }
        assert near[query.id] and not near[query.id] & split.relevant[query.id]
