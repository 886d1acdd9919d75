"""Server-sent events: their form, their heartbeat, and a client that reads slowly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator

import pytest
from fastapi.sse import KEEPALIVE_COMMENT
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.core.errors import ConfigError
from fieldscope.service.server.api.errors import ApiError
from fieldscope.service.server.api.events import Event, Feed, event, failure, stream
from tests.waiting import PATIENCE

json_data = st.dictionaries(st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5))


@given(json_data, st.none() | st.integers(min_value=1))
def test_whatever_is_said_is_one_event(data: dict[str, object], number: int | None) -> None:
    text = Event("told", event("told", data).data, number).encode().decode("utf-8")
    assert text.endswith("\n\n") and text.count("\n\n") == 1
    fields = dict(line.split(": ", 1) for line in text.strip("\n").split("\n"))
    assert fields["event"] == "told"
    assert json.loads(fields["data"]) == data
    assert fields.get("id") == (None if number is None else str(number))


async def test_silence_is_broken_by_comments() -> None:
    first, second = (event("step", {"number": number}) for number in range(2))
    heard = asyncio.Event()

    async def silent_between() -> AsyncGenerator[Event]:
        yield first
        await heard.wait()
        yield second

    chunks = []
    async for chunk in stream(silent_between(), every=0.01).body_iterator:
        chunks.append(chunk)
        if chunks.count(KEEPALIVE_COMMENT) == 2:
            heard.set()
    assert [chunk for chunk in chunks if chunk != KEEPALIVE_COMMENT] == [first.encode(), second.encode()]
    assert chunks[-1] == second.encode()


async def test_a_client_that_leaves_ends_what_it_listened_to() -> None:
    ended = asyncio.Event()

    async def endless() -> AsyncGenerator[Event]:
        try:
            yield event("first", {})
            await asyncio.Event().wait()
        finally:
            ended.set()

    body = stream(endless(), every=0.01).body_iterator
    assert await anext(body)  # type: ignore[call-overload]
    assert await anext(body) == KEEPALIVE_COMMENT  # type: ignore[call-overload]
    await body.aclose()  # type: ignore[union-attr]
    assert ended.is_set()


async def test_a_slow_client_misses_the_oldest_is_told_so_and_gets_the_last() -> None:
    feed = Feed(waiting=3)

    async def work() -> Event:
        for number in range(10):
            feed.put(event("step", {"number": number}))
        return event("result", {})

    seen = [(each.kind, json.loads(each.data)) async for each in feed.during(work)]
    assert seen == [("missed", {"events": 7}), *(("step", {"number": n}) for n in (7, 8, 9)), ("result", {})]


async def test_a_client_in_step_misses_nothing() -> None:
    feed = Feed(waiting=2)

    async def work() -> Event:
        for number in range(10):
            feed.put(event("step", {"number": number}))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return event("result", {})

    assert [each.kind async for each in feed.during(work)] == ["step"] * 10 + ["result"]


async def test_work_that_nobody_listens_to_any_more_is_stopped() -> None:
    feed, stopped = Feed(), asyncio.Event()

    async def work() -> Event:
        feed.put(event("step", {}))
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return event("result", {})

    events = feed.during(work)
    assert (await anext(events)).kind == "step"
    await events.aclose()
    await asyncio.wait_for(stopped.wait(), PATIENCE)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ApiError(404, "unknown_job", "there is no such job"), "unknown_job", "there is no such job"),
        (ConfigError("a setting\nis wrong"), "invalid_request", "a setting is wrong"),
        (ZeroDivisionError("secret"), "internal_error", "an unexpected error happened"),
    ],
)
def test_an_error_is_told_with_its_code_and_nothing_of_the_inside(error: Exception, code: str, message: str) -> None:
    told = failure(error)["error"]
    assert told["code"] == code
    assert told["message"].startswith(message)
    assert "secret" not in told["message"]
