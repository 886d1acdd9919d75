import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from fieldscope.agent.lmm.base import LMMRequest, LMMResponse, TokenLogprob, Tokens
from fieldscope.agent.lmm.cached import CachedLMM
from fieldscope.agent.lmm.identity import server_identity
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.cache.sqlite import SqliteStore
from fieldscope.cache.store import Entry, MemoryStore
from fieldscope.core.errors import CacheError, CacheMissError, LMMServerError


class SlowLMM(ScriptedLMM):
    """Holds every answer back until it is let go."""

    def __init__(self, answer) -> None:
        super().__init__(answer)
        self.gate = asyncio.Event()

    async def generate(self, request: LMMRequest) -> LMMResponse:
        response = await super().generate(request)
        await self.gate.wait()
        return response


def numbered() -> ScriptedLMM:
    """Answers "1", "2", ... in the order of asking."""
    lmm = ScriptedLMM(lambda request: str(len(lmm.requests)))
    return lmm


async def test_the_second_time_comes_from_the_cache_with_all_that_was_said(ask) -> None:
    said = ScriptedLMM(lambda request: 0.3)
    lmm = CachedLMM(said, MemoryStore())
    first = await lmm.generate(ask("is it red ?", "p0", top_logprobs=20))
    second = await lmm.generate(ask("is it red ?", "p0", top_logprobs=20))
    assert not first.cached and second.cached
    assert second == first.model_copy(update={"cached": True})
    assert (lmm.calls, lmm.hits, len(said.requests)) == (1, 1, 1)
    await lmm.generate(ask("is it blue ?", "p0", top_logprobs=20))
    assert (lmm.calls, lmm.hits) == (2, 1)


async def test_answers_outlive_the_process_exactly(ask, tmp_path: Path) -> None:
    response = LMMResponse(text="Ж\n", usage=Tokens(prompt_tokens=3), finish_reason="length", latency=0.1 + 0.2)
    store = SqliteStore(tmp_path / "cache.sqlite")
    await CachedLMM(ScriptedLMM(lambda request: response), store).generate(ask("?"))
    store.close()
    store = SqliteStore(tmp_path / "cache.sqlite")
    again = await CachedLMM(ScriptedLMM({}), store).generate(ask("?"))
    assert again == response.model_copy(update={"cached": True})
    store.close()


async def test_an_answer_is_committed_before_it_is_returned(ask) -> None:
    order: list[str] = []

    class Watched(MemoryStore):
        def put(self, entry: Entry, replace: bool = False) -> None:
            super().put(entry, replace)
            order.append("committed")

    await CachedLMM(ScriptedLMM(lambda request: "x"), Watched()).generate(ask("?"))
    order.append("returned")
    assert order == ["committed", "returned"]


async def test_an_answer_that_cannot_be_kept_is_not_returned(ask) -> None:
    class Full(MemoryStore):
        def put(self, entry: Entry, replace: bool = False) -> None:
            raise CacheError("the disk is full")

    with pytest.raises(CacheError, match="full"):
        await CachedLMM(ScriptedLMM(lambda request: "x"), Full()).generate(ask("?"))


async def test_an_entry_keeps_request_response_and_provenance(ask) -> None:
    store = MemoryStore()
    lmm = CachedLMM(ScriptedLMM(lambda request: "x", identity="weights 1"), store)
    request = ask("is it red ?", "p0")
    await lmm.generate(request)
    entry = store.get(request.key("weights 1"))
    assert entry is not None
    assert LMMRequest.model_validate_json(entry.request) == request
    assert LMMResponse.model_validate_json(entry.response).text == "x"
    assert '"model":"weights 1"' in entry.provenance and '"asked_at":"20' in entry.provenance


async def test_another_model_is_asked_anew(ask) -> None:
    store = MemoryStore()
    for identity in ("one", "two"):
        answer = await CachedLMM(ScriptedLMM(lambda request: "x", identity=identity), store).generate(ask("?"))
        assert not answer.cached


async def test_equal_requests_in_flight_are_asked_once(ask) -> None:
    slow = SlowLMM(lambda request: request.text)
    lmm = CachedLMM(slow, MemoryStore())
    tasks = [asyncio.create_task(lmm.generate(ask(text))) for text in ("a", "b", "a", "a")]
    await asyncio.sleep(0)
    slow.gate.set()
    responses = await asyncio.gather(*tasks)
    assert [response.text for response in responses] == ["a", "b", "a", "a"]
    assert [response.cached for response in responses] == [False, False, True, True]
    assert (lmm.calls, lmm.hits, len(slow.requests)) == (2, 2, 2)


