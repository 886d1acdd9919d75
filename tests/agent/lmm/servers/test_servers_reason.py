"""Reason first: P(yes) is read at the answer and never in the thought, wherever a server puts the thought."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fieldscope import prompts as prompt_folder
from fieldscope.agent.graph import Agent
from fieldscope.agent.lmm.openai import OpenAILMM
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.strategy import Strategy, load_strategy
from fieldscope.agent.types import RerankResult
from fieldscope.core.types import Candidate, Query
from tests.agent.lmm.conftest import Pictures, Reply, Server, write_completion

P = {"p0": 0.9, "p1": 0.2, "p2": 0.6}
QUERY = Query(id="q", text="crabs")
_RED = 100
WORDS = "No yes crabs Answer no red Yes maybe sand".split()  # noqa: SIM905  what a thought may say
MARKED = Path(prompt_folder.__path__[0]) / "instruct" / "reason_yes_no.md"

Says = Callable[[list[str], str], tuple[str, list[str], dict[str, Any]]]
"""From the tokens of a thought and the answer to content, the tokens before the answer's, and other fields."""


def parsed(thought: list[str], answer: str) -> tuple[str, list[str], dict[str, Any]]:
    """A server with a reasoning parser: the thought in a field, its tokens among the log-probabilities."""
    return answer, ["<think>", *thought, "</think>", "\n\n"], {"reasoning": "".join(thought)}


def parsed_and_marked(thought: list[str], answer: str) -> tuple[str, list[str], dict[str, Any]]:
    content, before, fields = parsed(thought, answer)
    return f"Answer: {content}", [*before, "Answer", ":", " "], fields


def unparsed(thought: list[str], answer: str) -> tuple[str, list[str], dict[str, Any]]:
    """A server without one: a block in the text, which the chat template may have opened."""
    before = ["<think>", *thought, "</think>", "\n\n", "Answer", ":", " "]
    return "".join([*before, answer]), before, {}


def opened_by_the_template(thought: list[str], answer: str) -> tuple[str, list[str], dict[str, Any]]:
    before = [*thought, "</think>", "\n\n"]
    return "".join([*before, answer]), before, {}


def plain(thought: list[str], answer: str) -> tuple[str, list[str], dict[str, Any]]:
    """A model that does not think by itself, and does as it is asked."""
    before = [*thought, "\n", "**", "Answer", ":", "**", " "]
    return "".join([*before, answer]), before, {}


@pytest.fixture
def pictures() -> Pictures:
    """One picture for each P, each of its own red."""
    return Pictures(**{name: Image.new("RGB", (32, 40), (_RED * n, 0, 0)) for n, name in enumerate(P)})


def shown(body: dict[str, Any]) -> str:
    """The id of the picture in a request."""
    url = next(part["image_url"]["url"] for part in body["messages"][-1]["content"] if part["type"] == "image_url")
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
        red, *_ = image.convert("RGB").getpixel((0, 0))  # type: ignore[misc]
    return list(P)[round(red / _RED)]


def thinking(says: Says, length: int) -> Callable[[int, dict[str, Any]], Reply]:
    """A server that thinks in `length` tokens about each picture, and then answers by its P."""

    def reply(number: int, body: dict[str, Any]) -> Reply:
        if "path" in body:
            return 200, {}, b'{"data": [{"id": "served"}]}'
        image = shown(body)
        thought = [f" {WORDS[n % len(WORDS)]}" for n in range(length)]
        content, before, fields = says(thought, "Yes" if P[image] > 0.5 else "No")
        sure = {" No": -0.01, " Yes": -5.0}  # what the thought's tokens would give
        yes = {"Yes": math.log(P[image]), "No": math.log(1 - P[image])}
        answer = "Yes" if P[image] > 0.5 else "No"
        positions = [*((token, {token: -0.1, **sure}) for token in before), (answer, yes)]
        return write_completion(content, *positions, message={"role": "assistant", "content": content, **fields})

    return reply


