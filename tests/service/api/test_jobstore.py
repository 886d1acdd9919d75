"""The store of jobs: what is committed, in which order, and for how long."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.core.errors import ConfigError
from fieldscope.service.server.api.jobstore import JobStore, NewCall

CALLS = [NewCall("/v1/search", '{"query": "a"}', "first"), NewCall("/v1/search", '{"query": "b"}')]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    opened = JobStore(tmp_path / "jobs.sqlite")
    yield opened
    opened.close()


def kinds(store: JobStore, job_id: str) -> list[str]:
    return [event.kind for event in store.events(job_id)]


def test_a_job_from_beginning_to_end(store: JobStore) -> None:
    job = store.add(CALLS)
    assert (job.state, job.calls, job.done, job.failed, job.started) == ("waiting", 2, 0, 0, None)
    store.begin(job.id)
    store.add_event(job.id, 0, "verified", {"wave": 1})
    store.reply(job.id, 0, "done", {"results": []})
    assert [call.number for call in store.waiting_calls(job.id)] == [1]
    store.reply(job.id, 1, "failed", {"error": {"code": "x"}})
    store.end(job.id, "done")
    job = store.job(job.id)
    assert (job.state, job.done, job.failed, job.over) == ("done", 1, 1, True)
    events = store.events(job.id)
    assert [event.kind for event in events] == ["waiting", "started", "verified", "result", "failed", "done"]
    assert [event.number for event in events] == [1, 2, 3, 4, 5, 6]
    assert json.loads(events[2].data) == {"call": 0, "wave": 1}
    assert json.loads(events[-1].data) == {"done": 1, "failed": 1, "calls": 2}
    first, second = store.calls(job.id)
    assert (first.custom_id, first.state, first.reply) == ("first", "done", '{"results": []}')
    assert (second.state, second.body) == ("failed", None)
    assert store.unfinished() == []


def test_nothing_is_told_of_a_job_that_is_over(store: JobStore) -> None:
    job = store.add(CALLS)
    store.begin(job.id)
    store.end(job.id, "cancelled")
    before = kinds(store, job.id)
    store.add_event(job.id, 0, "verified", {})
    store.reply(job.id, 0, "done", {})
    store.end(job.id, "done")
    store.hand_back(job.id)
    assert kinds(store, job.id) == before == ["waiting", "started", "cancelled"]
    assert store.job(job.id).state == "cancelled"
    assert [call.state for call in store.calls(job.id)] == ["waiting", "waiting"]


def test_bodies_are_there_until_they_are_answered(store: JobStore) -> None:
    job = store.add(CALLS)
    assert [call.body for call in store.waiting_calls(job.id)] == [call.body for call in CALLS]
    store.reply(job.id, 0, "done", {})
    assert [call.body for call in store.waiting_calls(job.id)] == [CALLS[1].body]


def test_what_was_handed_back_is_resumed_by_the_next(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs.sqlite")
    job = store.add(CALLS)
    store.begin(job.id)
    store.hand_back(job.id)
    store.close()
    again = JobStore(tmp_path / "jobs.sqlite")
    assert again.unfinished() == [job.id]
    assert again.job(job.id).state == "waiting"
    again.begin(job.id)
    assert kinds(again, job.id) == ["waiting", "started", "resumed"]
    again.close()


def test_two_services_do_not_work_on_the_same_jobs(store: JobStore, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="another service uses the jobs"):
        JobStore(tmp_path / "jobs.sqlite")


def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    path.write_bytes(b"somebody's letters" * 100)
    with pytest.raises(ConfigError, match="can't keep jobs"):
        JobStore(path)
    assert path.read_bytes().startswith(b"somebody's")
    path.unlink()
    JobStore(path).close()  # and nothing is locked


def test_the_oldest_that_are_over_go_first(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs.sqlite", keep=2)
    waiting = store.add(CALLS)
    over = [store.add(CALLS) for _ in range(4)]
    for job in over:
        store.end(job.id, "done")
    assert [job.id for job in store.jobs()] == [over[3].id, over[2].id, waiting.id]
    assert store.events(over[0].id) == [] and store.calls(over[0].id) == []
    with pytest.raises(KeyError):
        store.job(over[0].id)
    store.close()


def test_jobs_that_ended_long_ago_go_whatever_their_number(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs.sqlite", keep_seconds=-1.0)
    job = store.add(CALLS)
    store.end(job.id, "done")
    assert store.jobs() == []
    store.close()


def test_the_file_stays_within_its_bounds(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs.sqlite", max_bytes=400_000)
    for _ in range(12):
        job = store.add(CALLS)
        store.reply(job.id, 0, "done", {"text": "x" * 60_000})
        store.end(job.id, "done")
    assert store.used_bytes() <= 400_000
    assert 0 < len(store.jobs()) < 12
    assert store.jobs()[0].id == job.id
    store.close()


@given(st.lists(st.sampled_from(["tell", "reply", "begin", "hand_back"]), max_size=12), st.integers(1, 5))
def test_numbers_have_no_gaps_and_pages_have_all(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str], size: int
) -> None:
    store = JobStore(tmp_path_factory.mktemp("jobs") / "jobs.sqlite")
    job = store.add(CALLS)
    for step in steps:
        match step:
            case "tell":
                store.add_event(job.id, 1, "verified", {"text": "'; DROP TABLE jobs; --"})
            case "reply":
                store.reply(job.id, 0, "done", {})
            case "begin":
                store.begin(job.id)
            case "hand_back":
                store.hand_back(job.id)
    store.end(job.id, "done")
    paged, after = [], 0
    while page := store.events(job.id, after, size):
        paged += page
        after = page[-1].number or 0
    assert [event.number for event in paged] == [*range(1, len(paged) + 1)]
    assert paged == store.events(job.id)
    assert len(paged) == 2 + sum(step != "hand_back" for step in steps)
    store.close()
