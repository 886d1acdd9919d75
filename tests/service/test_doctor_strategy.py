"""`doctor --strategy`: every prompt of the strategy is asked as its stage asks, and read as its stage reads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fieldscope.agent.lmm.base import LMM, LMMRequest
from fieldscope.agent.lmm.scripted import Answer, ScriptedLMM
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.service.doctor import strategy_prompts
from fieldscope.service.doctor.probes import fieldnotes
from fieldscope.service.doctor.strategy_prompts import check_strategy
from fieldscope.service.wiring.settings import RoleModel, Settings

SYNTHESIS = (
    '{"thought": "", "core": "a crab", "detailed": "a crab", "comprehensive": "a crab", '
    '"instructions": [{"text": "a crab", "words": "a crab", "type": "addition"}]}'
)
PREDICATES = '{"predicates": [{"question": "Is it a crab?", "expected": "yes", "words": "", "type": "subject"}]}'


def silent(done: int, total: int) -> None:
    pass


def answer(request: LMMRequest) -> Answer:
    """What an able model says to any prompt of either set."""
    keys = (request.json_schema or {}).get("properties", {})
    if "core" in keys:
        return SYNTHESIS
    if "predicates" in keys:
        return PREDICATES
    if request.max_tokens > 1:
        return "Yes. A red crab on sand."
    return 0.9


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, ScriptedLMM]]:
    """Every model that was opened, by its settings; each answers with `answer`."""
    models: list[tuple[Settings, ScriptedLMM]] = []

    @asynccontextmanager
    async def bare(settings: Settings, images: Any) -> AsyncIterator[LMM]:
        models.append((settings, ScriptedLMM(answer, identity=settings.model or "bundled")))
        yield models[-1][1]

    monkeypatch.setattr(strategy_prompts, "open_bare_lmm", bare)
    return models


@pytest.mark.parametrize("prompts", ["instruct", "fieldnotes"])
async def test_each_prompt_is_asked_once_with_the_settings_of_its_stage(prompts: str, opened: list[Any]) -> None:
    strategy = load_strategy("predicates", {"verify.top_logprobs": 7}, prompts=prompts)
    findings, calls = await check_strategy(Settings(), strategy, fieldnotes(), silent)
    assert [finding.name for finding in findings] == [f"prompt {prompt.name}" for prompt in strategy.prompts]
    assert [finding.state for finding in findings] == ["ok"] * len(findings)
    ((_, lmm),) = opened
    assert calls == len(findings) == len(lmm.requests)
    assert [request.top_logprobs for request in lmm.requests if request.max_tokens == 1] == [7, 7]


async def test_prompts_for_turns_of_a_dialogue_are_asked_too(opened: list[Any]) -> None:
    strategy = load_strategy("imagescope-published")
    findings, _ = await check_strategy(Settings(), strategy, fieldnotes(), silent)
    assert {finding.name for finding in findings} == {f"prompt {prompt.name}" for prompt in strategy.prompts}
    assert {finding.state for finding in findings} == {"ok"}


async def test_each_role_asks_its_own_model(opened: list[Any]) -> None:
    settings = Settings(lmm_url="http://a", model="big", roles={"verifier": RoleModel("http://b", "small")})
    findings, _ = await check_strategy(settings, load_strategy("predicates"), fieldnotes(), silent)
    asked = {chosen.model: len(lmm.requests) for chosen, lmm in opened}
    assert asked == {"big": 4, "small": 2}
    assert sum("verifier (small)" in finding.meaning for finding in findings) == 2


async def test_an_answer_that_the_stage_could_not_read_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def mute(settings: Settings, images: Any) -> AsyncIterator[LMM]:
        yield ScriptedLMM(lambda request: "I see a crab.")

    monkeypatch.setattr(strategy_prompts, "open_bare_lmm", mute)
    findings, _ = await check_strategy(Settings(), load_strategy("predicates"), fieldnotes(), silent)
    states = {finding.name: finding.state for finding in findings}
    assert states.pop("prompt caption") == "ok"  # any words are a caption
    assert set(states.values()) == {"fail"}
