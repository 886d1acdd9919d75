"""Calibration errors, by hand, against scikit-learn, and of claims that are right by construction."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss

from fieldscope.agent.calibration import Calibration
from fieldscope.agent.types import Comparison, Predicate, RankedCandidate, RerankResult, Verdict
from fieldscope.eval.measures.calibration_report import MATCH, RANKED, VERDICTS, ClaimReliability, claim_reliability
from fieldscope.eval.measures.reliability import Claims, claims, equal_mass, reliability, tempered
from fieldscope.eval.measures.truth import AnswerKey

said = st.dictionaries(
    st.text(max_size=3),
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=8),
    min_size=1,
    max_size=8,
)


def test_four_bins_by_hand() -> None:
    found = reliability(
        claims({"a": [(0.1, False), (0.25, True), (0.9, True)], "b": [(0.2, False), (0.8, False), (0.5, True)]}), bins=4
    )
    # (0, 1/4]: 0.1, 0.2 and 0.25, of which one holds; (1/4, 1/2]: 0.5, which holds; (3/4, 1]: 0.8, 0.9, of which one.
    assert [(b.low, b.high, b.count) for b in found.bins] == [(0, 0.25, 3), (0.25, 0.5, 1), (0.75, 1, 2)]
    assert [b.mean_p for b in found.bins] == pytest.approx([0.55 / 3, 0.5, 0.85])
    assert [b.held.value for b in found.bins] == pytest.approx([1 / 3, 1, 1 / 2])
    gaps = 3 / 6 * (1 / 3 - 0.55 / 3) + 1 / 6 * 0.5 + 2 / 6 * 0.35
    assert found.ece.value == pytest.approx(gaps)
    assert found.brier.value == pytest.approx((0.01 + 0.5625 + 0.01 + 0.04 + 0.64 + 0.25) / 6)
    assert (found.claims, found.queries, found.held) == (6, 2, 0.5)
    assert found.mean_p == pytest.approx(2.75 / 6)


def test_bins_of_equal_mass_by_hand() -> None:
    p = [0.001, 0.002, 0.003, 0.004, 0.9, 0.99]
    assert equal_mass(p, 3) == pytest.approx([0, 0.002, 0.004, 1])
    found = reliability(claims({"q": [(each, each > 0.5) for each in p]}), bins=3)
    assert [(b.count, b.held.value) for b in found.mass_bins] == [(2, 0), (2, 0), (2, 1)]
    assert found.ece_mass.value == pytest.approx((0.003 + 0.007 + 0.11) / 6)
    # Equal probabilities stay together, and the bins that they fill are one.
    assert [b.count for b in reliability(claims({"q": [(0.5, True)] * 9 + [(0.7, True)]}), bins=5).mass_bins] == [9, 1]


@settings(max_examples=60, deadline=None)
@given(said)
def test_what_holds_of_all_claims(rows: dict[str, list[tuple[float, bool]]]) -> None:
    made = claims(rows)
    found = reliability(made, draws=50)
    assert sum(b.count for b in found.bins) == sum(b.count for b in found.mass_bins) == found.claims
    assert found.brier.value == pytest.approx(brier_score_loss(made.held, made.p, labels=[False, True]))
    for estimate in (found.ece, found.ece_mass, found.brier):
        assert 0 <= estimate.low <= estimate.high <= 1
    # The gap of the means is a lower bound of any binned error, and one bin has just that.
    whole = abs(found.mean_p - found.held)
    assert found.ece.value >= whole - 1e-12
    assert found.ece_mass.value >= whole - 1e-12
    assert reliability(made, bins=1, draws=2).ece.value == pytest.approx(whole)
    for b in found.bins:
        assert b.low - 1e-12 <= b.mean_p <= b.high + 1e-12


def test_true_probabilities_are_reliable_and_overconfident_ones_are_not() -> None:
    chance = np.random.default_rng(0)
    p = chance.random(20_000)
    made = Claims(p, chance.random(20_000) < p, np.arange(20_000) % 200)
    assert reliability(made).ece.value < 0.02
    sure = Claims(tempered(p, 3.0), made.held, made.query)
    found = reliability(sure)
    assert found.ece.low > 0.1
    assert found.ece.low < found.ece.value < found.ece.high
    # The temperature that made them overconfident, taken off again.
    assert tempered(sure.p, 1 / 3) == pytest.approx(p, abs=1e-4)


def test_intervals_are_over_queries() -> None:
    # Ten queries of a hundred like claims each: what looks like a thousand claims is ten.
    rows = {f"q{n}": [(0.5, n < 5)] * 100 for n in range(10)}
    together = reliability(claims(rows)).bins[0].held
    apart = reliability(claims({f"q{n}": [(0.5, n < 500)] for n in range(1000)})).bins[0].held
    assert (together.value, apart.value) == (0.5, 0.5)
    assert together.low == pytest.approx(0.2, abs=0.11)
    assert apart.low == pytest.approx(0.5 - 1.96 * math.sqrt(0.25 / 1000), abs=0.01)
    one = reliability(claims({"q": [(0.5, True)]})).ece
    assert (one.value, one.low, one.high) == (0.5, 0.5, 0.5)


def test_no_claims_and_no_probabilities() -> None:
    with pytest.raises(ValueError, match="no claim"):
        reliability(claims({}))
    with pytest.raises(ValueError, match="between 0 and 1"):
        claims({"q": [(1.5, True)]})


class Truth:
    source = "oracle"

    def holds(self, predicate: Predicate, image_id: str) -> bool | None:
        return {"a": True, "b": False}.get(image_id)


PREDICATES = (
    Predicate(id="query", question="is it?"),
    Predicate(id="p1", question="red?", kind="colour"),
)


def verdict(predicate: str, image_id: str, p: float | None) -> Verdict:
    state = "unknown" if p is None else "answered"
    return Verdict.model_validate(
        {"predicate": predicate, "image_id": image_id, "state": state, "p_yes": p, "p_expected": p}
    )


def posterior_result(compared: float = 0.0) -> RerankResult:
    """Images a, b and c, with priors 3, 2 and 1; c's colour got no answer."""
    parts = {"base": -1.0, "prior": 0.5, "query": 1.0, "p1": 0.25}
    extra = {"comparisons": compared} if compared else {}
    return RerankResult(
        query_id="q",
        query_text="red",
        strategy="agent",
        ranking=tuple(
            RankedCandidate(
                image_id=image_id,
                rank=n,
                score=0.75 + compared - n,
                prior=4 - n,
                prior_rank=n,
                p_match=0.9 / n,
                contributions={**parts, **extra},
            )
            for n, image_id in enumerate("abc", start=1)
        ),
        predicates=PREDICATES,
        verdicts=(
            verdict("query", "a", 0.8), verdict("query", "b", 0.6), verdict("query", "c", 0.2),
            verdict("p1", "a", 0.9), verdict("p1", "b", 0.3), verdict("p1", "c", None),
        ),
        comparisons=(Comparison(shown=("a", "b"), state="answered", probabilities=(0.7, 0.3)),) if compared else (),
    )  # fmt: skip


