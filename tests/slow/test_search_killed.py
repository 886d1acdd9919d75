"""`kill -9` of the service in the middle of a search: after a restart it goes on, and the marks of others are there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.eval.killing import committed, lines
from tests.service.api.facts import painted
from tests.slow.test_job_killed import Running

pytestmark = pytest.mark.slow

BODY = {"query": "crab, snow", "strategy": "agent", "top_k": 14}


def get(running: Running, search_id: str) -> dict[str, Any]:
    view: dict[str, Any] = running.client.get(f"/v1/searches/{search_id}").raise_for_status().json()
    return view


def test_a_killed_search_goes_on_and_no_mark_is_lost(tmp_path: Path) -> None:
    painted(tmp_path / "pictures")
    first = Running(tmp_path, tmp_path / "asked-0")
    done = first.client.post("/v1/searches", json={"query": "night", "strategy": "yes-no", "top_k": 6}).json()
    first.follow(done["job"], 0)
    marked = get(first, done["id"])
    images = [row["image"] for row in marked["results"]]
    marks = dict.fromkeys(images[:3], "accepted") | dict.fromkeys(images[3:], "rejected")
    begun = first.client.post("/v1/searches", json=BODY).json()
    seen = first.follow(begun["job"], 0, most=8)
    reply = first.client.post(f"/v1/searches/{done['id']}/marks", json={"marks": marks})
    assert reply.json()["marks"] == marks
    assert get(first, begun["id"])["state"] == "running", "killed too late to show anything"
    first.kill()

    before = committed(tmp_path / "cache.sqlite")
    running = Running(tmp_path, tmp_path / "asked-1")
    assert get(running, begun["id"])["state"] in ("waiting", "running", "done")
    rest = running.follow(begun["job"], seen[-1][0])
    view, others = get(running, begun["id"]), get(running, done["id"])
    running.stop()
    assert rest[-1][1] == "done" and "resumed" in {kind for _, kind, _ in rest}
    assert (view["state"], len(view["results"])) == ("done", 14)
    assert not before & set(lines(running.asked)), "a committed call was asked again"
    assert {row["image"]: row["mark"] for row in others["results"]} == marks
