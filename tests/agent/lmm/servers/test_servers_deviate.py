"""Whatever a server does: the ranking is the truthful server's, or each verdict is unknown and says why."""

from __future__ import annotations

import re

import numpy as np
import pytest

from fieldscope.agent.graph import Agent
from fieldscope.agent.json_answer import ask_structured
from fieldscope.agent.lmm.base import LMMRequest, Message, TextPart, TokenLogprob
from fieldscope.agent.lmm.logprobs import logprobs_fault
from fieldscope.agent.lmm.openai import OpenAILMM
from fieldscope.agent.resources import Resources
from fieldscope.agent.schemas import AnswersAnswer
from fieldscope.agent.strategies.strategy import Strategy, load_strategy
from fieldscope.agent.types import RerankResult
from fieldscope.core.types import Candidate, Query
from fieldscope.service.doctor import steadiness, throughput
from fieldscope.service.doctor.examine import examine
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.images import Drawn
from fieldscope.service.doctor.probes import shapes
from fieldscope.service.wiring.models import check_served
from fieldscope.service.wiring.settings import Settings
from tests.agent.lmm.conftest import Reply, Server
from tests.agent.lmm.servers.deviations import DEVIATIONS, Deviation
from tests.agent.lmm.servers.truthful import (
    JSON_ANSWER,
    MODEL,
    P_MATCH,
    Body,
    Truthful,
    alternatives,
    body_of,
    reply,
)

PICTURES = shapes().images
CANDIDATES = [Candidate(name, 0.1 * n) for n, name in enumerate(sorted(P_MATCH))]  # nothing like the truth
BY_P = sorted(P_MATCH, key=lambda name: -P_MATCH[name])


async def ranked(server: Server, deviation: Deviation) -> RerankResult:
    """FieldNotes' simplest strategy over the pictures, at this server."""
    server.reply = Truthful(deviation.change, deviation.models)
    images = Drawn(PICTURES)
    lmm = OpenAILMM(server.url, MODEL, images, backoff=0.001)
    await check_served(lmm)
    try:
        return await Agent(Resources(images=images, lmm=lmm), strategy(deviation.max_tokens)).rerank(
            Query(id="q", text="a red circle"), CANDIDATES
        )
    finally:
        await lmm.aclose()


def strategy(max_tokens: int) -> Strategy:
    shipped = load_strategy("yes-no", prompts="fieldnotes")
    assert shipped.verify is not None
    return shipped.model_copy(update={"verify": shipped.verify.model_copy(update={"max_tokens": max_tokens})})


async def test_the_truthful_server_is_ranked_by_the_truth(server: Server) -> None:
    result = await ranked(server, Deviation())
    assert [each.image_id for each in result.ranking] == BY_P
    assert {verdict.state for verdict in result.verdicts} == {"answered"}
    assert all(0.0 < (verdict.p_yes or 0.0) < 1.0 for verdict in result.verdicts)


@pytest.mark.parametrize("name", DEVIATIONS)
async def test_the_ranking_is_the_truth_or_every_verdict_says_why_not(server: Server, name: str) -> None:
    deviation = DEVIATIONS[name]
    result = await ranked(server, deviation)
    states = {verdict.state for verdict in result.verdicts}
    if deviation.unknown is None:
        assert states == {"answered"}, [verdict.error for verdict in result.verdicts]
        assert [each.image_id for each in result.ranking] == BY_P
        return
    assert states == {"unknown"}, [(verdict.image_id, verdict.p_yes) for verdict in result.verdicts]
    for verdict in result.verdicts:
        assert verdict.error and re.search(deviation.unknown, verdict.error), verdict.error
        assert verdict.p_yes is None and "\n" not in verdict.error


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, deviation in DEVIATIONS.items() if deviation.doctor])
async def test_the_doctor_names_it(server: Server, name: str, quick: None) -> None:
    deviation = DEVIATIONS[name]
    findings, healthy = await examined(server, deviation)
    assert deviation.doctor is not None
    check, words = deviation.doctor
    finding = findings[check]
    told = f"{finding.seen} {finding.meaning}"
    assert re.search(words, told), told
    if deviation.harmless:
        assert finding.state == "ok" and healthy
        return
    assert finding.state in (("fail",) if deviation.unknown else ("warn", "fail")), finding
    assert finding.change
    assert not (healthy and deviation.unknown)


async def test_the_doctor_finds_nothing_in_the_truthful_server(server: Server, quick: None) -> None:
    findings, healthy = await examined(server, Deviation())
    told = {name: finding.seen for name, finding in findings.items() if finding.state != "ok"}
    assert healthy and set(told) == {"prefix caching"}, told  # a count of cached tokens that never grows


async def test_json_is_found_among_braces(server: Server) -> None:
    server.reply = Truthful(DEVIATIONS["JSON among braces"].change)
    lmm = OpenAILMM(server.url, MODEL, Drawn(PICTURES))
    request = LMMRequest(messages=(Message(content=(TextPart(text="which?"),)),), max_tokens=64)
    answered = await ask_structured(lmm, request, AnswersAnswer, 0, "joint")
    await lmm.aclose()
    assert answered.value == AnswersAnswer.model_validate_json(JSON_ANSWER), answered.error


async def test_json_goes_without_a_schema_where_that_is_refused(server: Server) -> None:
    def change(body: Body, request: Body) -> Body | Reply:
        if "response_format" in request:
            return reply({"error": {"message": "response_format is not supported"}}, 400)
        return body_of([(f"Here it is: {JSON_ANSWER}", [])])

    server.reply = Truthful(change)
    lmm = OpenAILMM(server.url, MODEL, Drawn(PICTURES))
    request = LMMRequest(messages=(Message(content=(TextPart(text="which?"),)),), max_tokens=64)
    answered = await ask_structured(lmm, request, AnswersAnswer, 0, "joint")
    again = await ask_structured(lmm, request, AnswersAnswer, 0, "joint")
    await lmm.aclose()
    assert answered.value == again.value == AnswersAnswer.model_validate_json(JSON_ANSWER), answered.error
    assert ["response_format" in body for body in server.requests] == [True, False, False]


@pytest.mark.parametrize("sureness", [0.0, 1.0, 3.0, 6.0])
def test_base_10_is_recognised_in_95_of_100_answers_with_20_alternatives(sureness: float) -> None:
    chance = np.random.default_rng(int(sureness))
    found = 0
    for draw in range(400):
        odds = chance.normal(0.0, 1.0) * sureness
        top = alternatives({"Yes": 9 + odds / 2, "No": 9 - odds / 2}, f"{sureness} {draw}")[:20]
        natural, base_10 = (
            logprobs_fault([TokenLogprob(token=token, logprob=value / scale) for token, value in top])
            for scale in (1.0, np.log(10))
        )
        assert natural is None
        found += base_10 is not None and "base-10" in base_10
    assert found >= 0.95 * 400


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "CALLS", {1: 1, 8: 1, 32: 1})
    monkeypatch.setattr(steadiness, "REPEATS", 1)
    monkeypatch.setattr(steadiness, "COMPANY", 4)


async def examined(server: Server, deviation: Deviation) -> tuple[dict[str, Finding], bool]:
    server.reply = Truthful(deviation.change, deviation.models)
    examination = await examine(Settings(lmm_url=server.url, model=MODEL), lambda done, total: None)
    return {finding.name: finding for finding in examination.findings}, examination.healthy
