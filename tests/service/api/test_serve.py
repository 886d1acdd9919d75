"""`fieldscope serve` as a process of its own, with a server for an LMM and no CLIP, so that it is up at once."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest
from click.testing import Result
from PIL import Image

from tests.service.conftest import Server, serving
from tests.waiting import PATIENCE

BODY = {"query": "a red picture", "documents": ["fieldscope://photos/red.png"], "strategy": "yes-no"}

get, post = partial(httpx.get, timeout=PATIENCE), partial(httpx.post, timeout=PATIENCE)


class Run(Protocol):
    def __call__(self, *args: object) -> Result: ...


class Process:
    """The service, and where it is."""

    def __init__(self, *args: object, environ: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fieldscope", "serve", "--port", "0", *map(str, args)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environ,
            cwd=Path(__file__).parents[3],
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert "http://" in line, self.process.stderr and self.process.stderr.read()
        self.url = line.split()[3]

    def stop(self, number: int = signal.SIGTERM, meanwhile: Callable[[], object] = bool) -> tuple[int, str]:
        self.process.send_signal(number)
        meanwhile()
        _, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, errors

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


Started = Callable[..., Process]


@pytest.fixture
def started(photos: Path, server: Server, tmp_path: Path) -> Iterator[Started]:
    (photos / "broken.png").unlink()
    made: list[Process] = []

    def start(*args: object) -> Process:
        models = ("--lmm", server.url, "--model", "vl", "--clip", "none")
        collection = ("--collection", f"photos={photos}", "--data", tmp_path / "service")
        process = Process(*models, *collection, *args, environ={"FIELDSCOPE_CACHE": str(tmp_path / "cache")})
        made.append(process)
        return process

    yield start
    for each in made:
        each.end()


def test_it_serves_and_ends_what_is_in_flight_when_it_is_told_to_stop(started: Started, server: Server) -> None:
    at_work, stopping, answer = threading.Event(), threading.Event(), server.answer

    def slow(body: dict[str, Any]) -> tuple[int, str]:
        at_work.set()
        stopping.wait(PATIENCE)
        return answer(body)

    service = started()
    assert get(f"{service.url}/healthz").json() == {"status": "ok"}
    assert get(f"{service.url}/readyz").json()["ready"]
    assert post(f"{service.url}/v1/rerank", json=BODY).json()["results"][0]["index"] == 0
    server.answer = slow
    replies: list[httpx.Response] = []
    other = {**BODY, "query": "another picture"}
    asking = threading.Thread(target=lambda: replies.append(post(f"{service.url}/v1/rerank", json=other)))
    asking.start()
    assert at_work.wait(PATIENCE)
    status, errors = service.stop(meanwhile=stopping.set)
    asking.join()
    assert status == 0, errors
    assert replies[0].status_code == 200
    lines = [json.loads(line) for line in errors.splitlines() if line.startswith("{")]
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [
        ("GET", "/healthz", 200), ("GET", "/readyz", 200), ("POST", "/v1/rerank", 200), ("POST", "/v1/rerank", 200),
    ]  # fmt: skip
    assert "Traceback" not in errors


@pytest.mark.slow  # two services
def test_a_job_that_is_at_work_is_handed_back_to_the_next_start(started: Started, server: Server) -> None:
    at_work, gate, answer = threading.Event(), threading.Event(), server.answer

    def slow(body: dict[str, Any]) -> tuple[int, str]:
        at_work.set()
        gate.wait(2 * PATIENCE)  # not before the service has ended
        return answer(body)

    server.answer = slow
    service = started("--grace", 2)
    calls = {"calls": [{"url": "/v1/rerank", "body": BODY}, {"url": "/v1/rerank", "body": {**BODY, "query": "b"}}]}
    job = post(f"{service.url}/v1/jobs", json=calls).json()
    assert at_work.wait(PATIENCE)
    followed: list[str] = []
    listening = threading.Event()

    def follow() -> None:
        with httpx.stream("GET", service.url + job["events"], timeout=PATIENCE) as events:
            listening.set()
            followed.append(events.read().decode())  # to its end

    following = threading.Thread(target=follow)
    following.start()
    assert listening.wait(PATIENCE)
    status, errors = service.stop()
    assert status == 0, errors
    assert "Traceback" not in errors
    following.join(PATIENCE)
    assert "event: done" not in followed[0]
    gate.set()
    again = started()
    assert "event: done" in get(again.url + job["events"]).text
    view = get(f"{again.url}/v1/jobs/{job['id']}").json()
    assert view["calls"] == {"total": 2, "done": 2, "failed": 0}
    assert again.stop()[0] == 0


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A service whose LMM's server has another model, and that takes bodies of 100,000 bytes. Ctrl-C ends it well."""
    folder = tmp_path_factory.mktemp("idle")
    Image.new("RGB", (8, 8), "red").save(folder / "red.png")
    with serving(Server(models=(200, json.dumps({"data": [{"id": "other"}]})))) as lmm:
        models = ("--lmm", lmm.url, "--model", "vl", "--clip", "none")
        collection = ("--collection", f"photos={folder}", "--data", folder / "service", "--limit", "max_body=100000")
        service = Process(*models, *collection, environ={"FIELDSCOPE_CACHE": str(folder / "cache")})
        try:
            yield service
            assert service.stop(signal.SIGINT)[0] == 0
        finally:
            service.end()


def test_it_says_that_it_is_not_ready_while_its_lmm_is_away(idle: Process) -> None:
    reply = get(f"{idle.url}/readyz")
    assert reply.status_code == 503
    assert "serves other, not vl" in reply.json()["parts"]["lmm"]
    assert get(f"{idle.url}/healthz").status_code == 200


def test_a_huge_body_is_refused_while_it_comes(idle: Process) -> None:
    host, port = idle.url.removeprefix("http://").split(":")
    head = f"POST /v1/rerank HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        connection.sendall(f"{head}Content-Length: 1000000000\r\n\r\n".encode())
        assert b"413" in connection.recv(4096).splitlines()[0]
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        sent = 0
        try:
            while sent < 1_000_000_000:
                connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
                sent += 0x10000
        except OSError:  # the service has closed
            pass
        assert sent < 50_000_000


def test_it_lets_others_in_with_a_key_only(started: Started, run: Run, tmp_path: Path) -> None:
    made = run("keys", "add", "alice", "--data", tmp_path / "service")
    service = started("--host", "0.0.0.0")
    url = service.url.replace("0.0.0.0", "127.0.0.1")
    assert post(f"{url}/v1/rerank", json=BODY).status_code == 401
    key = {"Authorization": f"Bearer {made.stdout.strip()}", "Host": "reranker.example"}
    assert post(f"{url}/v1/rerank", json=BODY, headers=key).status_code == 200
    assert get(f"{url}/healthz").status_code == 200


def test_what_can_t_be_served_is_one_line_at_once(run: Run, tmp_path: Path) -> None:
    without_key = run("serve", "--host", "0.0.0.0", "--data", tmp_path)
    assert without_key.exit_code == 1
    assert "needs an API key" in without_key.output and without_key.output.count("\n") == 1
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy = run("serve", "--port", taken.getsockname()[1], "--data", tmp_path)
    assert busy.exit_code == 1 and "choose another port with --port" in busy.output
    gone = run("serve", "--port", 0, "--clip", "none", "--collection", f"a={tmp_path / 'gone'}", "--data", tmp_path)
    assert gone.exit_code == 1 and "does not exist" in gone.output
