"""What moves between the rankings of a query, by hand."""

from __future__ import annotations

import pytest

from fieldscope.eval.measures.steadiness import Repeated, share, steadiness

FIRST = [str(n) for n in range(12)]


def swapped(a: int, b: int) -> list[str]:
    other = list(FIRST)
    other[a], other[b] = other[b], other[a]
    return other


def test_what_moves_is_counted_against_the_first_ranking() -> None:
    found = steadiness(
        {
            "q1": Repeated([FIRST, swapped(0, 1), FIRST], [1.0, 0.5, 1.0]),
            "q2": Repeated([FIRST, swapped(9, 11), FIRST], [0.25, 0.5, 0.0]),
        }
    )
    assert (found.queries, found.rankings) == (2, 3)
    assert (found.first_place.value, found.first_place.of) == (0.25, 4)  # in one of four later rankings
    assert found.places.value == pytest.approx(3 / 40)
    assert found.left.value == pytest.approx(1 / 40)
    assert found.moved.value == pytest.approx((0.2 / 2 + 0.2 / 2) / 2)
    spread = found.spread
    assert spread is not None and spread.mean.value == 0.5
    assert (spread.worst, spread.worst_query) == (0.5, "q1")
    assert spread.first == 0.625 and spread.lowest == 0.25
    assert found.flips is None


def test_verdicts_flip_where_they_were_answered_both_times() -> None:
    sides = [{("1", "a"): True, ("2", "a"): False}, {("1", "a"): False, ("2", "a"): False, ("3", "a"): True}]
    flips = steadiness({"q1": Repeated([FIRST, FIRST], yes=sides)}).flips
    assert flips is not None and (flips.value, flips.of) == (0.5, 2)
    assert steadiness({"q1": Repeated([FIRST, FIRST], yes=[{}, {}])}).flips is None


def test_an_image_that_is_gone_is_behind_all_others() -> None:
    found = steadiness({"q1": Repeated([["a", "b"], ["b"]])})
    assert found.first_place.value == 1
    assert found.left.value == 0.5
    assert found.moved.value == 1  # both by one rank


def test_queries_with_a_single_ranking_say_nothing() -> None:
    found = steadiness({"q1": Repeated([FIRST, FIRST]), "q2": Repeated([FIRST], [1.0])})
    assert found.queries == 1 and found.spread is None
    with pytest.raises(ValueError, match="two or more rankings"):
        steadiness({"q2": Repeated([FIRST])})


def test_a_share_of_none_still_has_an_upper_end() -> None:
    none = share([(0, 100)] * 40)
    assert (none.value, none.low, none.of) == (0, 0, 4000)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 40))  # Clopper-Pearson: 0 of 40 queries
    every = share([(5, 5)] * 10)
    assert every.high == 1 and every.low == pytest.approx(0.025**0.1)


def test_an_interval_is_over_queries_and_not_over_verdicts() -> None:
    together = share([(100, 100), *[(0, 100)] * 9])
    apart = share([(10, 100)] * 10)
    assert together.value == apart.value == pytest.approx(0.1)
    assert together.low == 0 and together.high > 0.25
    assert (apart.low, apart.high) == (pytest.approx(0.1), pytest.approx(0.1))
