"""The stage `score`: what a scoring model's scores make of a ranking, and what happens where there are none."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fieldscope.agent.budget import Budget
from fieldscope.agent.calibration import UNCALIBRATED, Calibration, CalibrationKey, FirstLook, calibration_key
from fieldscope.agent.fusion import standardise
from fieldscope.agent.graph import Agent
from fieldscope.agent.image_scorer import ImageScorer
from fieldscope.agent.resources import CandidateScorer, Resources
from fieldscope.agent.scored import CachedScorer
from fieldscope.agent.scoring import standing
from fieldscope.agent.strategies.strategy import Strategy, load_strategy
from fieldscope.agent.trace import result_from_json, result_to_json
from fieldscope.agent.types import ImageScore, RerankResult
from fieldscope.cache.store import MemoryStore
from fieldscope.core.errors import ConfigError, LMMConnectionError, StrategyError
from fieldscope.core.types import Candidate, Query, Scale, Search
from fieldscope.retrieval.collection import FolderCollection
from fieldscope.retrieval.encoder import QueryInputs
from fieldscope.retrieval.scorer import Document, Scorer
from tests.agent.oracle import draw_cases, oracle_of, oracle_scorer, paint, scorer_of

QUERY = Query(id="q", text="crab, snow")
SCORED_PREDICATES = {"score.predicates": True, "verify.whole": None}


class Given:
    """A `CandidateScorer` of values by image id, None for those that it can't judge."""

    fingerprint = "given"

    def __init__(self, values: dict[str, float | None], tokens: int = 0) -> None:
        self.values = values
        self.tokens = tokens
        self.asked: list[tuple[str, ...]] = []

    async def scores(
        self, query: Query, image_ids: Sequence[str], question: str | None = None, instruction: str | None = None
    ) -> Sequence[ImageScore]:
        self.asked.append(tuple(image_ids))
        return [self._score(image_id) for image_id in image_ids]

    def _score(self, image_id: str) -> ImageScore:
        value = self.values[image_id]
        if value is None:
            return ImageScore(image_id=image_id, state="unknown", error="too dark")
        return ImageScore(image_id=image_id, state="answered", value=value, prompt_tokens=self.tokens)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> FolderCollection:
    return paint(tmp_path_factory.mktemp("pictures"))


def over(scorer: Scorer, images: FolderCollection) -> ImageScorer:
    return ImageScorer(CachedScorer(scorer, MemoryStore(), images), images)


def candidates(*priors: float) -> tuple[Candidate, ...]:
    return tuple(Candidate(f"{n:02}.png", prior) for n, prior in enumerate(priors))


async def rerank(
    images: FolderCollection,
    scorer: CandidateScorer | None,
    found: Sequence[Candidate],
    strategy: Strategy | str = "cross-encoder",
    query: Query = QUERY,
    budget: Budget | None = None,
    **resources: Any,
) -> RerankResult:
    loaded = load_strategy(strategy, prompts="fieldnotes") if isinstance(strategy, str) else strategy
    resources.setdefault("lmm", oracle_of(images))
    return await Agent(Resources(images, scorer=scorer, **resources), loaded).rerank(query, found, budget=budget)


def order(result: RerankResult) -> list[str]:
    return [ranked.image_id[:2] for ranked in result.ranking]


async def test_a_cross_encoder_ranks_by_its_scores_and_breaks_ties_by_the_prior(images: FolderCollection) -> None:
    scorer = Given({"00.png": 0.1, "01.png": 0.9, "02.png": 0.5, "03.png": 0.5})
    result = await rerank(images, scorer, candidates(0.4, 0.3, 0.1, 0.2), lmm=None)
    assert order(result) == ["01", "03", "02", "00"]
    assert [ranked.prior_rank for ranked in result.ranking] == [2, 3, 4, 1]
    assert all(one.score > other.score for one, other in pairwise(result.ranking))
    assert result.asked == () and len(result.scores) == 4 and not result.flags
    (event,) = [event for event in result.trace if event.kind == "scored"]
    assert event.data["pairs"] == 4 and ["01.png", 0.9] in event.data["scores"]
    assert next(event for event in result.trace if event.kind == "started").data["scorer"] == "given"
    assert result_from_json(result_to_json(result)) == result


