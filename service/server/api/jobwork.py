"""Jobs at work: a few at once, oldest first, resumed if the process ends in between."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextvars import Context
from typing import Any

from fieldscope.agent.types import TraceEvent
from fieldscope.service.server.api.endpoints import answer_call
from fieldscope.service.server.api.engine import Engine, Watch
from fieldscope.service.server.api.errors import LOG, ApiError
from fieldscope.service.server.api.events import Event, event_data, failure
from fieldscope.service.server.api.jobstore import Job, JobStore, NewCall, StoredCall

JOBS_AT_WORK = 2
CALLS_AT_WORK = 4
"""Calls of one job at once; each of them queues among the service's other calls."""

MOST_UNFINISHED = 100
MOST_BYTES = 4_000_000_000
"""Size of the file of jobs above which new jobs are refused."""

LMM_ATTEMPTS = 5
"""How often a call is tried while the LMM answers nothing. Then the call has failed, with the server's error."""

_RETRY_AFTER = 60
_WHERE = ("wave", "round", "image_id", "shown", "done")  # identify an event of a kind, whatever its outcome


class Jobs:
    """Works on the jobs of a store until it is closed. Serves one event loop.

    A job that a killed or closed service left unfinished is resumed: calls that have a reply are not made again; a call
    that was under way is, and the response cache repeats its answers. Events that were stored before are not stored
    again, so a follower of a job sees each of them once.
    """

    def __init__(self, engine: Engine, store: JobStore) -> None:
        self.store = store
        self._engine = engine
        self._at_work: dict[str, asyncio.Task[None]] = {}
        self._news: dict[str, asyncio.Event] = {}
        self._stuck: set[str] = set()
        self._closing = False
        self._start_waiting()

    async def submit(self, calls: Sequence[NewCall]) -> Job:
        """Accept a job whose calls are checked. Raises `ApiError` (429) if too many jobs wait."""
        waiting = len(self.store.unfinished())
        if waiting >= MOST_UNFINISHED or self.store.used_bytes() >= MOST_BYTES:
            raise ApiError(429, "too_many_jobs", f"{waiting} jobs are unfinished; try again later", _RETRY_AFTER)
        job = await asyncio.to_thread(self.store.add, calls)
        self._start_waiting()
        return job

    async def cancel(self, job_id: str) -> Job:
        """Stop a job; its replies so far stay. A job that is over stays as it is. Raises `KeyError`."""
        if not self.store.job(job_id).over:
            self.store.end(job_id, "cancelled")
            self._wake(job_id)
        if (task := self._at_work.get(job_id)) is not None:
            task.cancel()
            await asyncio.wait({task})
        return self.store.job(job_id)

    async def follow(self, job_id: str, after: int) -> AsyncGenerator[Event]:
        """The events after number `after`: the stored ones, then each new one, until the job is over or the service
        closes. They are read from the store, so a slow client costs no memory."""
        while True:
            news = self._news.setdefault(job_id, asyncio.Event())
            try:
                over, events = self.store.job(job_id).over, self.store.events(job_id, after)
            except KeyError:  # the job was removed
                return
            for stored in events:
                yield stored
                after = stored.number or after
            if not events:
                if over or self._closing:
                    return
                await news.wait()

    def stop(self) -> None:
        """Return jobs at work to the queue, before a closing model refuses their questions, and end every stream of
        events, so that a server which waits for its connections can close."""
        self._closing = True
        for task in self._at_work.values():
            task.cancel()
        for job_id in list(self._news):
            self._wake(job_id)

    async def close(self) -> None:
        """Close the store; the next service that opens it resumes the unfinished jobs."""
        self.stop()
        await asyncio.gather(*self._at_work.values(), return_exceptions=True)
        self.store.close()

    def _start_waiting(self) -> None:
        """Start the jobs that wait longest, as far as there are free places."""
        if self._closing:
            return
        for job_id in self.store.unfinished():
            if len(self._at_work) >= JOBS_AT_WORK:
                return
            if job_id not in self._at_work and job_id not in self._stuck:
                task = asyncio.create_task(self._work(job_id), name=job_id, context=Context())  # not the request's
                self._at_work[job_id] = task
                task.add_done_callback(lambda done: self._ended(done.get_name()))

    def _ended(self, job_id: str) -> None:
        self._at_work.pop(job_id, None)
        self._start_waiting()

    async def _work(self, job_id: str) -> None:
        try:
            self.store.begin(job_id)
            self._wake(job_id)
            at_once = asyncio.Semaphore(CALLS_AT_WORK)
            async with asyncio.TaskGroup() as group:
                for call in self.store.waiting_calls(job_id):
                    await at_once.acquire()
                    task = group.create_task(self._call(job_id, call))
                    task.add_done_callback(lambda _: at_once.release())
            job = self.store.job(job_id)
            self.store.end(job_id, "failed" if job.failed and not job.done else "done")
        except asyncio.CancelledError:
            self.store.hand_back(job_id)
            raise
        except Exception:  # noqa: BLE001 - calls never raise, so the store failed
            LOG.exception("job %s stopped, because its store failed; restart the service to resume it", job_id)
            self._stuck.add(job_id)
        finally:
            self._wake(job_id)

    async def _call(self, job_id: str, call: StoredCall) -> None:
        """Make one call, and store its reply or its error."""
        known = Counter(
            _place(event.kind, json.loads(event.data)) for event in self.store.call_events(job_id, call.number)
        )

        def watch(traced: TraceEvent) -> None:
            place = _place(traced.kind, traced.data)
            if known[place]:
                known[place] -= 1
                return
            self.store.add_event(job_id, call.number, traced.kind, event_data(traced))
            self._wake(job_id)

        try:
            reply = await self._answered(call, watch)
        except Exception as error:  # noqa: BLE001 - the job's other calls go on
            self.store.reply(job_id, call.number, "failed", failure(error))
        else:
            self.store.reply(job_id, call.number, "done", reply)
        self._wake(job_id)

    async def _answered(self, call: StoredCall, watch: Watch) -> Mapping[str, Any]:
        """The reply; the call is repeated while the service is busy, and a few times if the LMM fails."""
        failures = 0
        while True:
            try:
                return await answer_call(self._engine, call.url, json.loads(call.body or "{}"), watch)
            except ApiError as error:
                failures += error.code == "lmm_failed"
                if error.retry_after is None or failures >= LMM_ATTEMPTS:
                    raise
                await asyncio.sleep(error.retry_after)

    def _wake(self, job_id: str) -> None:
        """Wake the followers of a job."""
        if news := self._news.pop(job_id, None):
            news.set()


def _place(kind: str, data: Mapping[str, Any]) -> str:
    """Identifies an event within its call. A repeated call has the same events, but within a wave in another order and
    at other times."""
    return json.dumps([kind, *(data.get(name) for name in _WHERE)])
