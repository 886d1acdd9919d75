"""Why one image stands above another: the parts of two scores, side by side."""

from __future__ import annotations

import pytest

from fieldscope.agent.trace_above import above
from fieldscope.core.errors import ConfigError
from tests.agent.traced import agentic, single


def test_the_differences_sum_to_what_separates_the_scores_for_any_two_images_in_any_order() -> None:
    result = agentic()
    for one in result.ranking:
        for other in result.ranking:
            if one is other:
                continue
            found = above(result, one.image_id, other.image_id)
            assert found == above(result, other.image_id, one.image_id)
            assert found.upper.rank < found.lower.rank
            assert found.ahead == pytest.approx(abs(one.score - other.score))
            if found.exact:
                assert sum(each.ahead or 0.0 for each in found.contrasts) == pytest.approx(found.ahead)
            order = [each.ahead for each in found.contrasts if each.ahead is not None]
            assert order == sorted(order, reverse=True)


def test_the_sentence_names_what_counts_most_and_what_speaks_against_it() -> None:
    result = agentic()
    first, third = result.ranking[0], result.ranking[2]
    found = above(result, third.image_id, first.image_id)
    best, worst = found.contrasts[0], found.contrasts[-1]
    assert best.ahead is not None and best.ahead > 0
    assert f"{first.image_id} (rank 1) stands above {third.image_id} (rank 3)" in found.sentence
    assert f"({best.ahead:+.2f})" in found.sentence
    assert ("in spite of" in found.sentence) == (worst.ahead is not None and worst.ahead < 0)


def test_scores_that_are_no_sums_are_compared_by_their_answers() -> None:
    result = single()
    one, other = result.ranking[0].image_id, result.ranking[1].image_id
    found = above(result, one, other)
    assert not found.exact
    assert all(each.predicate is None or each.upper_verdict or each.lower_verdict for each in found.contrasts)


def test_an_image_that_is_not_there_and_one_image_twice_are_refused() -> None:
    result = agentic()
    name = result.ranking[0].image_id
    with pytest.raises(ConfigError, match="can't stand above itself"):
        above(result, name, name)
    with pytest.raises(ConfigError, match=r"nowhere\.png"):
        above(result, name, "nowhere.png")
