"""What closer looks are worth, fitted to answers whose use is known."""

from __future__ import annotations

import numpy as np
import pytest

from fieldscope.agent.calibration import Calibration, CalibrationKey
from fieldscope.agent.fusion import sigmoid
from fieldscope.agent.posterior import believe
from fieldscope.agent.resources import Resources
from fieldscope.agent.state import RerankState
from fieldscope.agent.strategies.strategy import Strategy, load_strategy
from fieldscope.agent.types import Predicate, RankedCandidate, RerankResult, Verdict
from fieldscope.core.looks import Look, Region
from fieldscope.core.types import Candidate, Query
from fieldscope.eval.tuning.calibrate import Labelled, calibrate
from fieldscope.eval.tuning.closer_looks import log_odds_after_all_looks, looked_at
from fieldscope.eval.tuning.fitting import VerdictFit
from fieldscope.eval.tuning.judged import all_judged, find_scales
from fieldscope.eval.types import Benchmark
from fieldscope.retrieval.collection import FilesCollection

KEY = CalibrationKey(model="m", prompts={"match_yes_no": "f"})
WHOLE = Predicate(id="query", question="is it a red bird?")
LEFT = Look(region=Region(left=0.0, top=0.0, right=0.5, bottom=1.0), similarity=0.3)
RIGHT = Look(region=Region(left=0.5, top=0.0, right=1.0, bottom=1.0), similarity=0.2)
ENHANCED = Look(enhance=True)
IMAGES, QUERIES = 20, 25


def answered(image_id: str, odds: float, look: Look | None = None) -> Verdict:
    p = sigmoid(odds)
    return Verdict(predicate="query", image_id=image_id, state="answered", p_yes=p, p_expected=p, look=look)


def result(query_id: str, small: bool, chance: np.random.Generator, matches: list[int]) -> RerankResult:
    """Answers of a model that tells nothing from small subjects in whole pictures, and everything from their best
    region; of large ones the other way round. The enhanced picture is noise."""
    verdicts, ranking = [], []
    for n in range(IMAGES):
        image_id, side = f"i{n}", 1.0 if n in matches else -1.0
        clear, vague = 3.0 * side + chance.normal(), chance.normal() - 2.0
        verdicts += [
            answered(image_id, vague if small else clear),
            answered(image_id, clear if small else vague, LEFT),
            answered(image_id, chance.normal() - 3.0, RIGHT),
            answered(image_id, 0.1 * chance.normal(), ENHANCED),
        ]
        prior = 0.25 if small else 0.35  # the best region is more similar than a picture with a small subject
        ranking.append(
            RankedCandidate(image_id=image_id, rank=n + 1, score=-n, prior=prior, standing=0.0, prior_rank=n + 1)
        )
    return RerankResult(
        query_id=query_id, query_text="a red bird", strategy="s", ranking=tuple(ranking), predicates=(WHOLE,),
        verdicts=tuple(verdicts),
    )  # fmt: skip


def labelled(name: str, small: bool, seed: int) -> Labelled:
    chance = np.random.default_rng(seed)
    ids = [f"q{n}" for n in range(QUERIES)]
    matches = {query: chance.choice(IMAGES, size=5, replace=False).tolist() for query in ids}
    benchmark = Benchmark(
        name,
        "validation",
        tuple(Query(id=query, text="a red bird") for query in ids),
        {query: {f"i{n}": int(n in own) for n in range(IMAGES)} for query, own in matches.items()},
        FilesCollection({}),
        {query: tuple(Candidate(f"i{n}", 0.0) for n in range(IMAGES)) for query in ids},
    )
    return Labelled(benchmark, {query: result(query, small, chance, matches[query]) for query in ids})


LARGE, SMALL = labelled("large", False, 1), labelled("small", True, 2)


@pytest.fixture(scope="module")
def fitted() -> Calibration:
    return calibrate(LARGE.benchmark, LARGE.results, KEY, [SMALL])