JUDGMENTS = {"q": {"a": 1, "b": 0, "c": 0}}
FITTED = Calibration(temperature=2.0, whole_weight=0.5)


def by_subject(found: list[ClaimReliability]) -> dict[str, ClaimReliability]:
    return {each.subject: each for each in found}


def test_claims_of_a_run_by_hand() -> None:
    found = by_subject(claim_reliability({"q": posterior_result()}, AnswerKey(JUDGMENTS, Truth()), True, FITTED))
    assert list(found) == ["colour", "query", VERDICTS, MATCH]
    colour, query, match = found["colour"], found["query"], found[MATCH]
    assert (colour.source, query.source, match.source) == ("oracle", "relevance", "relevance")
    assert found[VERDICTS].source == "oracle and relevance"
    # c has no answer about its colour, and nobody knows what it is.
    assert colour.before.claims == 2
    assert colour.before.brier.value == pytest.approx((0.01 + 0.09) / 2)
    assert query.before.brier.value == pytest.approx((0.04 + 0.36 + 0.04) / 3)
    assert found[VERDICTS].before.claims == 5

    def halved(p: float) -> float:
        return 1 / (1 + math.sqrt((1 - p) / p))

    assert colour.after is not None and query.after is not None and match.after is not None
    assert colour.after.brier.value == pytest.approx(((1 - halved(0.9)) ** 2 + halved(0.3) ** 2) / 2)
    assert query.after.mean_p == pytest.approx(sum(map(halved, (0.8, 0.6, 0.2))) / 3)
    assert found[VERDICTS].after is not None and found[VERDICTS].after.claims == 5
    # After: the contributions sum to 0.75 for each image. Before: the defaults, where the prior weighs 0.5.
    assert match.after.mean_p == pytest.approx(1 / (1 + math.exp(-0.75)))
    prior = math.sqrt(1.5)  # of a, standardised; that of b is 0

    def p_match(prior: float, whole: float, part: float) -> float:
        evidence = whole / (1 - whole) * part / (1 - part)
        odds = (evidence + 0.001) / 1.001 * 1.03 / (1 + 0.03 * evidence) * math.exp(prior / 2)
        return odds / (1 + odds)

    rate = 0.4  # the share of images that pass, for c
    errors = (1 - p_match(prior, 0.8, 0.9), p_match(0, 0.6, 0.3), p_match(-prior, 0.2, rate))
    assert match.before.brier.value == pytest.approx(sum(error**2 for error in errors) / 3)


