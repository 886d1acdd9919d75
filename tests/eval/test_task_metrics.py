"""The metrics of composed and dialogue tasks, worked out by hand, and what a run's summary says of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.agent.types import RankedCandidate, RerankResult
from fieldscope.core.types import Query, Turn
from fieldscope.eval.measures import metrics
from fieldscope.eval.measures.scoring import HEADLINE, METRICS, Scores, score, shown_metrics
from fieldscope.eval.reported import RIGHTLY, WRONGLY
from fieldscope.eval.types import Benchmark
from fieldscope.retrieval.collection import FilesCollection

# relevance, positives, k, hits@k, recall@k, AP@k as CIRCO has it: over min(positives, k).
TABLE = [
    ([0, 1, 0, 1, 0], 3, 1, 0.0, 0.0, 0.0),
    ([0, 1, 0, 1, 0], 3, 2, 1.0, 1 / 3, (1 / 2) / 2),
    ([0, 1, 0, 1, 0], 3, 5, 1.0, 2 / 3, (1 / 2 + 2 / 4) / 3),
    ([1, 0, 0, 0, 0], 1, 1, 1.0, 1.0, 1.0),
    ([1, 1, 1, 0, 0], 4, 2, 1.0, 2 / 4, (1 + 1) / 2),
    ([0, 0, 0, 0, 0], 2, 5, 0.0, 0.0, 0.0),
    ([], 1, 10, 0.0, 0.0, 0.0),
]


@pytest.mark.parametrize(("relevance", "positives", "k", "hit", "recall", "ap"), TABLE)
def test_hand_computed(relevance: list[int], positives: int, k: int, hit: float, recall: float, ap: float) -> None:
    assert metrics.hits(relevance, positives, k) == hit
    assert metrics.recall(relevance, positives, k) == pytest.approx(recall, abs=1e-15)
    assert metrics.average_precision(relevance, positives, k) == pytest.approx(ap, abs=1e-15)


def test_hits_of_many_queries_leave_out_those_without_positives() -> None:
    values = metrics.hits([[0, 1, 0], [0, 0, 0], [1, 0, 0], [0, 0, 1]], [1, 0, 2, 1], 2)
    np.testing.assert_array_equal(values, [1.0, np.nan, 1.0, 0.0])
    assert metrics.mean(values) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="k must be at least 1"):
        metrics.hits([1], 1, 0)


def ranked(query_id: str, *images: str) -> RerankResult:
    ranking = tuple(
        RankedCandidate(image_id=image, rank=rank, score=-rank, prior=-rank, prior_rank=rank)
        for rank, image in enumerate(images, start=1)
    )
    return RerankResult(query_id=query_id, query_text="", strategy="s", ranking=ranking)


def benchmark(*queries: Query, relevant: dict[str, list[str]]) -> Benchmark:
    qrels = {query: dict.fromkeys(images, 1) for query, images in relevant.items()}
    return Benchmark("b", "test", queries, qrels, FilesCollection({}))


def dialogues() -> tuple[Benchmark, dict[str, RerankResult]]:
    """Two dialogues, of two rounds and of one."""
    turns = (Turn(question="what?", answer="a crab"), Turn(question="where?", answer="on snow"))
    queries = [Query(id=f"d0.{n}", text="a", dialogue=turns[:n]) for n in range(3)]
    queries += [Query(id=f"d1.{n}", text="b", dialogue=turns[:n]) for n in range(2)]
    relevant = {query.id: ["x", "y"] if query.id.startswith("d0") else ["z"] for query in queries}
    found = [
        ranked("d0.0", "p", "q", "x"),
        ranked("d0.1", "x", "p", "q"),
        ranked("d0.2", "y", "x", "p"),
        ranked("d1.0", "p", "q", "r"),
        ranked("d1.1", "p", "z", "q"),
    ]
    return benchmark(*queries, relevant=relevant), {result.query_id: result for result in found}


def test_a_dialogue_is_scored_after_every_round() -> None:
    bench, results = dialogues()
    assert bench.rounds == {"d0.0": 0, "d0.1": 1, "d0.2": 2, "d1.0": 0, "d1.1": 1}
    by_round = score(bench, results).by_round()
    assert list(by_round) == [0, 1, 2]
    assert [means["dialogues"] for means in by_round.values()] == [2, 2, 2]
    assert [means["hits@1"] for means in by_round.values()] == [0.0, 0.5, 0.5]
    assert [means["hits@5"] for means in by_round.values()] == [0.5, 1.0, 1.0]
    assert [means["mAP@5"] for means in by_round.values()] == pytest.approx(
        [(1 / 3 / 2 + 0) / 2, (1 / 2 + 1 / 2) / 2, (1.0 + 1 / 2) / 2]
    )
    assert [means["recall@10"] for means in by_round.values()] == [0.25, 0.75, 1.0]


def test_a_part_of_the_queries_is_scored_by_its_own_rounds() -> None:
    bench, results = dialogues()
    first = {query_id: results[query_id] for query_id in ("d0.0", "d0.1")}
    assert {done: means["hits@1"] for done, means in score(bench, first).by_round().items()} == {0: 0.0, 1: 1.0}


def one_target(*found: bool, id: str = "d", text: str = "a") -> tuple[list[Query], dict[str, RerankResult]]:
    """A dialogue of so many queries, whose target `x` comes first where it is found, and else third."""
    turns = tuple(Turn(question="what?", answer=f"{id} {n}") for n in range(len(found)))
    queries = [Query(id=f"{id}.{n}", text=text, dialogue=turns[:n]) for n in range(len(found))]
    results = [ranked(query.id, *("xpq" if hit else "pqx")) for query, hit in zip(queries, found, strict=True)]
    return queries, {result.query_id: result for result in results}


def rounds_of(*dialogues: tuple[list[Query], dict[str, RerankResult]]) -> Scores:
    queries = [query for of, _ in dialogues for query in of]
    bench = benchmark(*queries, relevant={query.id: ["x"] for query in queries})
    return score(bench, {query_id: result for _, of in dialogues for query_id, result in of.items()})


def test_a_hit_is_carried_over_the_rounds_and_recall_is_of_each_alone() -> None:
    scores = rounds_of(one_target(False, True, False))
    by_round = scores.by_round()
    assert [means["hits@1"] for means in by_round.values()] == [0, 1, 1]  # ChatIR
    assert [means["recall@1"] for means in by_round.values()] == [0, 1, 0]  # PlugIR
    assert scores.means()["hits@1"] == 1
    assert [values["hits@1"] for values in scores.per_query().values()] == [None, None, 1]
    assert [values["recall@1"] for values in scores.per_query().values()] == [0, 1, 0]


def test_every_round_has_all_dialogues_and_those_that_ended_count_as_they_ended() -> None:
    scores = rounds_of(
        one_target(True, id="early"),
        one_target(False, False, id="lost"),
        one_target(False, False, False, True, id="late"),
        one_target(False, True, False, False, id="once"),
    )
    by_round = scores.by_round()
    assert list(by_round) == [0, 1, 2, 3]
    assert {means["dialogues"] for means in by_round.values()} == {4}
    assert [means["hits@1"] for means in by_round.values()] == [0.25, 0.5, 0.5, 0.75]
    assert [means["recall@1"] for means in by_round.values()] == [0.25, 0.5, 0.25, 0.5]
    assert scores.means()["hits@1"] == 0.75


def test_a_dialogue_with_nothing_to_find_in_some_round_is_left_out_of_all() -> None:
    queries, results = one_target(True, True, id="blind")
    others, found = one_target(False, True)
    relevant = {query.id: ["x"] for query in (*queries, *others)} | {"blind.1": []}
    scores = score(benchmark(*queries, *others, relevant=relevant), {**results, **found})
    assert [(means["dialogues"], means["hits@1"]) for means in scores.by_round().values()] == [(1, 0), (1, 1)]


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=5), min_size=1, max_size=5))
def test_hits_never_fall_and_end_where_the_run_s_do(found: list[list[bool]]) -> None:
    scores = rounds_of(*(one_target(*hits, id=f"d{n}") for n, hits in enumerate(found)))
    by_round = scores.by_round()
    if len(by_round) > 1:
        hits = [means["hits@1"] or 0.0 for means in by_round.values()]
        assert hits == sorted(hits)
        assert hits[-1] == scores.means()["hits@1"] == pytest.approx(sum(map(any, found)) / len(found))


def test_carried_by_hand() -> None:
    rounds = [[0.0, 1.0, 0.0], [1.0, np.nan, 0.0], [np.nan, 0.0, 1.0]]
    np.testing.assert_array_equal(metrics.carried(rounds), [[0, 1, 1], [1, np.nan, 1], [np.nan, 0, 1]])


def test_other_benchmarks_have_no_rounds() -> None:
    bench = benchmark(Query(id="q", text="a"), relevant={"q": ["x"]})
    assert bench.rounds == {}
    scores = score(bench, {"q": ranked("q", "y", "x")})
    assert scores.by_round() == {}
    assert scores.means()["hits@5"] == 1.0


def test_a_summary_carries_what_its_task_is_measured_by() -> None:
    text = benchmark(Query(id="q", text="a"), relevant={"q": ["x"]})
    composed = benchmark(Query(id="q", text="a", reference_image="r"), relevant={"q": ["x"]})
    added = {name: set(shown_metrics(bench)) - set(HEADLINE) for name, bench in (("t", text), ("c", composed))}
    assert added["t"] == {"first-stage recall@100", RIGHTLY, WRONGLY}
    recalls = {f"recall@{k}" for k in (1, 5, 10, 50)}
    assert added["c"] - added["t"] == {"mAP@5", "mAP@10", "mAP@25"} | recalls
    assert "mAP@50" in shown_metrics(composed)
    assert set(shown_metrics(dialogues()[0])) - set(shown_metrics(text)) == {"hits@1", "hits@5", "hits@10"}
    for bench in (text, composed):
        assert set(shown_metrics(bench)) <= set(score(bench, {"q": ranked("q", "x")}).means())


def test_metrics_have_names_for_programs(tmp_path: Path) -> None:
    """All means of a round survive the way through JSON."""
    bench, results = dialogues()
    path = tmp_path / "by_round.json"
    path.write_text(json.dumps(score(bench, results).by_round()))
    assert set(json.loads(path.read_text())["2"]) >= {f"hits@{k}" for k in (1, 5, 10)} | {"mAP@50", "MRR"}
    assert {f"AP@{k}" for k in (5, 10, 25, 50)} < set(METRICS)