def strategy() -> Strategy:
    base = load_strategy("yes-no-fused", prompts="fieldnotes").model_dump()
    fusion = {"method": "posterior", "prior_weight": 0.5}
    return Strategy.model_validate({**base, "inspect": {}, "fusion": fusion})


def precision(of: Labelled, calibration: Calibration | None, *looks: Look) -> float:
    """Mean precision at 5 of the ranking from the picture as it is and these looks."""
    hits = []
    for query, said in of.results.items():
        state = RerankState(
            query=Query(id=query, text="a red bird"),
            candidates=tuple(each.candidate for each in said.ranking),
            predicates=(WHOLE,),
            verdicts=tuple(verdict for verdict in said.verdicts if verdict.look is None or verdict.look in looks),
        )
        order = believe(state, Resources(FilesCollection({}), calibration=calibration), strategy()).order()[:5]
        hits.append(np.mean([of.benchmark.judgments(query)[f"i{i}"] for i in order]))
    return float(np.mean(hits))


def test_the_fit_ranks_small_and_large_subjects_well(fitted: Calibration) -> None:
    assert precision(SMALL, fitted) < 0.5
    assert precision(SMALL, fitted, LEFT, RIGHT) > 0.85
    assert precision(LARGE, fitted, LEFT, RIGHT) > 0.85
    # Without a fit looks help small subjects, too, and cost large ones little.
    assert precision(SMALL, None, LEFT, RIGHT) > precision(SMALL, None) + 0.2
    assert precision(LARGE, None, LEFT, RIGHT) > 0.8


def test_each_set_of_looks_has_weights_and_what_its_last_look_moves(fitted: Calibration) -> None:
    sets = {(each.regions, each.enhanced): each for each in fitted.looks}
    assert sets.keys() == {(1, 0), (2, 0), (0, 1), (1, 1), (2, 1)}
    assert (fitted.benchmark, fitted.split, fitted.queries) == ("large and small", "validation", 2 * QUERIES)
    region, enhanced = sets[1, 0], sets[0, 1]
    assert region.weights[1] > 0.2 and region.weights[3] == 0.0
    # The first region tells much, the enhanced picture nothing.
    assert region.moves_small["regions"] > 4 * enhanced.moves_small["enhanced"]
    assert sets[2, 1].moves.keys() == {"regions", "enhanced"}


def test_one_benchmark_is_fitted_as_before_and_looks_are_left_out_of_files(fitted: Calibration) -> None:
    plain = {
        query: said.model_copy(update={"verdicts": tuple(v for v in said.verdicts if v.look is None)})
        for query, said in LARGE.results.items()
    }
    alone = calibrate(LARGE.benchmark, plain, KEY)
    assert alone.looks == () and "looks" not in alone.model_dump(mode="json")
    assert Calibration.model_validate_json(fitted.model_dump_json()) == fitted


def test_what_ranks_is_what_was_fitted(fitted: Calibration) -> None:
    """The log-odds of a belief are those whose likelihood was maximised, image by image."""
    weights = (fitted.temperature, fitted.whole_weight, fitted.miss_odds, fitted.false_alarm_odds)
    fit = VerdictFit(*weights, fitted.prior_weight, fitted.bias, fitted.part_cost)
    judged = all_judged(SMALL.benchmark, SMALL.results, find_scales(SMALL.results, False))
    images = looked_at(list(judged.values()), list(SMALL.results.values()), fit)
    after = log_odds_after_all_looks(judged, images, fitted.looks, fit)
    query, said = next(iter(SMALL.results.items()))
    state = RerankState(
        query=Query(id=query, text="a red bird"),
        candidates=tuple(each.candidate for each in said.ranking),
        predicates=(WHOLE,),
        verdicts=said.verdicts,
    )
    belief = believe(state, Resources(FilesCollection({}), calibration=fitted), strategy())
    assert belief.log_odds == pytest.approx(after[query])
    assert belief.log_odds != pytest.approx(belief.log_odds_as_is)
