"""Runs against each other, on finished runs with chosen scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.core.errors import ConfigError
from fieldscope.eval.measures.paired import compare, holm
from fieldscope.eval.measures.run_comparison import ScoredComparison, compare_runs, front
from fieldscope.eval.runs.read import names_of, read_metric, run_folders
from fieldscope.eval.runs.scored import read_scored, require_same_task
from tests.eval.fabricated import TEXTS, Scores, fabricate

A: Scores = {"q1": 0.2, "q2": 0.5, "q3": 0.9}
B: Scores = {"q1": 0.8, "q2": 0.5, "q3": 0.6}
C: Scores = {"q1": 1.0, "q2": 0.6, "q3": 1.0}


def of(folder: Path, **runs: Scores) -> ScoredComparison:
    return compare_runs([read_scored(fabricate(folder / name, scores), name) for name, scores in runs.items()])


def test_two_runs_by_hand(tmp_path: Path) -> None:
    found = of(tmp_path, a=A, b=B)
    (pair,) = found.pairs
    assert (pair.a.name, pair.b.name) == ("a", "b")
    effect = pair.effects["AP@50"]
    assert effect.test.difference == pytest.approx(0.1)
    assert effect.test == compare(A, B)
    assert effect.p_holm == effect.test.p == 1  # 0.6 and 0.3 give at least 0.3 under all four signs
    assert pair.effects["nDCG@50"].test.difference == pytest.approx(0.05)
    assert pair.effects["MRR"].test.p == 1
    assert (pair.won("AP@50"), pair.tied("AP@50"), pair.lost("AP@50")) == (["q1"], ["q2"], ["q3"])
    assert pair.tied("MRR") == ["q1", "q2", "q3"]
    assert list(pair.differences["AP@50"]) == ["q1", "q2", "q3"]
    assert effect.detectable is None  # three queries show nothing


def test_every_pair_and_holm_over_the_pairs_of_a_metric(tmp_path: Path) -> None:
    found = of(tmp_path, a=A, b=B, c=C)
    assert [(pair.a.name, pair.b.name) for pair in found.pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    for metric in ("AP@50", "nDCG@50", "MRR"):
        effects = [pair.effects[metric] for pair in found.pairs]
        assert tuple(effect.p_holm for effect in effects) == holm([effect.test.p for effect in effects])


def test_groups_are_tests_of_their_own(tmp_path: Path) -> None:
    queries = [f"q{n:02d}" for n in range(20)]
    groups = {q: {"supercategory": "odd" if int(q[1:]) % 2 else "even", "category": "one"} for q in queries}
    groups["q00"]["supercategory"] = ""
    before = fabricate(tmp_path / "a", dict.fromkeys(queries, 0.5), groups=groups)
    scores = {q: 0.5 + (0.1 if int(q[1:]) % 2 else 0) for q in queries}
    after = fabricate(tmp_path / "b", scores, groups=groups)
    (pair,) = compare_runs([read_scored(before), read_scored(after)]).pairs
    assert set(pair.groups) == {"supercategory"}  # the one category tells no queries apart
    odd, even = pair.groups["supercategory"]["odd"]["AP@50"], pair.groups["supercategory"]["even"]["AP@50"]
    assert (odd.test.queries, even.test.queries) == (10, 9)
    assert odd.test.difference == pytest.approx(0.1)
    assert odd.test.p == 2 / 2**10
    assert odd.p_holm == 4 / 2**10
    assert even.test.p == 1
    assert pair.effects["AP@50"].test.difference == pytest.approx(0.05)


def test_a_run_is_read_back(tmp_path: Path) -> None:
    run = read_scored(fabricate(tmp_path / "a", A, calls=3, lmm="openai:vl#png"))
    assert (run.name, run.benchmark, run.lmm) == ("a", ("birds", "test"), "openai:vl#png")
    assert (run.spent.calls, run.spent.tokens, run.spent.seconds, run.spent.wall) == (9, 108, 4.5, 0.1)
    assert run.text("q1") == TEXTS["q1"]
    assert run.judgments == {query: {"1": 1, "2": 0} for query in A}


def test_queries_without_positives_are_left_out_and_told(tmp_path: Path) -> None:
    for name in "ab":
        file = fabricate(tmp_path / name, A) / "metrics.json"
        metrics = json.loads(file.read_text())
        metrics["per_query"]["q2"] = {"positives": 0, "AP@50": None, "nDCG@50": None, "RR": None}
        file.write_text(json.dumps(metrics))
    found = compare_runs([read_scored(tmp_path / name) for name in "ab"])
    assert found.queries == 2
    assert "1 of 3 queries have nothing relevant to find and are left out" in found.notes


def test_other_queries_are_refused_and_named(tmp_path: Path) -> None:
    one = read_scored(fabricate(tmp_path / "a", A))
    fewer = read_scored(fabricate(tmp_path / "b", {"q1": 0.5}))
    with pytest.raises(ConfigError, match=r"different queries: q2, q3 only in .*/a\."):
        require_same_task([one, fewer])
    with pytest.raises(ConfigError, match=r"different queries: q2, q3 only in .*/a\."):
        require_same_task([fewer, one])
    other = read_scored(fabricate(tmp_path / "c", A, texts={**TEXTS, "q3": "a stork"}))
    with pytest.raises(ConfigError, match="different queries: q3 does not ask for the same"):
        compare_runs([one, one, other])


def test_other_qrels_are_refused_and_named(tmp_path: Path) -> None:
    one = read_scored(fabricate(tmp_path / "a", A))
    qrels = {query: {"1": 1, "2": 0} for query in A} | {"q2": {"1": 1, "2": 1, "an image": 1}}
    other = read_scored(fabricate(tmp_path / "b", A, qrels=qrels))
    with pytest.raises(ConfigError, match=r"different qrels: q2 \(in q2 the images 2, an image\)"):
        compare_runs([one, other])


def test_many_differences_are_counted(tmp_path: Path) -> None:
    one = read_scored(fabricate(tmp_path / "a", {f"q{n}": 0.5 for n in range(9)}))
    other = read_scored(fabricate(tmp_path / "b", {"q0": 0.5}))
    with pytest.raises(ConfigError, match="q1, q2, q3 and 5 more only in"):
        compare_runs([one, other])


def test_unknown_metrics_are_named(tmp_path: Path) -> None:
    run = read_scored(fabricate(tmp_path / "a", A))
    with pytest.raises(ConfigError, match=r"unknown metric 'AP@51' \(did you mean 'AP@50'\?\)"):
        compare_runs([run, run], ["AP@51"])


@pytest.mark.parametrize("name", ["manifest.json", "metrics.json", "results.jsonl", "qrels.trec"])
def test_unfinished_runs_are_refused(tmp_path: Path, name: str) -> None:
    folder = fabricate(tmp_path / "a", A)
    (folder / name).write_text("{")
    with pytest.raises(ConfigError, match=f"holds no finished run.*{name}"):
        read_scored(folder)


def test_folders_of_several_runs_and_their_names(tmp_path: Path) -> None:
    for name in ("one/clip", "one/agent", "two/clip"):
        fabricate(tmp_path / name, A)
    found = run_folders([tmp_path / "one", tmp_path / "two" / "clip", tmp_path / "one" / "clip"])
    assert found == [tmp_path / "one" / "agent", tmp_path / "one" / "clip", tmp_path / "two" / "clip"]
    assert names_of(found) == ["agent", "one/clip", "two/clip"]
    with pytest.raises(ConfigError, match="holds no run"):
        run_folders([tmp_path])


def test_fronts(tmp_path: Path) -> None:
    free = read_scored(fabricate(tmp_path / "free", A))
    dear = read_scored(fabricate(tmp_path / "dear", B, calls=5))
    good = read_scored(fabricate(tmp_path / "good", C, calls=2))
    found = compare_runs([free, dear, good])
    assert found.fronts == {cost: ["free", "good"] for cost in ("calls", "tokens", "seconds")}


costs = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=8)


@given(costs)
def test_a_front_leaves_out_what_another_run_beats_and_nothing_else(points: list[tuple[int, int]]) -> None:
    on_front = front([cost for cost, _ in points], [quality for _, quality in points])
    kept = [point for point, is_on in zip(points, on_front, strict=True) if is_on]
    assert kept
    for (cost, quality), is_on in zip(points, on_front, strict=True):
        beaten = [(c, q) for c, q in kept if c <= cost and q >= quality and (c, q) != (cost, quality)]
        assert is_on == (not beaten)


def test_hits_that_an_earlier_version_counted_for_each_round_alone_are_not_read(tmp_path: Path) -> None:
    """A run of this version carries them over the rounds; the two must not be compared."""
    run = fabricate(tmp_path / "s", {"q1": 0.5, "q2": 0.25})
    path = run / "metrics.json"
    told = json.loads(path.read_text())
    for values in told["per_query"].values():
        values |= {"hits@1": 1.0, "recall@1": 1.0}
    for by_round, read in (({"0": {"hits@1": 1.0}}, False), ({"0": {"hits@1": 1.0, "dialogues": 2}}, True)):
        path.write_text(json.dumps(told | {"by_round": by_round}))
        values = read_scored(run).values["q1"]
        assert ("hits@1" in values, "recall@1" in values) == (read, True)
        if read:
            assert read_metric(run, "hits@1") == {"q1": 1.0, "q2": 1.0}
        else:
            with pytest.raises(ConfigError, match="has no metric 'hits@1'"):
                read_metric(run, "hits@1")