async def test_an_image_without_a_score_keeps_its_first_stage_position(images: FolderCollection) -> None:
    scorer = Given({"00.png": -3.0, "01.png": None, "02.png": -2.0, "03.png": -1.0})
    result = await rerank(images, scorer, candidates(4, 3, 2, 1), lmm=None)
    assert order(result) == ["03", "01", "02", "00"]
    assert [score.state for score in result.scores] == ["answered", "unknown", "answered", "answered"]
    assert result.flags == ("the scorer gave no score for 1 of 4 images; they keep their first-stage position",)


async def test_where_the_scorer_says_nothing_the_first_stage_stands(images: FolderCollection) -> None:
    class Dead:
        fingerprint = "dead"

        def score(self, inputs: QueryInputs, documents: Sequence[Document]) -> list[float | None]:
            raise LMMConnectionError("nobody listens")

    result = await rerank(images, over(Dead(), images), candidates(1, 2, 3), lmm=None)
    assert order(result) == ["02", "01", "00"]
    assert result.flags == (
        "the stage 'score' was lost (nobody listens); the first stage's scores stand in for the scorer's",
    )


@pytest.mark.parametrize("strategy", ["cross-encoder", "cascade"])
def test_without_a_scorer_one_line_says_what_to_add(images: FolderCollection, strategy: str) -> None:
    with pytest.raises(ConfigError, match=rf"strategy '{strategy}' needs a scoring model; name one with --scorer"):
        Agent(Resources(images, oracle_of(images)), load_strategy(strategy, prompts="fieldnotes"))


async def test_the_scores_as_the_prior(images: FolderCollection) -> None:
    settings = {"retrieve.prior": "scorer", "score": {}}
    strategy = load_strategy("yes-no", settings, prompts="fieldnotes")
    scorer = Given({"00.png": 1.0, "01.png": 3.0, "02.png": None, "03.png": 2.0})
    result = await rerank(images, scorer, candidates(4, 3, 2, 1), strategy)
    by_prior = sorted(result.ranking, key=lambda ranked: ranked.prior_rank)
    assert [ranked.image_id[:2] for ranked in by_prior] == ["01", "03", "02", "00"]
    assert [round(ranked.prior, 9) for ranked in by_prior] == [3.0, 2.0, 2.0, 1.0]


async def test_scores_as_the_prior_outlast_a_second_search(images: FolderCollection) -> None:
    """The first stage's own scores decide what a later round keeps, and the scorer's the order."""
    strategy = load_strategy(
        "agent",
        {"score": {}, "retrieve": {"prior": "scorer", "top_k": 4}, "refine.fewest": 100, "explain": None},
        prompts="fieldnotes",
    )
    searched: list[int] = []

    class Finder:
        def search(self, search: Search) -> Sequence[Candidate]:
            searched.append(search.k)
            return candidates(*(1 - n / 100 for n in range(search.k)))

    scorer = Given({f"{n:02}.png": float(n) for n in range(32)})
    result = await rerank(images, scorer, None, strategy, retriever=Finder())
    assert searched == [4, 6]
    assert scorer.asked == [("00.png", "01.png", "02.png", "03.png"), ("04.png", "05.png")]
    by_prior = sorted(result.ranking, key=lambda ranked: ranked.prior_rank)
    assert [ranked.image_id[:2] for ranked in by_prior] == ["05", "04", "03", "02", "01", "00"]


