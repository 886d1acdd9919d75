"""What can't be log-probabilities of one token is never read, and what comes twice counts once."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.agent.lmm.base import TokenLogprob
from fieldscope.agent.lmm.choice import choose
from fieldscope.agent.lmm.logprobs import distinct, gathered, logprobs_fault
from fieldscope.agent.lmm.yes_no import p_yes


def tokens(*values: float) -> list[TokenLogprob]:
    return [TokenLogprob(token=f"w{n}", logprob=value) for n, value in enumerate(values)]


LOGITS = st.lists(st.floats(min_value=-30, max_value=30), min_size=1, max_size=40, unique=True)


@given(LOGITS, st.sampled_from([np.float32, np.float16]), st.integers(1, 20))
def test_a_softmax_in_any_precision_is_believed(logits: list[float], precision: type, most: int) -> None:
    values = np.array(logits) - np.logaddexp.reduce(logits)
    kept = np.sort(values.astype(precision))[::-1][:most].astype(float).tolist()
    assert logprobs_fault(tokens(*kept)) is None


FAULTS = {
    "none": ([], "no log-probability"),
    "no numbers": ([math.nan, -math.inf], "no log-probability"),
    "probabilities": ([0.7, 0.2, 0.0], "probabilities in place of log-probabilities ('w0' has 0.7)"),
    "a sure probability": ([1.0, 0.0, 0.0], "probabilities in place of"),
    "without a sign": ([3.0, 0.1, 2.0], "greater than 0"),
    "huge": ([1e30, 1.0], "greater than 0"),
    "one has all": ([0.0, -3.4e38, -3.4e38], "after temperature 0"),
    "two, and one has all": ([0.0, -9999.0], "after temperature 0"),
    "one filler for the rest": ([-1e-9, *[-23.02] * 5], "after temperature 0"),
    "a temperature close to 0": ([-0.1, -2.3, -40000.0, -81000.0], "after temperature 0"),
    "base 10": ([math.log10(0.6), math.log10(0.3), math.log10(0.1)], "base-10"),
    "sums over 1": ([-0.1, -0.1001], "sum to 1.81 in place of 1"),
    "clamped probabilities": ([0.0, -0.0, 0.0], "sum to"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_can_be_none_says_what_it_is_and_is_unknown_wherever_it_is_read(fault: str) -> None:
    values, words = FAULTS[fault]
    told = logprobs_fault(tokens(*values))
    assert told is not None and words in told and "\n" not in told
    spelled = [
        TokenLogprob(token=token, logprob=value) for token, value in zip(["Yes", "No", "A"], values, strict=False)
    ]
    if len(values) <= len(spelled):
        assert p_yes(spelled).p_yes is None
        assert choose(spelled, 2).probabilities == ()


def test_a_single_0_is_sure_where_one_was_asked_for_and_no_answer_where_more_were() -> None:
    assert logprobs_fault(tokens(0.0)) is None
    assert "after temperature 0" in (logprobs_fault(tokens(0.0), 20) or "")
    assert logprobs_fault(tokens(-0.01), 20) is None, "a server may give the chosen token's alone"


def test_masked_alternatives_are_no_fault_where_several_are_left() -> None:
    assert logprobs_fault(tokens(-0.2, -2.0, -9999.0, -9999.0)) is None


def test_what_comes_twice_counts_once() -> None:
    twice = [TokenLogprob(token="Yes", logprob=-0.9), TokenLogprob(token="No", logprob=-1.2)] * 2
    assert distinct(twice) == twice[:2]
    assert p_yes(twice) == p_yes(twice[:2])
    assert choose([*tokens(-5.0), *twice, TokenLogprob(token="a", logprob=-2.0)] * 2, 2).mass == pytest.approx(
        math.exp(-2)
    )


def test_tokens_that_are_known_to_differ_count_together() -> None:
    alike = [("No", -1.0, None), ("Yes", -1.2, 1), ("Yes", -1.2, 2), ("Yes", -3.0, 3)]
    assert [(each.token, each.logprob) for each in gathered([*alike, *alike])] == [
        ("Yes", pytest.approx(-1.2 + math.log(2))),
        ("No", -1.0),
        ("Yes", -3.0),
    ]
