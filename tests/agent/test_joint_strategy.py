"""The strategy `joint` from end to end, with a model that tells the truth."""

from __future__ import annotations

from pathlib import Path

import pytest

from fieldscope.agent.calibration import Calibration
from fieldscope.agent.graph import Agent
from fieldscope.agent.lmm.base import LMM, LMMRequest, LMMResponse
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.agent.types import Call, RerankResult
from tests.agent.oracle import draw_cases, oracle_of, paint

CASES = [case for case in draw_cases(6) if case.query.reference_image is None]


class WithoutTokens:
    """A model whose server returns log-probabilities of the first token alone."""

    def __init__(self, lmm: LMM) -> None:
        self._lmm = lmm
        self.identity = lmm.identity

    async def generate(self, request: LMMRequest) -> LMMResponse:
        return (await self._lmm.generate(request)).model_copy(update={"tokens": ()})

    async def aclose(self) -> None:
        await self._lmm.aclose()


def asked(result: RerankResult) -> tuple[int, int]:
    """Calls about images: of joint questions, and of single ones."""
    together = [call for call in result.asked if isinstance(call, Call) and call.stage == "joint"]
    return len(together), sum(not isinstance(question, Call) for question in result.asked)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.query.id)
async def test_one_call_an_image_ranks_as_single_questions_do(tmp_path: Path, case) -> None:
    resources = Resources(images := paint(tmp_path), oracle_of(images))
    single = await Agent(resources, load_strategy("predicates", prompts="fieldnotes")).rerank(
        case.query, case.candidates
    )
    joint = await Agent(resources, load_strategy("joint", prompts="fieldnotes")).rerank(case.query, case.candidates)
    assert [ranked.image_id for ranked in joint.ranking] == [ranked.image_id for ranked in single.ranking]
    together, alone = asked(joint)
    assert together == len(case.candidates)
    assert alone < asked(single)[1] / 2
    verdicts = [verdict for verdict in joint.verdicts if verdict.joint]
    assert {verdict.predicate for verdict in verdicts} == {predicate.id for predicate in joint.predicates}
    assert all(0 < (verdict.p_yes or 0) < 1 for verdict in verdicts)


async def test_answers_without_log_probabilities_are_asked_one_at_a_time(tmp_path: Path) -> None:
    resources = Resources(images := paint(tmp_path), WithoutTokens(oracle_of(images)))
    case = CASES[0]
    result = await Agent(resources, load_strategy("joint", prompts="fieldnotes")).rerank(case.query, case.candidates)
    assert {verdict.state for verdict in result.verdicts if verdict.joint} == {"unknown"}
    together, alone = asked(result)
    assert together == len(case.candidates) and alone == len(case.candidates) * len(result.predicates)
    assert {ranked.image_id for ranked in result.ranking[: len(case.relevant)]} == case.relevant


async def test_joint_answers_count_with_their_own_temperature(tmp_path: Path) -> None:
    images, case = paint(tmp_path), CASES[0]
    strategy = load_strategy("joint", {"verify.joint.sample": 0.0, "verify.joint.look_again": None})
    ranges = []
    for temperature in (1.0, 4.0):
        fitted = Calibration(joint_temperature=temperature, joint_whole_weight=1 / temperature)
        agent = Agent(Resources(images, oracle_of(images), calibration=fitted), strategy)
        scores = [ranked.score for ranked in (await agent.rerank(case.query, case.candidates)).ranking]
        ranges.append(scores[0] - scores[-1])
    assert ranges[1] < ranges[0]
