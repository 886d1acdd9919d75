from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.service.server.api.admission import Admission
from fieldscope.service.server.api.errors import ApiError


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Caller:
    """Somebody who wants a place, keeps it until told to go, and remembers how it went."""

    def __init__(self, admission: Admission, patience: float = 60.0) -> None:
        self.let_go = asyncio.Event()
        self.inside = False
        self.error: ApiError | None = None
        self.task = asyncio.create_task(self._call(admission, patience))

    async def _call(self, admission: Admission, patience: float) -> None:
        try:
            async with admission.place(patience):
                self.inside = True
                try:
                    await self.let_go.wait()
                finally:
                    self.inside = False
        except ApiError as error:
            self.error = error


async def test_who_comes_when_all_places_and_the_queue_are_full_is_sent_away_at_once_and_told_when_to_come_back() -> (
    None
):
    admission = Admission(at_work=2, waiting=1)
    callers = [Caller(admission) for _ in range(4)]
    await settle()
    assert [caller.inside for caller in callers] == [True, True, False, False]
    refused = callers[3].error
    assert refused is not None
    assert (refused.status, refused.code) == (429, "too_many_requests")
    assert refused.retry_after is not None and refused.retry_after >= 1
    callers[0].let_go.set()
    await settle()
    assert callers[2].inside
    later = Caller(admission)
    await settle()
    assert later.error is None and admission.waiting == 1
    for caller in (*callers, later):
        caller.let_go.set()
    await settle()
    assert (admission.at_work, admission.waiting) == (0, 0)


async def test_first_come_first_served() -> None:
    admission = Admission(at_work=1, waiting=3)
    callers = [Caller(admission) for _ in range(4)]
    await settle()
    for n, caller in enumerate(callers):
        assert [each.inside for each in callers] == [n == m for m in range(4)]
        caller.let_go.set()
        await settle()


async def test_who_waits_too_long_gets_a_deadline_and_holds_up_nobody() -> None:
    admission = Admission(at_work=1, waiting=2)
    first, second, third = Caller(admission), Caller(admission, patience=0.01), Caller(admission)
    await second.task
    assert second.error is not None
    assert (second.error.status, second.error.code) == (504, "deadline")
    first.let_go.set()
    await settle()
    assert third.inside


async def test_a_cancelled_caller_gives_its_place_to_the_next() -> None:
    admission = Admission(at_work=1, waiting=2)
    first, second, third = (Caller(admission) for _ in range(3))
    await settle()
    second.task.cancel()
    first.task.cancel()
    await settle()
    assert third.inside and admission.waiting == 0


async def test_a_place_handed_to_somebody_who_is_cancelled_in_that_moment_goes_on() -> None:
    admission = Admission(at_work=1, waiting=2)
    first, second, third = (Caller(admission) for _ in range(3))
    await settle()
    first.let_go.set()
    await asyncio.sleep(0)  # the place is handed over, and the second caller has not run yet
    second.task.cancel()
    await settle()
    assert third.inside
    third.let_go.set()
    await settle()
    assert admission.at_work == 0


async def test_after_closing_nobody_comes_in_and_who_is_at_work_stays() -> None:
    admission = Admission(at_work=1, waiting=2)
    working, waiting = Caller(admission), Caller(admission)
    await settle()
    admission.close()
    late = Caller(admission)
    await settle()
    assert working.inside
    assert [caller.error and caller.error.status for caller in (waiting, late)] == [503, 503]


@given(st.lists(st.sampled_from(["come", "go", "cancel", "tick"]), max_size=40), st.integers(1, 3), st.integers(0, 3))
def test_never_more_at_work_or_waiting_than_may_be_and_no_place_is_lost(
    steps: list[str], at_work: int, waiting: int
) -> None:
    async def live() -> None:
        admission = Admission(at_work, waiting)
        callers: list[Caller] = []
        for n, step in enumerate(steps):
            if step == "come":
                callers.append(Caller(admission))
            elif step == "go" and callers:
                callers[n % len(callers)].let_go.set()
            elif step == "cancel" and callers:
                callers[n % len(callers)].task.cancel()
            else:
                await asyncio.sleep(0)
            assert sum(caller.inside for caller in callers) <= at_work
            assert admission.at_work <= at_work and admission.waiting <= waiting
        for caller in callers:
            caller.let_go.set()
        for caller in callers:
            with suppress(asyncio.CancelledError):
                await caller.task
        assert (admission.at_work, admission.waiting) == (0, 0)

    asyncio.run(live())


@pytest.mark.parametrize("seconds", [0.0, 5.0])
async def test_retry_after_follows_how_long_calls_take(seconds: float) -> None:
    admission = Admission(at_work=1, waiting=0)
    admission._seconds = seconds
    Caller(admission)
    refused = Caller(admission)
    await settle()
    assert refused.error is not None
    assert refused.error.retry_after == max(1, int(seconds))