async def test_beside_the_prior_the_score_has_its_share(images: FolderCollection) -> None:
    scorer = Given({"00.png": 5.0, "01.png": 1.0, "02.png": 0.0, "03.png": 0.0})
    fit = Calibration(key=CalibrationKey(model="oracle", prompts={}), prior_weight=0.5, scorer_weight=2.0)
    result = await rerank(images, scorer, candidates(1, 2, 3, 4), "cascade", calibration=fit)
    shares = {ranked.image_id: ranked.contributions for ranked in result.ranking}
    values = standardise([0.0, 0.0, 1.0, 5.0])
    for image_id, value in zip(("03.png", "02.png", "01.png", "00.png"), values, strict=True):
        assert shares[image_id]["scorer"] == pytest.approx(2.0 * value)
    for ranked in result.ranking:
        assert sum(ranked.contributions.values()) == pytest.approx(ranked.score)
    assert not any("uncalibrated" in flag for flag in result.flags)
    default = await rerank(images, scorer, candidates(1, 2, 3, 4), "cascade")
    assert any(flag.startswith("uncalibrated") for flag in default.flags)
    by_default = {ranked.image_id: ranked.contributions["scorer"] for ranked in default.ranking}
    assert by_default["00.png"] == pytest.approx(1.0 * values[3])


async def test_only_images_whose_match_is_open_are_asked_about(images: FolderCollection) -> None:
    """The first look leaves out what it is sure of, and such an image has the log-odds that the look gives it."""
    look = FirstLook(bias=0.0, prior_weight=1.0, scorer_weight=8.0)
    fit = Calibration(key=CalibrationKey(model="oracle", prompts={}), scorer_weight=1.0, first_look=look)
    scorer = Given({"00.png": -5.0, "01.png": 5.0, "02.png": 0.0, "03.png": 0.0, "04.png": None})
    found = candidates(1, 1, 1, 1, 1)
    result = await rerank(images, scorer, found, "cascade", calibration=fit)
    asked = {verdict.image_id[:2] for verdict in result.verdicts if verdict.state == "answered"}
    assert asked == {"02", "03", "04"}
    shares = {ranked.image_id: ranked.contributions for ranked in result.ranking}
    assert shares["00.png"]["base"] == 0.0 and shares["00.png"]["scorer"] == pytest.approx(8.0 * -(2**0.5))
    assert shares["04.png"]["scorer"] == 0.0
    for ranked in result.ranking:
        assert sum(ranked.contributions.values()) == pytest.approx(ranked.score)


def test_without_a_score_an_image_stands_where_its_prior_does() -> None:
    found = candidates(4, 3, 2, 1)
    scores = [ImageScore(image_id=f"0{n}.png", state="answered", value=float(n)) for n in (1, 2, 3)]
    placed = standing(found, scores, (1.5, 0.5, 0.0, -1.0))
    assert placed[0] == 1.5
    assert placed[1:] == pytest.approx(standardise([1.0, 2.0, 3.0]))
    assert standing(found, scores, (1.5, 0.5, 0.0, -1.0), Scale(mean=1.0, deviation=2.0)) == (1.5, 0.0, 0.5, 1.0)


async def test_predicates_can_be_the_scorers(images: FolderCollection) -> None:
    strategy = load_strategy(
        "predicates",
        {"name": "scored-predicates", "score": {"predicates": True}, "verify.whole": None, "fusion.scorer_weight": 0.0},
        prompts="fieldnotes",
    )
    case = draw_cases(1)[0]
    scorer = oracle_scorer(images)
    fit = Calibration(key=CalibrationKey(model="oracle", prompts={}), scored_scale=3.0, scored_offset=0.5)
    result = await rerank(images, over(scorer, images), case.candidates, strategy, case.query, calibration=fit)
    scored = [verdict for verdict in result.verdicts if verdict.mode == "scored"]
    assert len(scored) == len(result.predicates) * len(case.candidates) == len(result.verdicts)
    assert all(call.stage in ("synthesize", "decompose") for call in result.calls) and len(result.asked) == 2
    assert {ranked.image_id for ranked in result.ranking[: len(case.relevant)]} == case.relevant
    assert set(scorer.texts) == {case.query.text, *(predicate.question for predicate in result.predicates)}
    for verdict in scored:
        assert verdict.p_yes is not None and (verdict.p_yes > 0.5) == (verdict.p_yes > 0.8)
    assert [event.data.get("predicate") for event in result.trace if event.kind == "scored"] == [
        None,
        *(predicate.id for predicate in result.predicates),
    ]


