"""`kill -9` in the middle of a job: the next service goes on with it, asks nothing again that was committed, and who
follows the job takes the stream up where it broke off."""

from __future__ import annotations

import json
import random
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.eval.killing import PATIENCE, committed, lines, run_script
from tests.service.api.facts import painted

pytestmark = pytest.mark.slow

KILLS = 5
CALLS = [
    {"url": "/v1/search", "custom_id": text, "body": {"query": text, "strategy": strategy, "top_k": 14, "explain": 2}}
    for text, strategy in (("crab, snow", "agent"), ("night, no net", "agent"), ("rain", "yes-no"), ("net", "pairwise"))
]

Event = tuple[int, str, dict[str, Any]]


class Running:
    """A service in a process of its own, once it answers."""

    def __init__(self, folder: Path, asked: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.asked = asked
        self.process = run_script(Path(__file__).with_name("killable_service.py"), folder, port, asked)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.client.get("/healthz").raise_for_status()
                return
            except httpx.TransportError:
                assert self.process.poll() is None, self.process.communicate()[1].decode()
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def follow(self, job_id: str, after: int, most: int | None = None) -> list[Event]:
        """The events after a number: so many, or all up to the end of the stream."""
        seen: list[Event] = []
        headers = {"Last-Event-ID": str(after)} if after else {}
        with self.client.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as response:
            assert response.status_code == 200
            fields: dict[str, str] = {}
            for line in response.iter_lines():
                if line.startswith(":"):
                    continue
                if line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                elif fields:
                    seen.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
                    fields = {}
                    if most is not None and len(seen) >= most:
                        break
        return seen

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE)
        self.client.close()

    def stop(self) -> None:
        self.process.terminate()
        try:
            _, errors = self.process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        assert self.process.returncode in (0, -signal.SIGTERM), errors.decode()
        self.client.close()


def places(events: Iterable[tuple[str, dict[str, Any]]]) -> Counter[str]:
    """What happened, however it turned out and whenever."""
    where = ("wave", "round", "image_id", "shown")
    return Counter(json.dumps([kind, *(data.get(name) for name in where)]) for kind, data in events)


def test_a_killed_job_goes_on(tmp_path: Path) -> None:
    painted(tmp_path / "pictures")
    chance = random.Random()
    seen: list[Event] = []
    job_id = ""
    for attempt in range(KILLS):
        before = committed(tmp_path / "cache.sqlite")
        running = Running(tmp_path, tmp_path / f"asked-{attempt}")
        if not job_id:
            job_id = running.client.post("/v1/jobs", json={"calls": CALLS}).raise_for_status().json()["id"]
        seen += running.follow(job_id, seen[-1][0] if seen else 0, most=chance.randint(8, 16))
        time.sleep(chance.uniform(0, 0.03))
        running.kill()
        asked = lines(running.asked)
        assert not before & set(asked), "a committed call was asked again"
        assert len(set(asked)) == len(asked)
        assert seen[-1][1] != "done", "killed too late to show anything"
    before = committed(tmp_path / "cache.sqlite")
    running = Running(tmp_path, tmp_path / "asked-last")
    seen += running.follow(job_id, seen[-1][0])
    view = running.client.get(f"/v1/jobs/{job_id}").json()
    replies = [running.client.post(call["url"], json=call["body"]).json() for call in CALLS]
    traces = [running.client.get(f"/v1/traces/{each['reply']['trace_id']}").json() for each in view["results"]]
    again = running.client.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": str(seen[-1][0])})
    running.stop()
    assert not before & set(lines(running.asked)), "a committed call was asked again"

    assert [number for number, _, _ in seen] == [*range(1, len(seen) + 1)]
    assert seen[-1][1] == "done" and again.status_code == 204
    assert sum(kind == "resumed" for _, kind, _ in seen) == KILLS
    assert view["state"] == "done" and view["calls"] == {"total": 4, "done": 4, "failed": 0}
    for result, reply, trace in zip(view["results"], replies, traces, strict=True):
        assert [found["image"] for found in result["reply"]["results"]] == [
            found["image"] for found in reply["results"]
        ]
        assert reply["usage"]["cached"] == reply["usage"]["calls"] == result["reply"]["usage"]["calls"]
        own = [(kind, data) for _, kind, data in seen if data.get("call") == result["call"] and kind != "result"]
        assert places(own) == places((event["kind"], event["data"]) for event in trace["trace"])
