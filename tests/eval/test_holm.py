"""Holm's correction against statsmodels; what a test of so many queries could have found, against simulation."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from fieldscope.eval.measures.paired import detectable, holm, power

p_values = st.lists(st.floats(0, 1), min_size=1, max_size=40)


@pytest.fixture(scope="module", autouse=True)
def quick_statsmodels() -> None:
    """`multipletests` collects garbage on every call, which takes long where many libraries are loaded. What is frozen
    stays so: the libraries are, for all tests."""
    gc.freeze()


@given(p_values | st.lists(st.sampled_from([0.0, 0.01, 0.02, 0.02, 1.0]), min_size=1, max_size=12))
def test_it_equals_statsmodels(values: list[float]) -> None:
    theirs = multipletests(values, method="holm")[1]
    assert np.abs(np.array(holm(values)) - theirs).max() <= 1e-12


def test_four_values_by_hand() -> None:
    # 4 x 0.005, 3 x 0.01, 2 x 0.03, and 1 x 0.04 that may not be under the one before
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([]) == ()


@pytest.mark.parametrize("values", [[0.5, 1.1], [-0.1], [float("nan")]])
def test_what_is_no_p_value_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="p values"):
        holm(values)


@pytest.mark.parametrize("queries", [6, 20, 40, 160, 1000])
@pytest.mark.parametrize("spread", [0.01, 0.2])
def test_what_is_detectable_is_found_four_times_in_five(queries: int, spread: float) -> None:
    found = detectable(spread, queries)
    assert found is not None
    assert power(found, spread, queries) == pytest.approx(0.8, abs=1e-6)
    theirs = TTestPower().power(found / spread, queries, 0.05)
    assert theirs == pytest.approx(0.8, abs=1e-3)
    assert power(0.0, spread, queries) == pytest.approx(0.05)
    assert power(found, spread, queries) == pytest.approx(power(-found, spread, queries))


def test_where_nothing_can_be_said() -> None:
    # With five queries the most extreme outcome has p = 2 / 32, which is above 0.05.
    assert detectable(0.2, 5) is None
    assert power(1.0, 0.2, 5) == 0
    assert detectable(0.2, 6) is not None
    assert detectable(0.0, 160) is None