async def test_a_budget_of_tokens_ends_the_scoring_and_calls_do_not(images: FolderCollection) -> None:
    values: dict[str, float | None] = {f"{n:02}.png": float(n) for n in range(32)}
    found = [Candidate(f"{n:02}.png", -float(n)) for n in range(32)]
    more = [*found, *(Candidate(f"x{n}.png", -50.0 - n) for n in range(8))]
    values |= {candidate.image_id: 99.0 for candidate in more[32:]}
    whole = await rerank(images, Given(values, tokens=10), more, lmm=None, budget=Budget(max_calls=1))
    assert {score.state for score in whole.scores} == {"answered"} and whole.ended is None
    cut = await rerank(images, Given(values, tokens=10), more, lmm=None, budget=Budget(max_tokens=300))
    assert [score.state for score in cut.scores] == ["answered"] * 32 + ["not_asked"] * 8
    assert cut.ended == "score"
    assert [ranked.image_id for ranked in cut.ranking[32:]] == [f"x{n}.png" for n in range(8)]


async def test_a_composed_query_shows_the_scorer_its_reference(images: FolderCollection) -> None:
    case = next(case for case in draw_cases(6) if case.query.reference_image)
    result = await rerank(images, scorer_of(images), case.candidates, query=case.query, lmm=None)
    assert {ranked.image_id for ranked in result.ranking[: len(case.relevant)]} == case.relevant


def test_a_calibration_belongs_to_its_scorer(tmp_path: Path) -> None:
    cascade, agent = load_strategy("cascade"), load_strategy("agent")
    told = load_strategy("cascade", {"score.instruction": "Find animals."})
    as_prior = load_strategy("agent", {"score": {}, "retrieve.prior": "scorer"})
    key = calibration_key("m", cascade, "clip", "s")
    assert Calibration(key=key).fits(key)
    others = [
        calibration_key("m", cascade, "clip", "t"),
        calibration_key("m", told, "clip", "s"),
        calibration_key("m", agent, "clip", "s"),
        calibration_key("m", as_prior, "clip", "s"),
    ]
    assert not any(Calibration(key=key).fits(other) for other in others)
    assert others[2] == calibration_key("m", agent, "clip"), "an agent without the stage has no scorer"
    assert others[3].encoder == "s" and others[3].scorer is None, "its scores are the first stage"
    plain = UNCALIBRATED.model_dump(mode="json")
    assert not {"scorer_weight", "first_look", "scored_scale", "scored_offset"} & plain.keys()
    assert "scorer" not in others[2].model_dump()


@pytest.mark.parametrize(
    ("name", "change", "complaint"),
    [
        ("clip", {"retrieve.prior": "scorer"}, "uses the scores of a stage `score`"),
        ("clip", {"fusion.method": "score"}, "uses the scores of a stage `score`"),
        ("clip", {"score": {}}, "no stage uses the scores"),
        ("yes-no", {"score": {}}, "no stage uses the scores"),
        ("yes-no", {"score": {}, "fusion.method": "score"}, "there is no stage 'verify'"),
        ("cross-encoder", {"retrieve.prior": "scorer"}, "leave retrieve.prior out"),
        ("cross-encoder", {"score.predicates": True}, "needs stage `decompose`"),
        ("agent", {"score": {}}, "scorer_weight"),
        ("agent", {"fusion.scorer_weight": 1.0}, "uses the scores of a stage `score`"),
        ("cascade", {"retrieve.prior": "scorer"}, "scorer_weight"),
        ("cascade", {"verify.stop_below": None}, "score.stop_below needs"),
    ],
)
def test_scores_that_nothing_uses_and_uses_without_scores_are_refused(
    name: str, change: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(StrategyError, match=complaint):
        load_strategy(name, change)
