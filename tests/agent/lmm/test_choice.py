import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.agent.lmm.base import TokenLogprob
from fieldscope.agent.lmm.choice import LETTERS, choose
from fieldscope.agent.lmm.yes_no import MAX_LOG_ODDS, BinaryAnswer, p_yes
from tests.agent.lmm.test_yes_no import scaled

TOKENS = st.sampled_from(["a", "A", " b", "▁C", "(d", "B.", "Ġc", "The", "ab", "</s>", "", "e"])
NUMBERS = st.lists(
    st.builds(TokenLogprob, token=TOKENS, logprob=st.floats(min_value=-60, max_value=0)), min_size=1, max_size=20
)
ALTERNATIVES = st.builds(scaled, NUMBERS, st.floats(min_value=0.01, max_value=1.0))


def shares(**probabilities: float) -> list[TokenLogprob]:
    return [TokenLogprob(token=token, logprob=math.log(p)) for token, p in probabilities.items()]


@given(ALTERNATIVES, st.integers(2, 4))
def test_probabilities_sum_to_1_within_their_clamps_or_there_is_a_reason(
    logprobs: list[TokenLogprob], choices: int
) -> None:
    choice = choose(logprobs, choices)
    if choice.state == "unknown":
        assert choice.reason and choice.probabilities == ()
        return
    assert len(choice.probabilities) == choices and sum(choice.probabilities) == pytest.approx(1)
    assert all(0 < p < 1 for p in choice.probabilities)
    assert math.log(max(choice.probabilities) / min(choice.probabilities)) <= MAX_LOG_ODDS + 1e-9


@given(ALTERNATIVES)
def test_two_letters_are_read_as_yes_and_no_are(logprobs: list[TokenLogprob]) -> None:
    choice, binary = choose(logprobs, 2), p_yes(logprobs, BinaryAnswer(("a",), ("b",)))
    assert choice.state == binary.state and choice.mass == pytest.approx(binary.mass)
    if binary.p_yes is not None:
        assert choice.probabilities[0] == pytest.approx(binary.p_yes)


@pytest.mark.parametrize("spelling", ["b", "B", " b", "▁B", "Ġb", "B.", "(B", "b)", '"b"', "**B**", "\nb", "b:"])
def test_every_spelling_counts(spelling: str) -> None:
    assert choose(shares(a=0.2, **{spelling: 0.6}), 2).probabilities == pytest.approx((0.25, 0.75))


def test_spellings_are_summed_and_the_rest_is_left_out() -> None:
    read = choose(shares(A=0.1, a=0.1, b=0.2, C=0.3, c=0.1, The=0.2), 3)
    assert read.probabilities == pytest.approx((0.25, 0.25, 0.5)) and read.mass == pytest.approx(0.8)
    assert choose(shares(a=0.4, b=0.2, d=0.3), 2).probabilities == pytest.approx((2 / 3, 1 / 3)), "d is not shown"


def test_an_absent_letter_has_no_more_than_the_least_alternative() -> None:
    assert choose(shares(a=0.8, b=0.1, The=0.02), 3).probabilities == pytest.approx(
        (0.8 / 0.92, 0.1 / 0.92, 0.02 / 0.92)
    )


def test_absent_letters_share_what_is_left() -> None:
    assert choose(shares(c=0.9), 4).probabilities == pytest.approx((0.1 / 3, 0.1 / 3, 0.9, 0.1 / 3))


def test_a_sure_answer_is_clamped() -> None:
    first, second = choose([TokenLogprob(token="a", logprob=0.0)], 2).probabilities
    assert math.log(first / second) == pytest.approx(MAX_LOG_ODDS)


@pytest.mark.parametrize("logprobs", [[], shares(The=0.9, a=0.03), [TokenLogprob(token="a", logprob=float("nan"))]])
def test_what_can_not_be_read_is_unknown(logprobs: list[TokenLogprob]) -> None:
    read = choose(logprobs, 2)
    assert read.state == "unknown" and read.reason and read.probabilities == ()


def test_the_reason_names_the_letters_and_what_was_said_instead() -> None:
    reason = choose(shares(The=0.9, a=0.03), 3).reason
    assert reason is not None and "a/b/c" in reason and "'The'" in reason and "3.0%" in reason


@pytest.mark.parametrize("choices", [1, len(LETTERS) + 1])
def test_only_two_to_four_can_be_told_apart(choices: int) -> None:
    with pytest.raises(ValueError, match="2 to 4"):
        choose(shares(a=0.9), choices)
