"""Jobs at work: so many at once, oldest first, each to its end whatever becomes of the process in between."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextvars import Context
from typing import Any

from fieldscope.agent.types import TraceEvent
from fieldscope.service.server.api.endpoints import ENDPOINTS
from fieldscope.service.server.api.engine import Engine, Watch
from fieldscope.service.server.api.errors import LOG, ApiError
from fieldscope.service.server.api.events import Event, failure, told
from fieldscope.service.server.api.jobstore import Job, JobStore, NewCall, StoredCall

JOBS_AT_WORK = 2
CALLS_AT_WORK = 4
"""Of one job; each takes its place among the service's other calls."""

MOST_UNFINISHED = 100
MOST_BYTES = 4_000_000_000
"""Of the file of jobs, beyond which no more are taken on."""

LMM_ATTEMPTS = 5
"""At a call of a job whose LMM answers nothing. Then it has failed, with the server's words."""

_RETRY_AFTER = 60
_WHERE = ("wave", "round", "image_id", "shown")  # what tells two events of a kind apart, however they turned out


class Jobs:
    """Works on the jobs of a store until it is closed. Serves one event loop.

    A job that a killed or closed service left behind goes on: calls that have a reply are not made again, one that was
    under way is, and the response cache answers what was answered before. Events that it had told of are not told
    again, so that whoever follows a job sees each of them once.
    """

    def __init__(self, engine: Engine, store: JobStore) -> None:
        self.store = store
        self._engine = engine
        self._at_work: dict[str, asyncio.Task[None]] = {}
        self._news: dict[str, asyncio.Event] = {}
        self._stuck: set[str] = set()
        self._closing = False
        self._pump()

    async def submit(self, calls: Sequence[NewCall]) -> Job:
        """Take on a job. Raises `ApiError` (429) where too many wait. The caller has checked its calls."""
        waiting = len(self.store.unfinished())
        if waiting >= MOST_UNFINISHED or self.store.used_bytes() >= MOST_BYTES:
            raise ApiError(429, "too_many_jobs", f"{waiting} jobs are not over yet; try again later", _RETRY_AFTER)
        job = await asyncio.to_thread(self.store.add, calls)
        self._pump()
        return job

    async def cancel(self, job_id: str) -> Job:
        """Stop a job; what it has found so far stays. One that is over stays as it is. Raises `KeyError`."""
        if not self.store.job(job_id).over:
            self.store.end(job_id, "cancelled")
            self._wake(job_id)
        if (task := self._at_work.get(job_id)) is not None:
            task.cancel()
            await asyncio.wait({task})
        return self.store.job(job_id)

    async def follow(self, job_id: str, after: int) -> AsyncGenerator[Event]:
        """The events that follow number `after`: those of the past, then each as it comes, until the job is over or the
        service closes. They are read from the store, so a client that reads slowly costs no memory."""
        while True:
            news = self._news.setdefault(job_id, asyncio.Event())
            try:
                over, events = self.store.job(job_id).over, self.store.events(job_id, after)
            except KeyError:  # somebody removed it
                return
            for happened in events:
                yield happened
                after = happened.number or after
            if not events:
                if over or self._closing:
                    return
                await news.wait()

    def stop(self) -> None:
        """Hand back what is at work, before a model that is closing refuses its questions, and let every stream of
        events end, so that a server which waits for its connections can close."""
        self._closing = True
        for task in self._at_work.values():
            task.cancel()
        for job_id in list(self._news):
            self._wake(job_id)

    async def close(self) -> None:
        """Let go of the store: whoever opens it next goes on with what was handed back."""
        self.stop()
        await asyncio.gather(*self._at_work.values(), return_exceptions=True)
        self.store.close()

    def _pump(self) -> None:
        """Give free places to the jobs that wait longest."""
        if self._closing:
            return
        for job_id in self.store.unfinished():
            if len(self._at_work) >= JOBS_AT_WORK:
                return
            if job_id not in self._at_work and job_id not in self._stuck:
                task = asyncio.create_task(self._work(job_id), name=job_id, context=Context())  # no request's own
                self._at_work[job_id] = task
                task.add_done_callback(lambda done: self._ended(done.get_name()))

    def _ended(self, job_id: str) -> None:
        self._at_work.pop(job_id, None)
        self._pump()

    async def _work(self, job_id: str) -> None:
        try:
            self.store.begin(job_id)
            self._wake(job_id)
            at_once = asyncio.Semaphore(CALLS_AT_WORK)
            async with asyncio.TaskGroup() as group:
                for call in self.store.waiting_calls(job_id):
                    await at_once.acquire()
                    made = group.create_task(self._call(job_id, call))
                    made.add_done_callback(lambda _: at_once.release())
            job = self.store.job(job_id)
            self.store.end(job_id, "failed" if job.failed and not job.done else "done")
        except asyncio.CancelledError:
            self.store.hand_back(job_id)
            raise
        except Exception:  # noqa: BLE001 - calls never raise, so the store failed, and nothing can be said without it
            LOG.exception("job %s can't go on; it waits for the next start of the service", job_id)
            self._stuck.add(job_id)
        finally:
            self._wake(job_id)

    async def _call(self, job_id: str, call: StoredCall) -> None:
        """Make one call, and commit its reply, or the error that it failed with."""
        known = Counter(
            _place(event.kind, json.loads(event.data)) for event in self.store.call_events(job_id, call.number)
        )

        def watch(happened: TraceEvent) -> None:
            place = _place(happened.kind, happened.data)
            if known[place]:
                known[place] -= 1
                return
            self.store.tell(job_id, call.number, happened.kind, told(happened))
            self._wake(job_id)

        try:
            reply = await self._answered(call, watch)
        except Exception as error:  # noqa: BLE001 - whatever it is, the job's other calls go on
            self.store.reply(job_id, call.number, "failed", failure(error))
        else:
            self.store.reply(job_id, call.number, "done", reply)
        self._wake(job_id)

    async def _answered(self, call: StoredCall, watch: Watch) -> Mapping[str, Any]:
        """The reply; where the service is busy, a little later, and where the LMM fails, a few times."""
        failures = 0
        while True:
            try:
                return await ENDPOINTS[call.url].answer(self._engine, json.loads(call.body or "{}"), watch)
            except ApiError as error:
                failures += error.code == "lmm_failed"
                if error.retry_after is None or failures >= LMM_ATTEMPTS:
                    raise
                await asyncio.sleep(error.retry_after)

    def _wake(self, job_id: str) -> None:
        """Let those who follow a job look again."""
        if news := self._news.pop(job_id, None):
            news.set()


def _place(kind: str, data: Mapping[str, Any]) -> str:
    """Which event of a call this is. A call that is made again goes the same way, but within a wave in another order
    and at another pace."""
    return json.dumps([kind, *(data.get(name) for name in _WHERE)])