def reasoned(**settings: object) -> Strategy:
    return load_strategy("reasoned", {"verify.reason.whole": str(MARKED), **settings})


async def ranked(server: Server, pictures: Pictures, strategy: Strategy) -> RerankResult:
    lmm = OpenAILMM(server.url, "served", pictures, max_concurrency=1, backoff=0.001)
    candidates: Sequence[Candidate] = [Candidate(name, 1.0 - n / 10) for n, name in enumerate(P)]
    try:
        return await Agent(Resources(images=pictures, lmm=lmm), strategy).rerank(
            Query(id="q", text="crabs"), candidates
        )
    finally:
        await lmm.aclose()


@pytest.mark.parametrize("length", [1, 2, 37, 512])
@pytest.mark.parametrize("says", [parsed, parsed_and_marked, unparsed, opened_by_the_template, plain])
async def test_p_yes_is_read_at_the_answer(server: Server, pictures: Pictures, says: Says, length: int) -> None:
    server.reply = thinking(says, length)
    result = await ranked(server, pictures, reasoned(**{"verify.reason.max_tokens": 1024}))
    assert {v.image_id: v.p_yes for v in result.verdicts} == pytest.approx(P), [v.error for v in result.verdicts]
    thought = "".join(f" {WORDS[n % len(WORDS)]}" for n in range(length)).strip()
    for verdict in result.verdicts:
        assert (verdict.mode, verdict.reasoned, verdict.state) == ("logprobs", True, "answered")
        assert verdict.thought == thought
    asked = [body for body in server.requests if "messages" in body]
    assert all(body["max_tokens"] == 1024 and body["top_logprobs"] == 20 for body in asked)


async def test_a_thought_that_is_cut_off_is_unknown_and_what_it_quotes_is_no_answer(
    server: Server, pictures: Pictures
) -> None:
    quoted = ["I", " must", " end", " with", " Answer", ":", " ", "yes", " or", " no", ".", " The"]

    def reply(number: int, body: dict[str, Any]) -> Reply:
        if "path" in body:
            return 200, {}, b'{"data": [{"id": "served"}]}'
        positions = [(token, {token: -0.1, "yes": -0.2, "no": -3.0}) for token in quoted]
        return write_completion("".join(quoted), *positions, finish_reason="length")

    server.reply = reply
    result = await ranked(server, pictures, reasoned())
    assert {verdict.state for verdict in result.verdicts} == {"unknown"}
    assert all("no line of the answer begins with 'Answer:'" in (v.error or "") for v in result.verdicts)


async def test_only_uncertain_answers_are_thought_about_and_thoughts_are_averaged(
    server: Server, pictures: Pictures
) -> None:
    server.reply = thinking(plain, 3)
    answered = server.reply

    def reply(number: int, body: dict[str, Any]) -> Reply:
        if "path" in body or body["max_tokens"] > 1:
            return answered(number, body)
        p = {"p0": 0.99, "p1": 0.5, "p2": 0.3}[shown(body)]
        return write_completion("Yes", ("Yes", {"Yes": math.log(p), "No": math.log(1 - p)}))

    server.reply = reply
    strategy = reasoned(**{"verify.reason.within": [0.1, 0.9], "verify.reason.thoughts": 3})
    result = await ranked(server, pictures, strategy)
    by_image = {verdict.image_id: verdict for verdict in result.verdicts}
    assert by_image["p0"].p_yes == pytest.approx(0.99) and not by_image["p0"].reasoned and not by_image["p0"].draws
    for name in ("p1", "p2"):
        verdict = by_image[name]
        assert verdict.p_yes == pytest.approx(P[name]) and verdict.reasoned
        assert [(draw.reasoned, draw.sample) for draw in verdict.draws] == [
            (False, 0), (True, 0), (True, 1), (True, 2)
        ]  # fmt: skip
    assert len(result.asked) == 3 + 2 * 3
    thoughts = [body for body in server.requests if body.get("max_tokens") == 512]
    assert {body["temperature"] for body in thoughts} == {0.7} and len({body["seed"] for body in thoughts}) == 3
