import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.agent.lmm.base import TokenLogprob
from fieldscope.agent.lmm.yes_no import (
    MAX_LOG_ODDS,
    TRUE_FALSE,
    YES_NO,
    BinaryAnswer,
    answer_position,
    finish_words,
    p_yes,
)

SPELLINGS = st.sampled_from(["Yes", "yes", " YES", "▁Yes", "Ġyes", "Yes.", "No", " no", "▁No", "ĠNO", "no,", "True"])
OTHERS = st.sampled_from(["The", " It", "\n", "</s>", "Not", "yesterday", "nothing", "Unknown", "A", ""])
LOGPROBS = st.floats(min_value=-60, max_value=0)
NUMBERS = st.lists(
    st.builds(lambda token, value: TokenLogprob(token=token, logprob=value), SPELLINGS | OTHERS, LOGPROBS), max_size=20
)


def scaled(numbers: list[TokenLogprob], share: float) -> list[TokenLogprob]:
    """Log-probabilities with that share of the whole."""
    less = math.log(sum(math.exp(each.logprob) for each in numbers) / share) if numbers else 0.0
    return [each.model_copy(update={"logprob": each.logprob - less}) for each in numbers]


ALTERNATIVES = st.builds(scaled, NUMBERS, st.floats(min_value=0.01, max_value=1.0))


def alternatives(**logprobs: float) -> list[TokenLogprob]:
    return [TokenLogprob(token=token, logprob=value) for token, value in logprobs.items()]


def shares(**probabilities: float) -> list[TokenLogprob]:
    return alternatives(**{token: math.log(p) for token, p in probabilities.items()})


@given(ALTERNATIVES)
def test_p_lies_strictly_between_0_and_1_or_is_unknown_with_a_reason(logprobs: list[TokenLogprob]) -> None:
    reading = p_yes(logprobs)
    if reading.state == "unknown":
        assert reading.reason and reading.p_yes is None and reading.log_odds is None
        return
    assert reading.p_yes is not None and reading.log_odds is not None
    assert 0 < reading.p_yes < 1 and abs(reading.log_odds) <= MAX_LOG_ODDS
    assert math.isclose(math.log(reading.p_yes / (1 - reading.p_yes)), reading.log_odds, abs_tol=1e-6)


@given(ALTERNATIVES)
def test_exchanging_the_sides_exchanges_p(logprobs: list[TokenLogprob]) -> None:
    one, other = p_yes(logprobs), p_yes(logprobs, YES_NO.swapped())
    assert one.state == other.state and math.isclose(one.mass, other.mass)
    if one.p_yes is not None and other.p_yes is not None:
        assert math.isclose(one.p_yes + other.p_yes, 1, abs_tol=1e-9)


@given(ALTERNATIVES, st.randoms(use_true_random=False))
def test_the_order_of_the_alternatives_does_not_matter(logprobs: list[TokenLogprob], random: object) -> None:
    shuffled = list(logprobs)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = p_yes(logprobs), p_yes(shuffled)
    assert one.state == other.state and (one.p_yes or 0) == pytest.approx(other.p_yes or 0)


@given(
    st.floats(min_value=0.001, max_value=0.4),
    st.floats(min_value=0.001, max_value=0.4),
    st.floats(min_value=0.0, max_value=0.1),
    NUMBERS,
)
def test_more_yes_is_never_less_p(yes: float, no: float, more: float, numbers: list[TokenLogprob]) -> None:
    rest = scaled(numbers, 0.1)
    before = p_yes([*shares(Yes=yes, No=no), *rest], min_mass=0)
    after = p_yes([*shares(Yes=yes + more, No=no), *rest], min_mass=0)
    assert before.p_yes is not None and after.p_yes is not None
    assert after.p_yes >= before.p_yes - 1e-12


@given(st.floats(min_value=1e-5, max_value=1 - 1e-5), st.floats(min_value=0.06, max_value=1))
def test_p_is_the_share_of_yes_in_both(p: float, mass: float) -> None:
    assert p_yes(shares(Yes=p * mass, No=(1 - p) * mass)).p_yes == pytest.approx(p)


@pytest.mark.parametrize(
    "yes", ["Yes", "yes", "YES", " Yes", "▁Yes", "Ġyes", "Yes.", '"Yes"', "**Yes**", "\nyes", "True"]
)
@pytest.mark.parametrize("no", ["No", "no", " NO", "▁no", "ĠNo", "No!", "False"])
def test_every_spelling_counts(yes: str, no: str) -> None:
    assert p_yes(shares(**{yes: 0.6, no: 0.2})).p_yes == pytest.approx(0.75)


def test_spellings_of_one_side_are_summed() -> None:
    assert p_yes(shares(Yes=0.2, yes=0.1, **{" YES": 0.1}, No=0.3, no=0.1)).p_yes == pytest.approx(0.5)
    assert p_yes([*shares(Yes=0.2, No=0.2), *shares(Yes=0.1)]).p_yes == pytest.approx(0.6), "two tokens, one spelling"
    assert p_yes([*shares(Yes=0.2, No=0.2), *shares(Yes=0.2)]).p_yes == pytest.approx(0.5), "one token, twice"


@pytest.mark.parametrize("word", ["nothing", "Not", "yesterday", "none", "Nope", "y", "notice", ""])
def test_words_that_only_look_alike_count_for_neither(word: str) -> None:
    assert YES_NO.side(word) == "neither"


