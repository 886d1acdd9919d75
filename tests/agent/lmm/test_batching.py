import asyncio
import threading
from collections.abc import Sequence

import pytest

from fieldscope.agent.lmm.batching import Batcher
from tests.waiting import PATIENCE


class Recorder:
    """Work that remembers its batches and threads, and answers each number with its square; not before it may `end`."""

    def __init__(self, may_end: bool = True) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[int] = set()
        self.begun, self.end = threading.Event(), threading.Event()
        if may_end:
            self.end.set()

    def __call__(self, numbers: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(numbers))
        self.threads.add(threading.get_ident())
        self.begun.set()
        assert self.end.wait(PATIENCE)
        return [ValueError(f"not {n}") if n < 0 else n * n for n in numbers]


async def test_what_arrives_together_is_one_batch_in_another_thread() -> None:
    work = Recorder()
    batcher = Batcher(work, lambda n: 0, largest=8)
    assert await asyncio.gather(*(batcher.submit(n) for n in range(5))) == [0, 1, 4, 9, 16]
    assert work.batches == [[0, 1, 2, 3, 4]]
    assert threading.get_ident() not in work.threads
    await batcher.aclose()


async def test_batches_are_of_one_kind_and_not_too_large_and_nobody_starves() -> None:
    work = Recorder()
    batcher = Batcher(work, lambda n: n % 2, largest=3)
    assert await asyncio.gather(*(batcher.submit(n) for n in range(9))) == [n * n for n in range(9)]
    assert work.batches == [[0, 2, 4], [1, 3, 5], [6, 8], [7]]
    await batcher.aclose()


async def test_the_next_batch_gathers_while_one_runs_in_the_same_thread() -> None:
    work = Recorder(may_end=False)
    batcher = Batcher(work, lambda n: 0, largest=8)
    first = asyncio.create_task(batcher.submit(1))
    await asyncio.to_thread(work.begun.wait, PATIENCE)
    later = [asyncio.create_task(batcher.submit(n)) for n in (2, 3)]
    await asyncio.sleep(0)
    work.end.set()
    assert await asyncio.gather(first, *later) == [1, 4, 9]
    assert work.batches == [[1], [2, 3]] and len(work.threads) == 1
    await batcher.aclose()


async def test_one_error_is_its_own_callers_alone() -> None:
    batcher = Batcher(Recorder(), lambda n: 0, largest=8)
    results = await asyncio.gather(*(batcher.submit(n) for n in (2, -1, 3)), return_exceptions=True)
    assert results[0] == 4 and results[2] == 9
    assert isinstance(results[1], ValueError) and str(results[1]) == "not -1"
    await batcher.aclose()


async def test_work_that_raises_fails_its_batch_and_the_next_goes_on() -> None:
    calls: list[list[int]] = []

    def work(numbers: Sequence[int]) -> list[int | Exception]:
        calls.append(list(numbers))
        if len(calls) == 1:
            raise RuntimeError("broken")
        return list(numbers)

    batcher = Batcher(work, lambda n: 0, largest=2)
    results = await asyncio.gather(*(batcher.submit(n) for n in (1, 2, 3)), return_exceptions=True)
    assert [str(result) for result in results] == ["broken", "broken", "3"]
    await batcher.aclose()


async def test_a_cancelled_caller_leaves_the_others_alone_and_is_not_worked_for() -> None:
    work = Recorder()
    batcher = Batcher(work, lambda n: 0, largest=8)
    tasks = [asyncio.create_task(batcher.submit(n)) for n in (1, 2, 3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    assert await asyncio.gather(tasks[0], tasks[2]) == [1, 9]
    assert work.batches == [[1, 3]]
    await batcher.aclose()


def test_it_serves_one_event_loop_after_another() -> None:
    work = Recorder()
    batcher = Batcher(work, lambda n: 0, largest=8)
    assert [asyncio.run(batcher.submit(n)) for n in (2, 3)] == [4, 9]
    asyncio.run(batcher.aclose())


async def test_closing_finishes_what_runs_and_cancels_what_waits() -> None:
    work = Recorder(may_end=False)
    batcher = Batcher(work, lambda n: n, largest=8)
    tasks = [asyncio.create_task(batcher.submit(n)) for n in (1, 2)]
    await asyncio.to_thread(work.begun.wait, PATIENCE)
    closing = asyncio.create_task(batcher.aclose())
    await asyncio.sleep(0)
    work.end.set()
    await closing
    assert await tasks[0] == 1, "it was being worked on"
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(tasks[1], PATIENCE)