async def test_a_cancelled_caller_does_not_take_the_answer_along(ask) -> None:
    slow = SlowLMM(lambda request: "x")
    store = MemoryStore()
    lmm = CachedLMM(slow, store)
    first, second = (asyncio.create_task(lmm.generate(ask("?"))) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    slow.gate.set()
    assert (await second).text == "x"
    assert store.stats().entries == 1 and len(slow.requests) == 1


async def test_what_was_asked_is_kept_even_if_nobody_waits_any_more(ask) -> None:
    slow = SlowLMM(lambda request: "x")
    store = MemoryStore()
    lmm = CachedLMM(slow, store)
    only = asyncio.create_task(lmm.generate(ask("?")))
    await asyncio.sleep(0)
    only.cancel()
    slow.gate.set()
    await lmm.aclose()
    assert store.stats().entries == 1


async def test_an_error_reaches_every_caller_and_is_not_remembered(ask) -> None:
    answers = iter([LMMServerError("down"), "up"])
    slow = SlowLMM(lambda request: next(answers))
    slow.gate.set()
    lmm = CachedLMM(slow, MemoryStore())
    both = await asyncio.gather(*(lmm.generate(ask("?")) for _ in range(2)), return_exceptions=True)
    assert [str(error) for error in both] == ["down", "down"]
    assert (await lmm.generate(ask("?"))).text == "up"
    assert lmm.hits == 0 and lmm.calls == 2


async def test_refresh_asks_and_overwrites(ask) -> None:
    store, model = MemoryStore(), numbered()
    assert (await CachedLMM(model, store).generate(ask("?"))).text == "1"
    refreshed = await CachedLMM(model, store, "refresh").generate(ask("?"))
    assert refreshed.text == "2" and not refreshed.cached
    assert (await CachedLMM(model, store).generate(ask("?"))).text == "2"


async def test_off_neither_reads_nor_writes(ask) -> None:
    store, model = MemoryStore(), numbered()
    await CachedLMM(model, store).generate(ask("?"))
    off = CachedLMM(model, store, "off")
    assert [(await off.generate(ask("?"))).text for _ in range(2)] == ["2", "3"]
    assert off.calls == 2
    assert (await CachedLMM(model, store).generate(ask("?"))).text == "1"


async def test_replay_never_asks_and_names_what_is_missing(ask) -> None:
    store, model = MemoryStore(), ScriptedLMM(lambda request: "x", identity="local:abc")
    await CachedLMM(model, store).generate(ask("is it red ?", "p0"))
    replay = CachedLMM(model, store, "replay")
    assert (await replay.generate(ask("is it red ?", "p0"))).cached
    missing = ask("word " * 200 + "is it blue ?", "p1", "p2")
    with pytest.raises(CacheMissError) as caught:
        await replay.generate(missing)
    said = str(caught.value)
    for part in (missing.key("local:abc")[:12], "local:abc", "p1, p2", "is it blue ?"):
        assert part in said
    assert "\n" not in said and len(said) < 600
    assert len(model.requests) == 1 and replay.calls == 0


async def test_two_processes_that_asked_at_once_keep_the_first_answer(ask) -> None:
    store = MemoryStore()
    slow = [SlowLMM(lambda request, n=n: str(n)) for n in range(2)]
    tasks = [asyncio.create_task(CachedLMM(lmm, store).generate(ask("?"))) for lmm in slow]
    for lmm, task in zip(slow, tasks, strict=True):
        await asyncio.sleep(0)
        lmm.gate.set()
        await task
    assert (await CachedLMM(ScriptedLMM({}), store).generate(ask("?"))).text == "0"


GOOD = LMMResponse(text="yes", answer_logprobs=(TokenLogprob(token="yes", logprob=-0.1),))
EMPTY = GOOD.model_copy(update={"answer_logprobs": ()})
NO_ANSWERS = {
    "no finite log-probability": ({"top_logprobs": 20}, EMPTY),
    "filtered": ({"top_logprobs": 20}, GOOD.model_copy(update={"finish_reason": "content_filter"})),
    "no JSON": ({"json_schema": {"type": "object"}}, LMMResponse(text="{not json")),
}


@pytest.mark.parametrize("kind", NO_ANSWERS)
async def test_what_is_no_answer_is_returned_and_asked_for_again(ask, kind: str) -> None:
    options, none = NO_ANSWERS[kind]
    fine = LMMResponse(text="{}") if "json_schema" in options else GOOD
    answers, store = iter([none, fine]), MemoryStore()
    lmm = CachedLMM(ScriptedLMM(lambda request: next(answers)), store)
    assert await lmm.generate(ask("?", **options)) == none
    assert store.stats().entries == 0
    assert await lmm.generate(ask("?", **options)) == fine
    assert (await lmm.generate(ask("?", **options))).cached


def recorded(request: LMMRequest, response: LMMResponse, model: str = "scripted") -> Entry:
    """An entry as an earlier version kept it, whatever it was."""
    text = response.model_dump_json(exclude={"cached"})
    return Entry(request.key(model), request.model_dump_json(), text, json.dumps({"model": model}))


@pytest.mark.parametrize("kind", NO_ANSWERS)
async def test_what_an_earlier_version_kept_is_replaced_and_replayed_as_it_was(ask, kind: str) -> None:
    options, none = NO_ANSWERS[kind]
    fine = LMMResponse(text="{}") if "json_schema" in options else GOOD
    store, request = MemoryStore(), ask("?", **options)
    store.put(recorded(request, none))
    silent = CachedLMM(ScriptedLMM({}), store, "replay")
    assert await silent.generate(request) == none.model_copy(update={"cached": True})
    lmm = CachedLMM(ScriptedLMM(lambda request: fine), store)
    assert not (await lmm.generate(request)).cached
    assert (await silent.generate(request)).text == fine.text, "the new one is in its place"


@pytest.mark.parametrize("damage", ["altered", "unreadable", "provenance"])
async def test_a_damaged_entry_is_asked_for_again_and_not_replayed(ask, damage: str) -> None:
    store, request = MemoryStore(), ask("?")
    await CachedLMM(ScriptedLMM(lambda request: "yes"), store).generate(request)
    entry = store.get(request.key("scripted"))
    assert entry is not None
    match damage:
        case "altered":
            entry = replace(entry, response=entry.response.replace("yes", "no!"))
        case "unreadable":
            entry = replace(entry, response='{"txt":', provenance='{"model":"scripted"}')
        case "provenance":
            entry = replace(entry, provenance="{")
    store.put(entry, replace=True)
    with pytest.raises(CacheError, match="without --replay"):
        await CachedLMM(ScriptedLMM({}), store, "replay").generate(request)
    assert (await CachedLMM(ScriptedLMM(lambda request: "yes"), store).generate(request)).text == "yes"
    assert (await CachedLMM(ScriptedLMM({}), store, "replay").generate(request)).text == "yes"


NAMED = server_identity("vl", None, 16)
ONE, OTHER = (server_identity("vl", None, 16, {"root": root}) for root in ("one", "other"))


async def test_what_was_recorded_under_a_servers_name_belongs_to_the_first_that_finds_it(ask) -> None:
    store, request = MemoryStore(), ask("?")
    store.put(recorded(request, LMMResponse(text="kept"), NAMED))
    for _ in range(2):
        lmm = CachedLMM(ScriptedLMM({}, identity=ONE), store)
        assert (await lmm.generate(request)).text == "kept"
    assert lmm.inherited == 0, "it was copied"
    assert store.get(request.key(ONE)) is not None
    another = CachedLMM(ScriptedLMM(lambda request: "new", identity=OTHER), store)
    assert (await another.generate(request)).text == "new"
    third = ScriptedLMM({}, identity=server_identity("vl", None, 16, {"root": "third"}))
    with pytest.raises(CacheMissError):
        await CachedLMM(third, store, "replay").generate(request)
    assert (await CachedLMM(ScriptedLMM({}, identity=NAMED), store).generate(request)).text == "kept"


async def test_a_replay_finds_what_was_recorded_under_the_name_and_changes_nothing(ask) -> None:
    store, request = MemoryStore(), ask("?")
    store.put(entry := recorded(request, LMMResponse(text="kept"), NAMED))
    assert (await CachedLMM(ScriptedLMM({}, identity=ONE), store, "replay").generate(request)).text == "kept"
    assert store.get(entry.key) == entry and store.stats().entries == 1


async def test_the_model_is_identified_before_its_first_key_is_made(ask) -> None:
    class Late(ScriptedLMM):
        told = ""

        @property
        def identity(self) -> str:
            return f"late {self.told}"

        async def identify(self) -> None:
            self.told = "known"

    store, model = MemoryStore(), Late(lambda request: "x")
    await CachedLMM(model, store, identify=model.identify).generate(ask("?"))
    assert store.stats().by_model == {"late known": 1}
