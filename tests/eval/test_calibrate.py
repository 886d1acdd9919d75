"""Fits that find what data were made with, and a calibration from results small enough to check by hand."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldscope.agent.calibration import UNCALIBRATED, Calibration, CalibrationKey, calibration_key
from fieldscope.agent.fusion import log_odds, sigmoid
from fieldscope.agent.nothing import nothing_matches, threshold_of
from fieldscope.agent.posterior import believe
from fieldscope.agent.resources import Resources
from fieldscope.agent.state import RerankState
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.agent.types import Comparison, Predicate, RankedCandidate, RerankResult, Verdict
from fieldscope.core.errors import ConfigError
from fieldscope.core.types import Candidate, Query
from fieldscope.eval.tuning.calibrate import (
    FEW,
    SELECTION_SPLITS,
    calibrate,
    calibrate_composed,
    draw_groups,
    heads,
    require_selection_split,
    verification,
)
from fieldscope.eval.tuning.fitting import (
    Compared,
    VerdictFit,
    fit_comparison_weight,
    fit_joint,
    fit_nothing_below,
    fit_spread,
    fit_verdicts,
)
from fieldscope.eval.types import Benchmark
from fieldscope.retrieval.collection import FilesCollection

KEY = CalibrationKey(model="m", prompts={"ask_predicate": "f"})
TRUTH = VerdictFit(
    temperature=2.0, whole_weight=0.6, miss_odds=0.05, false_alarm_odds=0.02, prior_weight=0.8, bias=-1.0
)


def test_a_fit_finds_what_the_judgments_were_made_with() -> None:
    chance = np.random.default_rng(0)
    prior, verdicts = chance.normal(size=6000), chance.normal(1.0, 4.0, size=(6000, 3))
    verdicts[::3, 2] = np.inf  # every third candidate's query has two predicates
    whole = chance.normal(0.0, 3.0, size=6000)
    relevant = chance.random(6000) < 1 / (1 + np.exp(-TRUTH.log_odds(prior, verdicts, whole)))
    fit = fit_verdicts(prior, verdicts, whole, relevant)
    assert fit.whole_weight == pytest.approx(TRUTH.whole_weight, abs=0.1)
    assert fit.miss_odds == pytest.approx(TRUTH.miss_odds, rel=0.6)
    assert fit.false_alarm_odds == pytest.approx(TRUTH.false_alarm_odds, rel=0.6)
    assert fit.temperature == pytest.approx(TRUTH.temperature, rel=0.15)
    assert fit.prior_weight == pytest.approx(TRUTH.prior_weight, abs=0.15)
    assert fit.bias == pytest.approx(TRUTH.bias, abs=0.3)


def test_without_verdicts_the_prior_is_fitted_alone() -> None:
    chance = np.random.default_rng(1)
    prior = chance.normal(size=6000)
    relevant = chance.random(6000) < 1 / (1 + np.exp(-(1.2 * prior - 2)))
    fit = fit_verdicts(prior, np.empty((6000, 0)), np.zeros(6000), relevant)
    assert (fit.prior_weight, fit.bias) == pytest.approx((1.2, -2.0), abs=0.15)
    assert (fit.temperature, fit.whole_weight) == (UNCALIBRATED.temperature, UNCALIBRATED.whole_weight)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(-12, 12), st.booleans()), min_size=1, max_size=6))
def test_a_handful_of_candidates_can_not_run_away(rows: list[tuple[float, float, bool]]) -> None:
    prior, verdicts, relevant = (np.array(column) for column in zip(*rows, strict=True))
    fit = fit_verdicts(prior, verdicts[:, np.newaxis], -verdicts, relevant)
    assert 0 <= fit.whole_weight < 5
    assert 0.2 <= fit.temperature <= 10 + 1e-9
    assert 0 <= fit.prior_weight < 5
    assert abs(fit.bias) < 5


def test_a_fit_says_what_the_agent_will_believe() -> None:
    predicates = (
        Predicate(id="query", question="is it?"),
        Predicate(id="a", question="a?", kind="subject"),
        Predicate(id="b", question="b?", kind="count"),
    )
    answers = {"x": (0.6, 0.9, 0.3), "y": (0.3, 0.2, 0.999)}
    state = RerankState(
        query=Query(id="q", text="a crab"),
        candidates=(Candidate("x", 0.4), Candidate("y", 0.1)),
        predicates=predicates,
        verdicts=tuple(
            Verdict(predicate=p.id, image_id=i, state="answered", p_yes=v, p_expected=v)
            for i, values in answers.items()
            for p, v in zip(predicates, values, strict=True)
        ),
    )
    fit = replace(TRUTH, bias=2.0)  # confirms an image
    fitted = Calibration(**asdict(fit))
    belief = believe(
        state, Resources(FilesCollection({}), calibration=fitted), load_strategy("predicates", prompts="fieldnotes")
    )
    verdicts = np.array([[log_odds(p) for p in answers[i]] for i in ("x", "y")])
    assert fit.log_odds(np.array([1.0, -1.0]), verdicts[:, 1:], verdicts[:, 0]) == pytest.approx(belief.log_odds)


def compared(chance: np.random.Generator, precision: float, sign: float = 1.0) -> Compared:
    """Four images, believed with errors of standard deviation 1, all pairs compared in both orders, the first favoured
    by 0.5. The log-probabilities are the true log-odds (times `sign`) with noise of that precision."""
    believed = chance.normal(size=4)
    true = believed + chance.normal(size=4)
    showings = []
    for order in permutations(range(4), 2):
        said = sign * true[list(order)] + chance.normal(size=2) / math.sqrt(precision) + (0.5, 0.0)
        odds = np.exp(said - np.logaddexp(*said))
        showings.append((order, tuple(odds.tolist())))
    relevant = (chance.random(4) < 1 / (1 + np.exp(-true))).astype(np.int64)
    return Compared(believed, tuple(showings), relevant)


def test_comparisons_pay_by_how_much_they_tell() -> None:
    chance = np.random.default_rng(2)
    weights = [
        fit_comparison_weight([compared(chance, precision) for _ in range(60)], 1.0, 0.5) for precision in (0.05, 1.0)
    ]
    assert 0 < weights[0] < weights[1]


def test_a_comparison_that_tells_nothing_or_the_wrong_does_not_pay() -> None:
    chance = np.random.default_rng(3)
    assert fit_comparison_weight([compared(chance, 0.001) for _ in range(60)], 1.0, 0.5) == 0
    assert fit_comparison_weight([compared(chance, 1.0, sign=-1.0) for _ in range(60)], 1.0, 0.5) == 0
    assert fit_comparison_weight([], 1.0, 0.0) == 0


def test_the_spread_explains_how_often_the_order_is_wrong() -> None:
    chance = np.random.default_rng(4)
    true = chance.normal(0, 2, size=4000)
    seen = true + 1.5 * math.sqrt(2) * chance.normal(size=4000)
    # Of what is seen, relevant is the one that is truly above: the wider the errors, the more gaps are below zero.
    wide, narrow = fit_spread(np.sign(true) * seen), fit_spread(np.sign(true) * (true + 0.1 * (seen - true)))
    assert narrow < wide
    assert fit_spread([]) == pytest.approx(1, abs=1e-3)
    # Every gap is +-1 and a quarter is below zero: Phi(1 / (spread * sqrt 2)) = 3/4.
    assert fit_spread([1, 1, 1, -1] * 500) == pytest.approx(1 / (0.6745 * math.sqrt(2)), rel=0.01)


@given(st.integers(0, 30), st.sampled_from([2, 4]), st.text(max_size=4))
def test_groups_are_drawn_from_the_head_by_place_alone(size: int, together: int, seed: str) -> None:
    head = [f"i{n}" for n in range(size)]
    groups = draw_groups(head, together, seed)
    assert groups == draw_groups(head, together, seed)
    places = sorted({head.index(image) for group in groups for image in group})
    assert set(groups) == set(combinations([head[place] for place in places], together))
    assert len(groups) == math.comb(min(size, FEW), together)
    if size >= FEW:
        assert any(places[n + 2] - places[n] == 2 for n in range(FEW - 2))  # three neighbours
    # Other images at the same places: the same places are drawn.
    others = draw_groups([f"j{n}" for n in range(size)], together, seed)
    assert [[image[1:] for image in group] for group in others] == [[image[1:] for image in group] for group in groups]


def test_groups_are_drawn_from_all_of_the_head() -> None:
    groups = [group for seed in range(200) for group in draw_groups("abcdefghijklmnopqrst", 2, str(seed))]
    assert len({image for group in groups for image in group}) == 20


def judged_result(query_id: str, p: dict[str, float], comparisons: tuple[Comparison, ...] = ()) -> RerankResult:
    """Images a, b, c, ... with falling priors, each with one verdict."""
    return RerankResult(
        query_id=query_id,
        query_text="two red crabs",
        strategy="predicates",
        ranking=tuple(
            RankedCandidate(image_id=i, rank=n, score=-n, prior=-n, prior_rank=n) for n, i in enumerate(p, start=1)
        ),
        predicates=(Predicate(id="p1", question="is it red?", kind="colour"),),
        verdicts=tuple(
            Verdict(predicate="p1", image_id=i, state="answered", p_yes=v, p_expected=v, prompt_tokens=70)
            for i, v in p.items()
        ),
        comparisons=comparisons,
    )


def shown(*images: str, first: float) -> Comparison:
    return Comparison(shown=images, state="answered", probabilities=(first, 1 - first))


def bench(split: str, *queries: str) -> Benchmark:
    qrels = {query: {"a": 0, "b": 1, "c": 0, "d": 1} for query in queries}
    candidates = {query: tuple(Candidate(i, -n) for n, i in enumerate("abcd")) for query in queries}
    texts = tuple(Query(id=query, text="two red crabs") for query in queries)
    return Benchmark("mine", split, texts, qrels, FilesCollection({}), candidates)


def test_a_calibration_by_hand() -> None:
    p = {"a": 0.2, "b": 0.9, "c": 0.1, "d": 0.8}
    asked = (
        shown("a", "b", first=sigmoid(-1.0)), shown("b", "a", first=sigmoid(2.0)),
        shown("c", "d", first=sigmoid(1.0)), shown("d", "c", first=sigmoid(1.0)),
        shown("a", "c", first=sigmoid(3.0)),  # one order alone tells bias from preference apart by nothing
    )  # fmt: skip
    queries = [f"q{n}" for n in range(30)]
    found = calibrate(bench("validation", *queries), {q: judged_result(q, p, asked) for q in queries}, KEY)
    assert (found.key, found.benchmark, found.split, found.queries) == (KEY, "mine", "validation", 30)
    assert found.consistency == pytest.approx(1 / 2)
    # For the one shown first: (-1 + 2) / 2 and (1 + 1) / 2.
    assert found.position_bias == pytest.approx((0.5 + 1.0) / 2)
    assert found.pass_rates == pytest.approx(
        {"colour": np.mean([sigmoid(log_odds(v) / found.temperature) for v in p.values()])}
    )
    assert found.predicates_per_word == pytest.approx(1 / 3)
    assert found.tokens == {"verify:prompt": 70, "verify:completion": 0}
    # The verdicts are always right, so they are worth more than they claim; the prior prefers what is irrelevant.
    assert found.temperature < 1
    assert found.prior_weight < UNCALIBRATED.prior_weight
    assert 0 < found.spread < 1


def test_comparisons_pay_where_verdicts_leave_the_order_open() -> None:
    p = dict.fromkeys("abcd", 0.5)
    pairs = (("a", "b"), ("c", "d"))
    right = tuple(c for a, b in pairs for c in (shown(a, b, first=0.2), shown(b, a, first=0.8)))
    wrong = tuple(c.model_copy(update={"probabilities": c.probabilities[::-1]}) for c in right)
    queries = [f"q{n}" for n in range(10)]
    for asked, pays in ((right, True), (wrong, False), ((), False)):
        found = calibrate(bench("dev", *queries), {q: judged_result(q, p, asked) for q in queries}, KEY)
        assert (found.comparison_weight > 0) == pays
        assert found.consistency == (1 if asked else None)


def test_a_fit_of_joint_answers_finds_how_sure_they_are_beside_single_ones() -> None:
    chance = np.random.default_rng(5)
    prior, verdicts, whole = chance.normal(size=6000), chance.normal(1.0, 2.0, (6000, 3)), chance.normal(0.0, 3.0, 6000)
    relevant = chance.random(6000) < 1 / (1 + np.exp(-TRUTH.log_odds(prior, verdicts, whole)))
    joint = fit_joint(TRUTH, prior, 3.0 * verdicts, whole / 1.5, relevant)
    assert joint.temperature == pytest.approx(3.0, rel=0.2)
    assert joint.whole_weight == pytest.approx(1.5, rel=0.25)


def with_joint(result: RerankResult, p: dict[str, float]) -> RerankResult:
    """The same images, asked about together as well."""
    joint = tuple(
        Verdict(predicate="p1", image_id=i, state="answered", p_yes=v, p_expected=v, joint=True) for i, v in p.items()
    )
    return result.model_copy(update={"verdicts": (*joint, *result.verdicts)})


def test_what_joint_answers_cost_is_measured_against_single_ones() -> None:
    p = {"a": 0.2, "b": 0.9, "c": 0.1, "d": 0.8}
    queries = [f"q{n}" for n in range(30)]
    alone = {q: judged_result(q, p) for q in queries}
    single = calibrate(bench("validation", *queries), alone, KEY)
    assert single.joint_loss is None and not single.joint_pays
    for said, loss in ((p, 0.0), ({"a": 0.9, "b": 0.2, "c": 0.8, "d": 0.1}, 0.5)):
        both = calibrate(bench("validation", *queries), {q: with_joint(alone[q], said) for q in queries}, KEY)
        assert both.temperature == single.temperature  # joint answers change nothing for single questions
        assert (both.joint_loss or 0.0) == pytest.approx(loss, abs=0.1) and both.joint_pays == (loss == 0.0)


def test_a_strategy_with_joint_questions_finds_the_fit_that_measured_them() -> None:
    joint, predicates = load_strategy("joint"), load_strategy("predicates")
    measured = Calibration(key=calibration_key("m", joint, None), joint_loss=0.0)
    plain = Calibration(key=calibration_key("m", predicates, None))
    assert measured.fits(calibration_key("m", predicates, None)) and plain.fits(calibration_key("m", joint, None))
    assert not plain.joint_pays
    checked = verification(joint)
    assert checked.verify and checked.verify.joint and checked.verify.joint.agreement == 1.0


def test_what_was_not_answered_is_left_out() -> None:
    p = {"a": 0.2, "b": 0.9, "c": 0.1, "d": 0.8}
    whole = judged_result("q0", p)
    missing = whole.model_copy(
        update={"verdicts": (*whole.verdicts[:3], Verdict(predicate="p1", image_id="d", state="unknown"))}
    )
    found = calibrate(bench("val", "q0"), {"q0": missing}, KEY)
    assert found.pass_rates["colour"] < 0.5  # a "no" for d would have made the fit, not its absence
    nothing = whole.model_copy(update={"verdicts": ()})
    with pytest.raises(ConfigError, match="needs relevant and irrelevant candidates"):
        calibrate(bench("val", "q0"), {"q0": nothing}, KEY)


@pytest.mark.parametrize("split", ["test", "all", "Test", "", "testvalidation"])
def test_no_other_split_can_decide_a_setting(split: str) -> None:
    results = {"q0": judged_result("q0", {"a": 0.2, "b": 0.9})}
    with pytest.raises(ConfigError, match="may not be fitted on the split"):
        require_selection_split(split)
    with pytest.raises(ConfigError, match="may not be fitted on the split"):
        heads(bench(split, "q0"), results)
    with pytest.raises(ConfigError, match="may not be fitted on the split"):
        calibrate(bench(split, "q0"), results, KEY)


def test_the_head_is_the_best_after_the_fit() -> None:
    p = {"a": 0.2, "b": 0.9, "c": 0.1, "d": 0.8}
    queries = [f"q{n}" for n in range(30)]
    found = heads(bench("validation", *queries), {query: judged_result(query, p) for query in queries})
    assert found["q0"] == ["b", "d", "a", "c"]


def test_the_splits_that_can() -> None:
    for split in SELECTION_SPLITS:
        require_selection_split(split)


def test_verification_asks_everything_and_nothing_else() -> None:
    whole = verification(load_strategy("agent", prompts="fieldnotes"))
    assert whole.verify is not None and whole.verify.stop_below is None
    assert (whole.refine, whole.compare, whole.explain) == (None, None, None)
    assert whole.synthesize == load_strategy("agent", prompts="fieldnotes").synthesize
    assert verification(load_strategy("pairwise", prompts="fieldnotes")).prompts == ()
    with pytest.raises(ConfigError, match="nothing to fit"):
        verification(load_strategy("yes-no-fused", prompts="fieldnotes"))


def test_a_fit_is_shared_by_strategies_whose_prompts_agree() -> None:
    agent, predicates, pairwise = (
        load_strategy(name, prompts="fieldnotes") for name in ("agent", "predicates", "pairwise")
    )
    fitted = Calibration(key=calibration_key("m", agent, "clip"))
    assert all(fitted.fits(calibration_key("m", strategy, "clip")) for strategy in (agent, predicates))
    assert not fitted.fits(calibration_key("m", pairwise, "clip"))  # it has no verdicts to start from
    assert not fitted.fits(calibration_key("n", agent, "clip"))
    assert not fitted.fits(calibration_key("m", agent.instructed("Find animals."), "clip"))  # other priors
    assert not fitted.fits(calibration_key("m", agent, None))
    assert not UNCALIBRATED.fits(calibration_key("m", agent, "clip"))
    alone = Calibration(key=calibration_key("m", predicates, "clip"))
    assert not alone.fits(calibration_key("m", agent, "clip"))
    assert predicates.verify is not None
    reworded = predicates.verify.prompt.model_copy(update={"template": "{{ question }} yes or no?"})
    own = predicates.model_copy(update={"verify": predicates.verify.model_copy(update={"prompt": reworded})})
    assert not fitted.fits(calibration_key("m", own, "clip"))


def test_the_threshold_of_nothing_by_hand() -> None:
    with_match, without = [0.8] * 19 + [0.6], [0.1] * 18 + [0.7] * 2
    # One query of twenty (all that is bearable) against one list of ten (half of it): the latter stays unsaid.
    assert fit_nothing_below(with_match, without) == pytest.approx(sigmoid((log_odds(0.1) + log_odds(0.6)) / 2))
    assert fit_nothing_below([0.9] * 20, [0.7] * 20) == pytest.approx(sigmoid((log_odds(0.7) + log_odds(0.9)) / 2))
    misread = fit_nothing_below([0.9] * 18 + [0.01, 0.02], [0.1] * 20)
    assert misread == pytest.approx(sigmoid(log_odds(0.01) - 0.5)), "two of twenty are not bearable"
    assert fit_nothing_below([0.9] * 19, without) is None, "too few queries to tell a share of one in twenty"


def test_a_part_that_fails_costs_what_it_was_made_with() -> None:
    chance = np.random.default_rng(0)
    n = 4000
    verdicts = chance.normal(0.0, 3.0, size=(n, 3))
    made = VerdictFit(2.0, 0.0, 0.001, 0.03, 0.0, 1.0, part_cost=1.5)
    none = np.zeros(n)
    relevant = chance.uniform(size=n) < 1.0 / (1.0 + np.exp(-made.log_odds(none, verdicts, none)))
    fit = fit_verdicts(none, verdicts, none, relevant)
    assert fit.part_cost == pytest.approx(1.5, abs=0.4)


def test_a_fit_says_how_it_is_read_and_one_of_an_earlier_version_does_not() -> None:
    new = Calibration(key=KEY)
    written = new.model_dump(mode="json")
    assert written["edition"] == 2 and Calibration.model_validate(written) == new
    del written["edition"]
    earlier = Calibration.model_validate(written)
    assert earlier.edition == 1 and "edition" not in earlier.model_dump(mode="json")


def test_composed_queries_have_a_threshold_of_their_own() -> None:
    p = {"a": 0.02, "b": 0.9, "c": 0.1, "d": 0.8}
    queries = [f"q{n}" for n in range(30)]
    bench_of = bench("validation", *queries)
    fitted = calibrate(bench_of, {q: judged_result(q, p, ()) for q in queries}, KEY)
    misread = dict.fromkeys("abcd", 0.001)  # so it looks where the reference was described wrongly
    results = {q: judged_result(q, misread if n < 3 else p, ()) for n, q in enumerate(queries)}
    both = calibrate_composed(fitted, bench_of, results)
    assert both.composed_nothing_below is not None and fitted.nothing_below is not None
    assert both.composed_nothing_below < fitted.nothing_below / 10
    assert threshold_of(both, composed=True) == both.composed_nothing_below
    assert threshold_of(both, composed=False) == fitted.nothing_below == threshold_of(fitted, composed=True)
    assert Calibration.model_validate_json(both.model_dump_json()) == both
    assert "composed_nothing_below" not in fitted.model_dump()


def test_the_same_answers_refute_a_text_query_and_no_composed_one() -> None:
    fitted = Calibration(key=KEY, nothing_below=0.7, composed_nothing_below=1e-6)
    predicate = Predicate(id="a", question="a?", kind="subject")
    verdict = Verdict(predicate="a", image_id="x", state="answered", p_yes=0.1, p_expected=0.1)

    def says_nothing(reference: str | None) -> bool:
        state = RerankState(
            query=Query(id="q", text="a crab", reference_image=reference),
            candidates=(Candidate("x", 0.4, 1.0),),
            predicates=(predicate,),
            verdicts=(verdict,),
        )
        resources = Resources(FilesCollection({}), calibration=fitted)
        return nothing_matches(believe(state, resources, load_strategy("agent", prompts="fieldnotes"))) is not None

    assert (says_nothing(None), says_nothing("r")) == (True, False)


def test_no_test_split_and_no_scores_choose_the_threshold_of_composed_queries() -> None:
    with pytest.raises(ConfigError, match="test"):
        calibrate_composed(Calibration(key=KEY), bench("test", "q0"), {})
    with pytest.raises(ConfigError, match="Leave out `--composed`"):
        calibrate_composed(Calibration(key=KEY, scorer_weight=0.5), bench("validation", "q0"), {})
