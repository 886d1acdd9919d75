"""Fusion: a strict order whatever comes in, and nothing moves for want of an answer."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.agent.fusion import fuse, log_odds, prior_order, sigmoid, standardise, strictly_decreasing
from fieldscope.agent.strategies.ordering import Fusion
from fieldscope.core.errors import ConfigError
from fieldscope.core.types import Candidate

PRIOR, P_YES = Fusion(method="prior"), Fusion(method="p_yes")
LOG_ODDS = Fusion(method="log_odds", prior_weight=0.5)

finite = st.floats(min_value=-1e300, max_value=1e300, allow_nan=False)
few_values = st.sampled_from([0.0, -0.0, 0.25, 0.25 + 1e-16, 0.3, -1.0])  # ties and near ties are common
probabilities = st.floats(min_value=1e-6, max_value=1 - 1e-6) | st.sampled_from([0.5, 0.9])


@st.composite
def pools(draw: st.DrawFn) -> tuple[tuple[Candidate, ...], dict[str, float]]:
    priors = draw(st.lists(finite | few_values, max_size=30))
    candidates = prior_order(Candidate(f"i{n}", prior) for n, prior in enumerate(priors))
    answered = draw(st.sets(st.sampled_from([c.image_id for c in candidates]))) if candidates else set()
    return candidates, {image_id: draw(probabilities) for image_id in sorted(answered)}


@given(pools(), st.sampled_from([P_YES, LOG_ODDS]))
def test_a_ranking_is_a_strict_order_of_all_candidates(
    pool: tuple[tuple[Candidate, ...], dict[str, float]], fusion: Fusion
) -> None:
    candidates, p_match = pool
    ranking = fuse(candidates, p_match, fusion)
    assert sorted(r.image_id for r in ranking) == sorted(c.image_id for c in candidates)
    assert [r.rank for r in ranking] == list(range(1, len(candidates) + 1))
    assert all(above.score > below.score for above, below in itertools.pairwise(ranking))
    assert all(math.isfinite(r.score) for r in ranking)


@given(pools(), st.sampled_from([P_YES, LOG_ODDS]))
def test_an_image_without_an_answer_keeps_the_rank_of_its_prior(
    pool: tuple[tuple[Candidate, ...], dict[str, float]], fusion: Fusion
) -> None:
    candidates, p_match = pool
    for ranked in fuse(candidates, p_match, fusion):
        assert ranked.prior_rank == [c.image_id for c in candidates].index(ranked.image_id) + 1
        if ranked.image_id not in p_match:
            assert ranked.rank == ranked.prior_rank
            assert ranked.p_match is None
        else:
            assert ranked.p_match is not None


@given(pools())
def test_answered_images_follow_p_yes_and_equal_ones_their_prior(
    pool: tuple[tuple[Candidate, ...], dict[str, float]],
) -> None:
    candidates, p_match = pool
    answered = [r for r in fuse(candidates, p_match, P_YES) if r.image_id in p_match]
    keys = [(-p_match[r.image_id], r.prior_rank) for r in answered]
    assert keys == sorted(keys)
    assert all(r.p_match == p_match[r.image_id] for r in answered)


@given(st.lists(finite | few_values, max_size=30))
def test_the_prior_alone_keeps_its_order(priors: list[float]) -> None:
    candidates = prior_order(Candidate(f"i{n}", prior) for n, prior in enumerate(priors))
    for fusion in (PRIOR, P_YES, LOG_ODDS):
        ranking = fuse(candidates, {}, fusion)
        assert [r.image_id for r in ranking] == [c.image_id for c in candidates]
        assert all(above.score > below.score for above, below in itertools.pairwise(ranking))


def test_log_odds_add_the_standardised_prior() -> None:
    candidates = (Candidate("a", 0.3), Candidate("b", 0.2), Candidate("c", 0.1))
    ranking = {r.image_id: r for r in fuse(candidates, {"a": 0.5, "b": 0.5, "c": 0.9}, LOG_ODDS)}
    z = math.sqrt(1.5)  # (0.3 - 0.2) over the standard deviation of three evenly spaced values
    assert ranking["a"].score == pytest.approx(0.5 * z)
    assert ranking["b"].score == pytest.approx(0.0)
    assert ranking["c"].score == pytest.approx(math.log(9) - 0.5 * z)
    assert ranking["c"].p_match == pytest.approx(1 / (1 + math.exp(-(math.log(9) - 0.5 * z))))
    assert ranking["c"].rank == 1


def test_no_answer_outranks_every_gap_between_priors_where_some_are_wrong() -> None:
    candidates = (Candidate("a", 0.3), Candidate("b", 0.2), Candidate("c", 0.1))
    p_match = {"a": 1e-6, "b": 0.5, "c": 1 - 1e-6}
    doubting = Fusion(method="log_odds", prior_weight=3.0, error_rate=0.05)
    scores = {r.image_id: r.score for r in fuse(candidates, p_match, doubting)}
    z = math.sqrt(1.5)
    assert scores == pytest.approx({"a": 3 * z - math.log(19), "b": 0.0, "c": math.log(19) - 3 * z}, abs=1e-4)
    assert [r.image_id for r in fuse(candidates, p_match, doubting)] == ["a", "b", "c"]
    believing = Fusion(method="log_odds", prior_weight=3.0)
    assert [r.image_id for r in fuse(candidates, p_match, believing)] == ["c", "b", "a"]


def test_the_scale_of_the_prior_does_not_matter() -> None:
    p_match = {"a": 0.2, "b": 0.6, "c": 0.4}
    small = (Candidate("a", 0.3), Candidate("b", 0.2), Candidate("c", 0.1))
    large = tuple(Candidate(c.image_id, 1000 * c.prior - 7) for c in small)
    scores = [[r.score for r in fuse(pool, p_match, LOG_ODDS)] for pool in (small, large)]
    assert scores[0] == pytest.approx(scores[1])


@given(st.lists(finite, min_size=1, max_size=30))
def test_standardised_values_keep_their_order(values: list[float]) -> None:
    z = standardise(values)
    assert all(math.isfinite(v) for v in z)
    for (a, za), (b, zb) in itertools.combinations(zip(values, z, strict=True), 2):
        assert za <= zb if a <= b else za >= zb


def test_values_that_do_not_differ_are_standardised_to_zero() -> None:
    assert standardise([0.1] * 3) == (0.0, 0.0, 0.0)
    assert standardise([]) == ()


@given(st.floats(min_value=1e-12, max_value=1 - 1e-12))
def test_sigmoid_undoes_log_odds(p: float) -> None:
    assert sigmoid(log_odds(p)) == pytest.approx(p)


def test_sigmoid_stands_large_values() -> None:
    assert (sigmoid(-1e9), sigmoid(1e9)) == (0.0, 1.0)


def test_gaps_are_filled_from_above() -> None:
    strict = strictly_decreasing([None, 0.9, None, 0.9, 0.1])
    assert strict == pytest.approx([0.9, 0.9, 0.9, 0.9, 0.1])
    assert strict[-1] == 0.1
    assert all(above > below for above, below in itertools.pairwise(strict))


def test_equal_priors_go_by_image_id_and_not_by_place() -> None:
    pool = [Candidate("c", 1.0), Candidate("a", 1.0), Candidate("b", 2.0)]
    assert [c.image_id for c in prior_order(pool)] == ["b", "a", "c"]
    assert prior_order(reversed(pool)) == prior_order(pool)


def test_an_image_listed_twice_and_a_prior_that_is_no_number_are_refused() -> None:
    with pytest.raises(ConfigError, match="'a' is listed twice"):
        prior_order([Candidate("a", 1.0), Candidate("a", 0.5)])
    with pytest.raises(ConfigError, match="'a' has the prior nan"):
        prior_order([Candidate("a", math.nan), Candidate("b", 0.5)])