def test_an_absent_side_has_no_more_than_the_least_alternative() -> None:
    assert p_yes(shares(Yes=0.8, Maybe=0.1, The=0.02)).p_yes == pytest.approx(0.8 / 0.82)
    assert p_yes(shares(No=0.8, Maybe=0.1, The=0.02)).p_yes == pytest.approx(0.02 / 0.82)


def test_an_absent_side_has_no_more_than_what_is_left() -> None:
    assert p_yes(shares(Yes=0.9)).p_yes == pytest.approx(0.9)
    assert p_yes(shares(Yes=0.5, The=0.49)).p_yes == pytest.approx(0.5 / 0.51)


@pytest.mark.parametrize("certain", [0.0, 1e-7])
def test_certainty_is_clamped(certain: float) -> None:
    assert p_yes(alternatives(Yes=certain)).log_odds == MAX_LOG_ODDS
    assert p_yes(alternatives(No=certain, Yes=-40.0)).log_odds == -MAX_LOG_ODDS


@pytest.mark.parametrize(
    "half_words",
    [
        {"Y": 0.8, "Yes": 0.06, "No": 0.06},
        {"Y": 0.8, "N": 0.15},
        {" y": 0.5, "no": 0.4},
        {"Tr": 0.3, "False": 0.6},
        {"N": 0.8, "The": 0.1},
    ],
)
def test_an_answer_that_hangs_on_half_words_is_unknown(half_words: dict[str, float]) -> None:
    reading = p_yes(shares(**half_words))
    assert reading.p_yes is None
    assert reading.reason is not None and "in pieces" in reading.reason and "max_tokens" in reading.reason


@pytest.mark.parametrize("half_words", [{"Y": 0.01}, {"N": 0.001, "T": 0.02}, {"The": 0.02, "t": 1e-6}])
def test_half_words_that_decide_nothing_change_nothing(half_words: dict[str, float]) -> None:
    assert p_yes(shares(Yes=0.6, No=0.3, **half_words)).p_yes == pytest.approx(2 / 3)


WRITTEN_YES = [("Y", math.log(0.8)), ("es", -0.001), (".", 0.0)]


def test_half_words_are_finished_where_the_text_finishes_them() -> None:
    finished = finish_words(tuple(shares(Y=0.8, N=0.15, The=0.02)), iter(WRITTEN_YES))
    assert [each.token for each in finished] == ["Yes", "no", "The"]
    assert p_yes(finished).p_yes == pytest.approx(0.8 / 0.95, abs=1e-3)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ([("Y", -0.2)], "Y"),  # it ends there
        ([("Y", -0.2), (" es", -0.1)], "Y"),  # another word
        ([("Y", -0.2), ("es", -1.0)], "Y"),  # it might have been another ending
        ([("Y", -0.2), ("ou", -0.01)], "You"),
        ([("Yes", -0.2), ("terday", -0.01)], "Y"),  # no half-word was written
    ],
)
def test_half_words_stay_where_it_does_not(written: list[tuple[str, float]], said: str) -> None:
    finished = finish_words(tuple(shares(Y=0.8, N=0.15)), iter(written))
    assert [each.token for each in finished] == [said, "N"]


def test_too_little_on_both_is_unknown_and_says_what_was_about_to_be_said() -> None:
    reading = p_yes(shares(The=0.9, Yes=0.03, No=0.01))
    assert reading.state == "unknown" and reading.mass == pytest.approx(0.04)
    assert reading.reason is not None and "'The'" in reading.reason and "4.0%" in reading.reason
    assert p_yes(shares(The=0.9, Yes=0.03, No=0.01), min_mass=0.01).p_yes == pytest.approx(0.75)
    assert p_yes(shares(The=0.9), min_mass=0.0).state == "unknown"


@pytest.mark.parametrize("logprobs", [[], alternatives(Yes=float("nan")), alternatives(Yes=-math.inf)])
def test_nothing_to_read_is_unknown(logprobs: list[TokenLogprob]) -> None:
    reading = p_yes(logprobs)
    assert reading.state == "unknown" and reading.reason


def test_true_false_and_other_words() -> None:
    assert p_yes(shares(true=0.3, **{"False": 0.1}), TRUE_FALSE).p_yes == pytest.approx(0.75)
    assert p_yes(shares(ja=0.6, nein=0.2), BinaryAnswer(("ja",), ("nein",))).p_yes == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("tokens", "marker", "expected"),
    [
        (["Yes"], None, 0),
        (["\n", " ", "▁", "Yes"], None, 3),
        (["Think", "ing", ".", "</think>", "\n\n", "No"], "</think>", 5),
        (["So", " my", " an", "swer", ":", " yes", "."], "answer:", 5),
        (["Answer", ": Yes"], "Answer:", 1),
        (["A", ":", "B", ":", "no"], ":", 2),
        (["<think>", "No", "</think>", "\n\n", "Yes"], None, 4),
        (["No", "[/THINK]", "Yes"], None, 2),
        (["<think>", "No"], None, None),
        (["", "\n", "Yes"], None, 2),
        (["never", " there"], "answer:", None),
        (["answer:"], "answer:", None),
        (["answer:", " ", "\n"], "answer:", None),
        ([], None, None),
        ([" "], None, None),
    ],
)
def test_where_the_answer_starts(tokens: list[str], marker: str | None, expected: int | None) -> None:
    assert answer_position(tokens, marker) == expected
