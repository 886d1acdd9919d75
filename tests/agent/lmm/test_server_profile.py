"""What a server takes is found out from what it refuses: once, one parameter at a time, and never by mistake."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from fieldscope.agent.lmm.base import LMMRequest
from fieldscope.agent.lmm.cached import CachedLMM
from fieldscope.agent.lmm.openai import OpenAILMM
from fieldscope.agent.lmm.refusal import Refusal
from fieldscope.agent.lmm.server_profile import KnownProfile, ServerProfile, forget_profiles
from fieldscope.cache.store import MemoryStore
from fieldscope.core.errors import LMMRequestError
from tests.agent.lmm.conftest import Ask, Pictures, Reply, Server, write_completion

TOP = {"Yes": -0.1, "No": -3.0, " yes": -4.0}
SENT: dict[str, Any] = {
    "max_tokens": 1,
    "temperature": 0.0,
    "seed": 0,
    "logprobs": True,
    "top_logprobs": 20,
    "response_format": {},
}
REFUSALS = [
    ("Unrecognized request argument supplied: seed", {}, {"seed": False}),
    ("property 'seed' is unsupported", {}, {"seed": False}),
    ("Additional properties are not allowed ('seed' was unexpected)", {}, {"seed": False}),
    ("invalid temperature: only 1 is allowed for this model", {}, {"temperature": False}),
    ("temperature must be between 0 and 2", {}, None),
    ("Use 'max_completion_tokens', max_tokens is deprecated", {}, {"token_limit": "max_completion_tokens"}),
    ("max_tokens must be greater than or equal to 16", {}, {"min_tokens": 16}),
    ("max_tokens must be greater than 15", {}, {"min_tokens": 16}),
    ("max_tokens must be between 16 and 4096", {}, {"min_tokens": 16}),
    ("max_tokens must be less than 4096", {}, None),
    ("Please try again with higher max_tokens", {}, None),
    ("Requested sample logprobs of 20, which is greater than max allowed: 5", {}, {"top_logprobs": 5}),
    ("top_logprobs must be between 0 and 5", {}, {"top_logprobs": 5}),
    ("The number of logprobs must not exceed 8", {}, {"top_logprobs": 8}),
    ("Too many top_logprobs", {}, {"top_logprobs": 10}),
    ("logprobs are not supported with gpt-5-mini", {}, {"top_logprobs": 0}),
    ("Logprobs is not enabled for models/gemini-2.5-pro", {}, {"top_logprobs": 0}),
    ("Invalid schema for response_format 'answer'", {}, {"response_format": False}),
    ("At most 1 image(s) may be provided in one prompt.", {}, None),
    ("image_url is not supported by this model", {}, None),
    ("not supported together with logprobs", {"param": "messages"}, None),
    ("seed and logprobs are not supported", {"param": "logprobs"}, {"top_logprobs": 0}),
]


@pytest.mark.parametrize(("words", "error", "changed"), REFUSALS)
def test_what_a_refusal_is_about(words: str, error: dict[str, str], changed: dict[str, Any] | None) -> None:
    learned = KnownProfile().after(Refusal(words, str(error)), SENT)
    plain = ServerProfile()
    found = learned and {name: value for name, value in learned.profile if value != getattr(plain, name)}
    assert found == changed
    assert learned is None or list(learned.words.values()) == [words]


def yes(body: dict[str, Any]) -> Reply:
    return write_completion("Yes", *([("Yes", TOP)] if body.get("top_logprobs") else []))


def refuse(words: str, **error: str) -> Reply:
    return 400, {}, json.dumps({"error": {"message": words} | error}).encode()


def strict(**refused: Callable[[Any], bool]) -> Callable[[int, dict[str, Any]], Reply]:
    """A server that refuses fields whose value is such."""

    def answer(number: int, body: dict[str, Any]) -> Reply:
        for name, is_refused in refused.items():
            if name in body and is_refused(body[name]):
                limit = " above 5" if name == "top_logprobs" else ""
                return refuse(f"'{name}' is not supported with this model{limit}", param=name)
        return yes(body)

    return answer


def always(value: Any) -> bool:
    return True


async def test_it_is_found_out_once_for_all_calls_and_clients(server: Server, pictures: Pictures, ask: Ask) -> None:
    server.reply = strict(max_tokens=always, temperature=always, seed=always)
    first, second = (OpenAILMM(server.url, "served", pictures) for _ in range(2))
    await first.generate(ask("a ?", "p0", top_logprobs=5))
    assert len(server.requests) == 4
    await asyncio.gather(*(second.generate(ask(f"{n} ?", "p0", top_logprobs=5)) for n in range(6)))
    assert len(server.requests) == 10
    assert set(server.requests[-1]) == {"model", "messages", "max_completion_tokens", "logprobs", "top_logprobs"}
    other = OpenAILMM(server.url, "another", pictures)
    assert other.profile == KnownProfile()
    for lmm in (first, second, other):
        await lmm.aclose()


async def test_first_calls_at_once_do_not_all_find_it_out(server: Server, pictures: Pictures, ask: Ask) -> None:
    server.reply = strict(max_tokens=always, temperature=always, seed=always)
    lmm = OpenAILMM(server.url, "served", pictures, max_concurrency=8)
    answers = await asyncio.gather(*(lmm.generate(ask(f"{n} ?", "p0", top_logprobs=5)) for n in range(8)))
    assert {answer.text for answer in answers} == {"Yes"}
    refused = [body for body in server.requests if {"max_tokens", "temperature", "seed"} & set(body)]
    assert len(refused) <= 8 + 2  # one each, of the calls that were out already, and one for each other parameter
    await lmm.aclose()


async def test_words_that_were_misread_change_nothing(server: Server, pictures: Pictures, ask: Ask) -> None:
    server.reply = lambda n, body: refuse("your plan is not allowed to see logprobs, seed or temperature, or anything")
    lmm = OpenAILMM(server.url, "served", pictures)
    with pytest.raises(LMMRequestError, match="your plan"):
        await lmm.generate(ask("a ?", "p0", top_logprobs=20))
    assert lmm.profile == KnownProfile()
    server.reply = lambda n, body: yes(body)
    assert (await lmm.generate(ask("a ?", "p0", top_logprobs=20))).adapted == ()
    assert server.requests[-1]["top_logprobs"] == 20
    await lmm.aclose()


async def test_without_log_probabilities_the_error_names_the_modes_and_the_server_s_words(
    server: Server, pictures: Pictures, ask: Ask
) -> None:
    server.reply = lambda n, body: refuse("logprobs are not supported") if "logprobs" in body else yes(body)
    lmm = OpenAILMM(server.url, "served", pictures)
    for _ in range(3):
        with pytest.raises(LMMRequestError, match=r"logprobs are not supported.*`samples` or `stated`"):
            await lmm.generate(ask("a ?", "p0", top_logprobs=20))
    assert len(server.requests) == 2  # refused, and accepted without
    assert (await lmm.generate(ask("a ?", "p0"))).text == "Yes"
    await lmm.aclose()


async def test_what_the_user_sets_holds(server: Server, pictures: Pictures, ask: Ask) -> None:
    chosen = ServerProfile(token_limit="max_completion_tokens", min_tokens=16, seed=False, top_logprobs=3)
    lmm = OpenAILMM(server.url, "served", pictures, profile=chosen)
    server.reply = lambda n, body: yes(body)
    answer = await lmm.generate(ask("a ?", "p0", top_logprobs=20, temperature=0.7))
    (sent,) = server.requests
    assert (sent["max_completion_tokens"], sent["top_logprobs"]) == (16, 3)
    assert not {"max_tokens", "seed"} & set(sent)
    assert answer.adapted == ("top_logprobs=3", "no seed")
    plain = OpenAILMM(server.url, "served", pictures)
    assert plain.profile == KnownProfile()
    insisting = OpenAILMM(server.url, "served", pictures, profile=ServerProfile(seed=True))
    server.reply = strict(seed=always)
    with pytest.raises(LMMRequestError, match="'seed' is not supported"):
        await insisting.generate(ask("a ?", "p0"))
    for each in (lmm, plain, insisting):
        await each.aclose()


async def test_null_in_extra_body_takes_a_field_out(server: Server, pictures: Pictures, ask: Ask) -> None:
    lmm = OpenAILMM(server.url, "served", pictures)
    server.reply = lambda n, body: yes(body)
    extra = {"seed": None, "max_tokens": None, "max_completion_tokens": 9, "top_k": 1, "unknown": None}
    await lmm.generate(ask("a ?", "p0", extra_body=extra))
    (sent,) = server.requests
    assert set(sent) == {"model", "messages", "temperature", "max_completion_tokens", "top_k"}
    assert sent["max_completion_tokens"] == 9
    await lmm.aclose()


# What is remembered


def cached(server: Server, pictures: Pictures, store: MemoryStore) -> tuple[CachedLMM, OpenAILMM]:
    lmm = OpenAILMM(server.url, "served", pictures)
    return CachedLMM(lmm, store, stands=lmm.stands), lmm


@pytest.fixture
def fewer(server: Server) -> Server:
    server.reply = strict(top_logprobs=lambda number: number > 5)
    return server


async def ask_all(lmm: CachedLMM, ask: Ask) -> list[str]:
    answers = await asyncio.gather(*(lmm.generate(ask(f"{n} ?", "p0", top_logprobs=20)) for n in range(6)))
    return [" ".join(answer.adapted) for answer in answers]


async def test_an_adapted_answer_is_used_while_the_server_refuses_the_same(
    fewer: Server, pictures: Pictures, ask: Ask
) -> None:
    store = MemoryStore()
    lmm, _ = cached(fewer, pictures, store)
    assert set(await ask_all(lmm, ask)) == {"top_logprobs=5"}
    forget_profiles()  # as a new process would
    asked = len(fewer.requests)
    again, _ = cached(fewer, pictures, store)
    assert set(await ask_all(again, ask)) == {"top_logprobs=5"}
    assert (again.calls, again.hits) == (0, 6)
    assert len(fewer.requests) == asked + 1  # which was refused, and cost nothing


async def test_an_adapted_answer_is_asked_again_once_the_server_takes_all(
    fewer: Server, pictures: Pictures, ask: Ask
) -> None:
    store = MemoryStore()
    lmm, _ = cached(fewer, pictures, store)
    await ask_all(lmm, ask)
    forget_profiles()
    fewer.reply = lambda n, body: yes(body)  # served with more log-probabilities now
    again, _ = cached(fewer, pictures, store)
    assert set(await ask_all(again, ask)) == {""}
    third, _ = cached(fewer, pictures, store)
    assert set(await ask_all(third, ask)) == {""}
    assert (third.calls, third.hits) == (0, 6)


async def test_a_replay_takes_what_was_recorded(fewer: Server, pictures: Pictures, ask: Ask) -> None:
    store = MemoryStore()
    lmm, inner = cached(fewer, pictures, store)
    await ask_all(lmm, ask)
    replay = CachedLMM(inner, store, "replay", stands=inner.stands)
    assert set(await ask_all(replay, ask)) == {"top_logprobs=5"}


def test_the_key_is_that_of_the_request_as_it_was_made(ask: Ask) -> None:
    request: LMMRequest = ask("a ?", "p0", top_logprobs=20)
    assert request.key("m") == LMMRequest.model_validate_json(request.model_dump_json()).key("m")
    assert ServerProfile(min_tokens=16, token_limit="max_completion_tokens").adapted(request) == ()
