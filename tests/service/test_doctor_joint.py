"""The doctor's check of joint answers: are they read, and are log-probabilities those after a grammar's mask?"""

from __future__ import annotations

import math

import pytest

from fieldscope.agent.lmm.base import AnswerToken, LMMRequest, LMMResponse, TokenLogprob
from fieldscope.agent.lmm.scripted import Answer, ScriptedLMM
from fieldscope.prompts.prompt_set import open_prompt_set
from fieldscope.service.doctor.asker import Asker
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.images import Drawn
from fieldscope.service.doctor.joint import check_joint
from fieldscope.service.doctor.probes import shapes


def token(text: str, **alternatives: float) -> AnswerToken:
    spread = {text: 1.0, **alternatives} if text not in alternatives else alternatives
    chances = tuple(TokenLogprob(token=name, logprob=math.log(p)) for name, p in spread.items())
    return AnswerToken(text=text, logprob=chances[0].logprob, alternatives=chances)


def answered(answers: int, opening: dict[str, float], word: dict[str, float]) -> LMMResponse:
    tokens = [token('{"answers": ["', **opening)]
    for number in range(answers):
        tokens += [token("yes", **word), token('", "' if number < answers - 1 else '"]}')]
    return LMMResponse(text="".join(each.text for each in tokens), tokens=tuple(tokens))


def server(opening: dict[str, float], word: dict[str, float]) -> ScriptedLMM:
    """A server with a grammar, whose log-probabilities are `opening` where JSON begins and `word` at an answer."""

    def answer(request: LMMRequest) -> Answer:
        assert request.logprobs_of == "all" and request.json_schema
        return answered(3 if "3." in request.text else 1, opening, word)

    return ScriptedLMM(answer)


async def finding(lmm: ScriptedLMM, top_logprobs: int = 20) -> Finding:
    probe = shapes()
    asker = Asker(lmm, Drawn(probe.images), open_prompt_set("fieldnotes"))
    asker.top_logprobs = top_logprobs
    return await check_joint(asker, probe, "red circle")


@pytest.mark.parametrize(
    ("opening", "word", "said"),
    [
        ({}, {"yes": 0.7, "no": 0.3}, "after the grammar's mask"),
        ({'{"answers": ["': 0.02, "Yes": 0.98}, {"yes": 0.6, "no": 0.3, "Yes": 0.1}, "before the grammar's mask"),
    ],
)
async def test_it_says_which_log_probabilities_a_server_returns(
    opening: dict[str, float], word: dict[str, float], said: str
) -> None:
    found = await finding(server(opening, word))
    assert found.state == "ok" and "each of 3 answers" in found.seen and said in found.meaning


async def test_without_a_grammar_there_is_no_mask() -> None:
    def answer(request: LMMRequest) -> Answer:
        return answered(3, {}, {"yes": 0.7, "no": 0.3}) if "3." in request.text else LMMResponse(text="Yes")

    assert "no grammar forces the JSON" in (await finding(ScriptedLMM(answer))).meaning


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (LMMResponse(text='{"answers": ["yes", "no", "no"]}'), "3 of 3 answers can't be read"),
        ("I see a circle.", "no JSON object"),
    ],
)
async def test_what_cant_be_read_is_a_warning_with_advice(answer: Answer, seen: str) -> None:
    found = await finding(ScriptedLMM(lambda _: answer))
    assert found.state == "warn" and seen in found.seen and "leave `joint` out" in found.change


async def test_without_log_probabilities_nothing_is_asked() -> None:
    lmm = server({}, {})
    assert (await finding(lmm, top_logprobs=0)).state == "unknown" and lmm.requests == []