def test_comparisons_are_a_claim_of_their_own() -> None:
    found = by_subject(
        claim_reliability({"q": posterior_result(compared=2.0)}, AnswerKey(JUDGMENTS, Truth()), True, FITTED)
    )
    match, ranked = found[MATCH], found[RANKED]
    assert match.after is not None and ranked.after is not None
    assert match.after.mean_p == pytest.approx(1 / (1 + math.exp(-0.75)))
    assert ranked.after.mean_p == pytest.approx((0.9 + 0.45 + 0.3) / 3)
    assert ranked.before == match.before


def test_without_a_calibration_there_is_no_after() -> None:
    found = by_subject(claim_reliability({"q": posterior_result()}, AnswerKey(JUDGMENTS, Truth()), False))
    assert all(each.after is None for each in found.values())
    assert found[MATCH].before.mean_p == pytest.approx(1 / (1 + math.exp(-0.75)))
    # It had one, but it is not here: what the ranking says needs no file.
    lost = by_subject(claim_reliability({"q": posterior_result()}, AnswerKey(JUDGMENTS, Truth()), True))
    assert lost["colour"].after is None and lost[MATCH].after is not None


def test_parts_need_a_truth_that_can_say_no() -> None:
    found = claim_reliability({"q": posterior_result()}, AnswerKey(JUDGMENTS), False)
    assert [each.subject for each in found] == ["query", MATCH]


def test_a_ranking_by_p_yes_claims_it() -> None:
    bare = posterior_result()
    ranking = tuple(each.model_copy(update={"contributions": {}}) for each in bare.ranking)
    found = by_subject(
        claim_reliability({"q": bare.model_copy(update={"ranking": ranking})}, AnswerKey(JUDGMENTS), False)
    )
    assert found[MATCH].before.mean_p == pytest.approx((0.9 + 0.45 + 0.3) / 3)
    none = tuple(each.model_copy(update={"p_match": None}) for each in ranking)
    silent = bare.model_copy(update={"ranking": none, "verdicts": ()})
    assert claim_reliability({"q": silent}, AnswerKey(JUDGMENTS), False) == []
