"""A threshold with a promise: what carries it, what does not, and what a refusal says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from fieldscope.agent.types import NothingMatches, RankedCandidate, RerankResult
from fieldscope.core.errors import ConfigError
from fieldscope.eval.tuning.bounded_mean import highest_passing, losses_needed, p_values
from fieldscope.eval.tuning.cutoff import GRID, LabelledQuery, LabelledSplit, labelled_split, passing_thresholds, starts


def query(*images: tuple[float, int]) -> LabelledQuery:
    """One with these P(match) and labels, and no match beside them."""
    p_match, matches = np.array(images, dtype=np.float64).T
    return LabelledQuery(p_match, matches, int(matches.sum()))


def split(queries: Sequence[LabelledQuery]) -> LabelledSplit:
    return LabelledSplit(tuple(queries))


SURE = query((0.95, 1), (0.6, 1), (0.3, 0))
"""Two matches above 0.5, and another image below."""


def result(p_match: float, *, nothing: bool = False) -> RerankResult:
    ranked = RankedCandidate(image_id="1", rank=1, score=1.0, prior=0.5, prior_rank=1, p_match=p_match)
    decided = NothingMatches(statistic=p_match, threshold=0.99, judged=1) if nothing else None
    return RerankResult(query_id="q", query_text="a crab", strategy="s", ranking=(ranked,), nothing=decided)


def test_forty_queries_carry_little() -> None:
    assert highest_passing(40, 0.1, 0.05) == pytest.approx(1 - 0.9915, abs=1e-4)
    carried, not_carried = p_values([0.008, 0.009], [40, 40], 0.1)
    assert carried < 0.05 < not_carried
    assert p_values(0.0, 0, 0.1) == 1.0


@pytest.mark.parametrize(("loss", "needed"), [(0.0, 29), (0.008, 40), (0.05, 160), (0.0999, None), (1 - 0.9, None), (0.1, None), (0.2, None)])
def test_how_many_losses_are_needed(loss: float, needed: int | None) -> None:
    assert losses_needed(loss, 0.1, 0.05) == needed


def test_the_test_errs_no_more_often_than_it_says() -> None:
    """Whole losses, whose distribution is known, at the limit itself."""
    from scipy.stats import binom

    wrong = np.arange(81)
    small = p_values(wrong / 80, np.full(81, 80), 0.1) <= 0.05
    assert small[2]
    assert binom.pmf(wrong, 80, 0.1)[small].sum() <= 0.05


def test_the_loosest_threshold_that_the_labels_carry() -> None:
    cutoff = split([SURE] * 40).cutoff(0.9, 0.95)
    assert cutoff.threshold == pytest.approx(0.31)
    assert (cutoff.observed, cutoff.recall, cutoff.queries, cutoff.kept_for) == (1.0, 1.0, 40, 40)


def test_a_sequence_ends_with_the_first_threshold_that_fails() -> None:
    """Precision rises again below, where it is too late."""
    dip = query((0.95, 1), (0.7, 0), *[(0.4, 1)] * 30)
    assert split([dip] * 40).losses[:, GRID == 0.4].max() < 0.04
    assert split([dip] * 40).cutoff(0.9, 0.95).threshold == pytest.approx(0.71)


def test_queries_for_which_nothing_is_kept_say_nothing() -> None:
    empty = query((0.05, 0), (0.02, 1))
    few = [SURE] * 28 + [empty] * 100
    with pytest.raises(ConfigError, match="28 of 128 labelled queries"):
        split(few).cutoff(0.9, 0.95)
    assert split([SURE] * 40 + [empty] * 10).cutoff(0.9, 0.95).kept_for == 40


def test_a_refusal_says_how_many_queries_are_needed() -> None:
    with pytest.raises(ConfigError, match=r"since 29 are needed.* 29 labelled queries are needed"):
        split([SURE] * 28).cutoff(0.9, 0.95)
    flawed = [SURE] * 39 + [query((0.95, 1), (0.95, 0))]
    with pytest.raises(ConfigError, match=r"precision of 0\.988; .* 0\.992 or more\. .* (4[5-9]) labelled queries"):
        split(flawed).cutoff(0.9, 0.95)
    with pytest.raises(ConfigError, match="no number of labelled queries would be enough"):
        split([query((0.95, 0))] * 200).cutoff(0.9, 0.95)
    with pytest.raises(ConfigError, match="none of the 40 labelled queries has images"):
        split([query((0.5, 1))] * 40).cutoff(0.9, 0.95)


def test_many_queries_have_a_second_start_that_shares_the_risk() -> None:
    assert GRID[starts(0.9, 99)].tolist() == [0.9]
    assert GRID[starts(0.9, 100)].tolist() == [0.99, 0.9]
    too_sure = query((0.995, 1), (0.95, 0))
    assert split([too_sure] * 100).cutoff(0.9, 0.95).threshold == pytest.approx(0.96)
    with pytest.raises(ConfigError):
        split([too_sure] * 99).cutoff(0.9, 0.95)
    losses = np.full((100, len(GRID)), np.nan)
    losses[:32, starts(0.9, 100)[0]] = 0.0  # 0.9^32 lies between half of the risk and all of it
    assert not passing_thresholds(losses, 0.9, 0.95).any()


def test_nothing_is_kept_where_nothing_is_said_to_match() -> None:
    labelled = labelled_split({"a": result(0.9), "b": result(0.9, nothing=True)}, {"a": {"1": 1}})
    assert np.isfinite(labelled.losses).any(axis=1).tolist() == [True, False]


def test_a_run_without_probabilities_carries_no_promise() -> None:
    bare = result(0.9)
    bare = bare.model_copy(update={"ranking": (bare.ranking[0].model_copy(update={"p_match": None}),)})
    with pytest.raises(ConfigError, match=r"no P\(match\)"):
        labelled_split({"a": bare}, {"a": {"1": 1}})
