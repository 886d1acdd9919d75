"""The acceptance cases of the data sets' protocols, worked out by hand, and graded metrics against ir_measures."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

import ir_measures
import numpy as np
import pytest

from fieldscope.agent.types import RankedCandidate, RerankResult
from fieldscope.core.errors import ConfigError
from fieldscope.core.types import Query
from fieldscope.eval.measures import metrics
from fieldscope.eval.measures.named import canonical, metric
from fieldscope.eval.measures.scoring import Scores, score
from fieldscope.eval.protocol import PLAIN, Protocol
from fieldscope.eval.reported import CIRCO, CIRR, FASHIONIQ, GENERAL, VISDIAL, Reported
from fieldscope.eval.types import Benchmark, Qrels
from fieldscope.retrieval.collection import FilesCollection


def ranked(query: Query, images: Sequence[str]) -> RerankResult:
    ranking = tuple(
        RankedCandidate(image_id=image, rank=rank, score=-rank, prior=-rank, prior_rank=rank)
        for rank, image in enumerate(images, start=1)
    )
    return RerankResult(
        query_id=query.id, query_text=query.text, reference_image=query.reference_image, strategy="s", ranking=ranking
    )


def scored(
    rankings: Mapping[str, Sequence[str]],
    qrels: Qrels,
    protocol: Protocol = PLAIN,
    reported: Reported = GENERAL,
    reference: str | None = None,
    order: Sequence[str] | None = None,
) -> Scores:
    queries = tuple(Query(id=query_id, text="a change", reference_image=reference) for query_id in rankings)
    beyond = None if order is None else lambda query: order
    bench = Benchmark(
        "b", "test", queries, qrels, FilesCollection({}), reported=reported, protocol=protocol, beyond=beyond
    )
    return score(bench, {query.id: ranked(query, rankings[query.id]) for query in queries})


def test_circo_s_ap_is_over_the_fewer_of_answers_and_k() -> None:
    protocol = Protocol(credits={"q": {"B": 1.0}}, keeps_reference=True, metrics=("recall@1", "mAP@2", "recall@3"))
    means = scored({"q": ["A", "x", "B", "y", "z"]}, {"q": {"A": 1, "B": 1, "C": 1}}, protocol, CIRCO).means()
    assert means["mAP@5"] == pytest.approx((1 / 1 + 2 / 3) / 3) == pytest.approx(0.5556, abs=1e-4)
    assert means["mAP@2"] == 0.5
    assert (means["recall@1"], means["recall@3"]) == (0, 1)  # of the one target, whatever else is relevant


def test_circo_s_aspects_are_means_over_the_queries_that_carry_them() -> None:
    protocol = Protocol(
        credits={"p": {"A": 1.0}, "q": {"A": 1.0}},
        groups={"p": ("addition", "negation"), "q": ("addition",)},
        group_kind="semantic aspect",
    )
    scores = scored({"p": ["A", "x"], "q": ["x", "A"]}, {"p": {"A": 1}, "q": {"A": 1}}, protocol, CIRCO)
    aspects = scores.breakdowns()["semantic aspect"]
    assert {name: means["mAP@10"] for name, means in aspects.items()} == {"addition": 0.75, "negation": 1.0}
    assert scores.means()["mAP@10"] == 0.75


CIRR_RANKING = ["ref", "m1", "t", "m2", "x", "m3", "m4"]


def cirr(keeps_reference: bool = False, **credits: float) -> Protocol:
    return Protocol(
        keeps_reference=keeps_reference,
        credits={"q": credits or {"t": 1.0}},
        subsets={"q": ("m1", "t", "m2", "m3", "m4")},
        averages={"Avg": ("recall@5", "recall_subset@1")},
        metrics=("recall@2", "recall_subset@1", "recall_subset@2", "recall_subset@3"),
    )


def test_cirr_leaves_the_reference_out_and_looks_in_the_small_gallery() -> None:
    means = scored({"q": CIRR_RANKING}, {"q": {"t": 1}}, cirr(), CIRR, "ref").means()
    assert (means["recall@1"], means["recall@2"], means["recall@5"]) == (0, 1, 1)
    assert [means[f"recall_subset@{k}"] for k in (1, 2, 3)] == [0, 1, 1]
    assert means["Avg"] == 0.5
    kept = scored({"q": CIRR_RANKING}, {"q": {"t": 1}}, cirr(keeps_reference=True), CIRR, "ref").means()
    assert (kept["recall@2"], kept["recall_subset@2"]) == (0, 1)


def test_cirr_s_soft_targets_give_their_greatest_credit() -> None:
    means = scored({"q": ["m1", "m2", "t"]}, {"q": {"t": 1}}, cirr(t=1.0, m1=-1.0, m2=0.5), CIRR).means()
    assert (means["recall@1"], means["recall@2"], means["recall@5"]) == (0, 0.5, 1)


def test_members_beyond_the_ranking_follow_the_first_stage_or_are_unknown() -> None:
    """The ranking has only m1 of the small gallery, so the second place is open."""
    short = {"q": ["m1", "x", "y"]}
    known = scored(short, {"q": {"t": 1}}, cirr(), CIRR, order=["x", "t", "m1", "m2", "m3", "m4"]).means()
    assert [known[f"recall_subset@{k}"] for k in (1, 2)] == [0, 1]
    unknown = scored(short, {"q": {"t": 1}}, cirr(), CIRR).means()
    assert [unknown[f"recall_subset@{k}"] for k in (1, 2)] == [0, None]


def test_without_judgments_nothing_is_scored() -> None:
    for protocol, reported in ((cirr().model_copy(update={"credits": {}}), CIRR), (PLAIN, CIRCO)):
        means = scored({"q": CIRR_RANKING}, {"q": {}}, protocol, reported).means()
        assert means["recall@5"] is None and means[reported.mean] is None


@pytest.mark.parametrize(("keeps", "expected"), [(True, 0.0), (False, 1.0)])
def test_fashioniq_s_reference_takes_a_rank_where_it_is_kept(keeps: bool, expected: float) -> None:
    ranking = ["ref", *(f"x{n}" for n in range(9)), "t"]
    protocol = Protocol(keeps_reference=keeps)
    assert scored({"q": ranking}, {"q": {"t": 1}}, protocol, FASHIONIQ, "ref").means()["recall@10"] == expected


def test_fashioniq_s_categories_count_alike() -> None:
    rankings = {"d0": ["t"], "d1": ["x"], "d2": ["x"], "s0": ["t"]}
    protocol = Protocol(
        groups={query: ({"d": "dress", "s": "shirt"}[query[0]],) for query in rankings},
        group_kind="garment",
        by_group=True,
        averages={"Avg": ("recall@10", "recall@50")},
    )
    scores = scored(rankings, {query: {"t": 1} for query in rankings}, protocol, FASHIONIQ)
    assert scores.means()["recall@10"] == scores.means()["Avg"] == pytest.approx((1 / 3 + 1) / 2)
    garments = scores.breakdowns()["garment"]
    assert {name: means["recall@10"] for name, means in garments.items()} == {"dress": 1 / 3, "shirt": 1.0}


def dialogue(hits: Sequence[bool], **more: int) -> Scores:
    ids = tuple(f"0.{done}" for done in range(len(hits)))
    rankings = {query: ["t", "x"] if hit else ["x", "y"] for query, hit in zip(ids, hits, strict=True)}
    protocol = Protocol(dialogues=(ids,), metrics=("BRI", "hits@1", "hits@2", "hits@50"), **more)
    return scored(rankings, {query: {"t": 1} for query in ids}, protocol, VISDIAL)


def test_hits_are_carried_and_recall_is_of_each_round() -> None:
    by_round = dialogue([False, True, False]).by_round()
    assert [means["hits@2"] for means in by_round.values()] == [0, 1, 1]
    assert [means["recall@1"] for means in by_round.values()] == [0, 1, 0]


def test_imagescope_s_hits_begin_with_the_first_round() -> None:
    scores = dialogue([True, False, False], first_round=1)
    assert {done: means["hits@1"] for done, means in scores.by_round().items()} == {1: 0, 2: 0}
    assert dialogue([True, False, False]).means()["hits@1"] == 1
    assert scores.means()["hits@1"] == 0


def test_bri_by_hand() -> None:
    expected = ((math.log(100) + math.log(10)) / 2 + (math.log(10) + math.log(10)) / 2) / 2
    assert metrics.best_rank_integral([100, 10, 10]) == pytest.approx(expected) == pytest.approx(2.878, abs=1e-3)
    assert metrics.best_rank_integral([10, 100, 1]) == pytest.approx((math.log(10) + math.log(10) / 2) / 2)
    assert math.isnan(metrics.best_rank_integral([5]))


def test_bri_of_a_run_needs_every_rank() -> None:
    ids = ("0.0", "0.1", "0.2")
    rankings = {"0.0": ["x", "y"], "0.1": ["x", "t"], "0.2": ["t", "x"]}
    protocol = Protocol(dialogues=(ids,), metrics=("BRI",))
    qrels = {query: {"t": 1} for query in ids}
    assert scored(rankings, qrels, protocol, VISDIAL).means()["BRI"] is None
    whole = scored(rankings, qrels, protocol, VISDIAL, order=["y", "z", "t", "x"])
    # Behind x and y the first stage has z, then the target: rank 4, then 2, then 1.
    expected = ((math.log(4) + math.log(2)) / 2 + (math.log(2) + 0) / 2) / 2
    assert whole.means()["BRI"] == pytest.approx(expected)
    assert [values["BRI"] for values in whole.per_query().values()] == [None, None, pytest.approx(expected)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("R@10", "recall@10"),
        ("ap@5", "AP@5"),
        ("mAP@7", "AP@7"),
        ("nDCG@20", "nDCG@20"),
        ("RR", "RR"),
        ("MRR@3", "RR@3"),
    ],
)
def test_a_metric_has_one_name(name: str, expected: str) -> None:
    assert canonical(name) == expected


@pytest.mark.parametrize("name", ["", "recall", "AP@0", "AP@-1", "AP@x", "F@10", "AP@5@5"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="unknown metric"):
        metric(name)


def graded_cases() -> tuple[dict[str, list[str]], dict[str, dict[str, int]]]:
    """Rankings of thirty images, of which some are judged from 0 to 3, and some judged ones are missing."""
    chance = random.Random(8)
    rankings, qrels = {}, {}
    for number in range(60):
        images = [f"i{n}" for n in range(30)]
        chance.shuffle(images)
        judged = {image: chance.choice([0, 0, 1, 2, 3]) for image in chance.sample(images, 8)}
        rankings[f"q{number}"] = images[: chance.choice([5, 20, 30])]
        qrels[f"q{number}"] = {**judged, "missed": 2}
    return rankings, qrels


def test_graded_metrics_at_any_cut_off_equal_ir_measures() -> None:
    rankings, qrels = graded_cases()
    names = ("nDCG@1", "nDCG@7", "nDCG@20", "P@3", "R@9", "RR@4", "recall@25", "hits@2")
    own = scored(rankings, qrels, Protocol(metrics=names))
    judged = [ir_measures.Qrel(q, image, grade) for q, of in qrels.items() for image, grade in of.items()]
    run = [ir_measures.ScoredDoc(q, image, -rank) for q, order in rankings.items() for rank, image in enumerate(order)]
    for name in names:
        theirs = ir_measures.parse_measure(name.replace("recall", "R").replace("hits", "Success"))
        wanted = {value.query_id: value.value for value in ir_measures.iter_calc([theirs], judged, run)}
        values = dict(zip(own.query_ids, own.values[canonical(name)], strict=True))
        np.testing.assert_allclose(
            [values[q] for q in rankings], [wanted[q] for q in rankings], atol=1e-9, err_msg=name
        )


def test_binary_judgments_keep_their_ndcg_to_the_bit() -> None:
    rankings, qrels = graded_cases()
    binary = {q: {image: int(grade > 0) for image, grade in of.items()} for q, of in qrels.items()}
    plain = scored(rankings, binary).values["nDCG@10"]
    doubled = scored(rankings, {q: {i: 2 * g for i, g in of.items()} for q, of in binary.items()}).values["nDCG@10"]
    np.testing.assert_allclose(plain, doubled, atol=1e-12)


def test_the_defaults_leave_a_benchmark_s_fingerprint() -> None:
    queries = (Query(id="q", text="a"),)
    plain = Benchmark("b", "test", queries, {"q": {"x": 1}}, FilesCollection({}))
    assert plain.fingerprint == "adb6343e7938594587f63650d7b2d0e094a2cade9387b4d47da1152464de7b0a"
    other = Benchmark(
        "b", "test", queries, {"q": {"x": 1}}, FilesCollection({}), protocol=Protocol(keeps_reference=True)
    )
    assert other.fingerprint != plain.fingerprint
