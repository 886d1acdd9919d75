"""Ctrl-C, deadlines and time limits over servers that hang or trickle, in a real process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import Run, World, redness
from tests.service.test_evaluate import parquet

PATIENCE = 120
"""Seconds after which a process that should have ended is taken for one that never does."""

_MAIN = (
    "import sys, fieldscope.service.wiring.interruption as i; i.GRACE = {grace};"
    "from fieldscope.service.cli.main import main; main()"
)


class Stalling:
    """A server whose answers to chat completions wait for `go`. `asked` is set by the first question; `bodies` are all
    of them. Before it waits it sends the first `trickle` bytes of its answer."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.go = threading.Event()
        self.bodies: list[dict[str, Any]] = []
        self.trickle = 0
        self.answer: Callable[[dict[str, Any]], tuple[int, str]] = redness
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send(200, json.dumps({"data": [{"id": "vl"}]}).encode(), 0)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.bodies.append(body)
                status, text = server.answer(body)
                self._send(status, text.encode(), None if server.go.is_set() else server.trickle)

            def _send(self, status: int, data: bytes, before: int | None) -> None:
                with suppress(BrokenPipeError, ConnectionResetError):
                    if before is not None and self.command == "POST" and not before:
                        server.asked.set()
                        server.go.wait()
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    if before:
                        self.wfile.write(data[:before])
                        server.asked.set()
                        server.go.wait()
                    self.wfile.write(data[before or 0 :])

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._http.block_on_close = False
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.go.set()
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def stalling() -> Iterator[Stalling]:
    made = Stalling()
    yield made
    made.close()


@pytest.fixture
def quiz(photos: Path, tmp_path: Path) -> Path:
    """Two photographs in INQUIRE-Rerank's shape, and one query."""
    images = {name: (photos / name).read_bytes() for name in ("blue.png", "red.png")}
    return parquet(tmp_path / "quiz", images, {"a red crab": ["red.png"]})


Begin = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def begin(stalling: Stalling, photos: Path, tmp_path: Path) -> Iterator[Begin]:
    """`begin(5.0, "rerank", ...)` starts a command whose grace is 5 s, in a process of its own, over the server."""
    begun: list[subprocess.Popen[str]] = []
    environment = {**os.environ, "FIELDSCOPE_CACHE": str(tmp_path / "cache")}

    def start(grace: float, *line: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", _MAIN.format(grace=grace), *map(str, line)],
            env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            # A test run that was started in the background ignores SIGINT, and so would its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
        )  # fmt: skip
        begun.append(process)
        return process

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def rerank(stalling: Stalling, photos: Path) -> list[object]:
    line = ["rerank", "--query", "red", "--images", photos / "red.png", "--strategy", "yes-no", "--json"]
    return [*line, "--lmm", stalling.url, "--model", "vl"]


def interrupted(process: subprocess.Popen[str], stalling: Stalling) -> str:
    """Press Ctrl-C once the server has a question, and read what is said at once."""
    assert stalling.asked.wait(PATIENCE)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    return next(line for line in process.stderr if line.startswith("error: "))


@pytest.mark.parametrize("trickle", [0, 20])
def test_one_ctrl_c_says_so_at_once_and_ends_though_the_server_hangs(
    begin: Begin, stalling: Stalling, photos: Path, trickle: int
) -> None:
    stalling.trickle = trickle
    process = begin(0.5, *rerank(stalling, photos))
    said = interrupted(process, stalling)
    assert said.startswith("error: interrupted; answers so far are in the cache")
    assert process.wait(PATIENCE) == 130  # and the server still hangs
    assert process.stdout is not None and process.stdout.read() == ""


def test_a_second_ctrl_c_ends_it_now(begin: Begin, stalling: Stalling, photos: Path) -> None:
    process = begin(10 * PATIENCE, *rerank(stalling, photos))
    assert "press Ctrl-C again to end now" in interrupted(process, stalling)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 130


@pytest.mark.slow  # two processes
def test_an_answer_that_comes_within_the_grace_is_kept(begin: Begin, stalling: Stalling, photos: Path) -> None:
    process = begin(10 * PATIENCE, *rerank(stalling, photos))
    assert interrupted(process, stalling)
    stalling.go.set()
    assert process.wait(PATIENCE) == 130
    again = begin(5, *rerank(stalling, photos))
    out, err = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, err
    assert json.loads(out)["cost"]["cache_hits"] == 1
    assert len(stalling.bodies) == 1


@pytest.mark.slow
@pytest.mark.parametrize("command", ["eval", "caption", "doctor"])
def test_the_other_commands_end_alike(
    begin: Begin, stalling: Stalling, photos: Path, quiz: Path, tmp_path: Path, run: Run, command: str
) -> None:
    server = ["--lmm", stalling.url, "--model", "vl"]
    lines: dict[str, list[object]] = {
        "eval": ["eval", quiz, "--strategy", "yes-no"],
        "caption": ["caption", tmp_path / "index"],
        "doctor": ["doctor"],
    }
    if command == "caption":
        assert run("index", photos, "-o", tmp_path / "index").exit_code == 0
    process = begin(0.5, *lines[command], *server)
    assert interrupted(process, stalling).startswith("error: interrupted; ")
    assert process.wait(PATIENCE) == 130


def test_a_deadline_gives_up_calls_in_flight_and_ranks(begin: Begin, stalling: Stalling, photos: Path) -> None:
    process = begin(10 * PATIENCE, *rerank(stalling, photos), "--deadline", "0.2")
    out, err = process.communicate(timeout=PATIENCE)  # and the server still hangs
    assert process.returncode == 0, err
    value = json.loads(out)
    assert value["ended"] == "verify"
    (verdict,) = value["ranking"][0]["verdicts"].values()
    assert (verdict["state"], verdict["error"]) == ("not_asked", "the deadline of 0.2 s has passed")
    assert "The budget ran out in the stage 'verify'" in err


@pytest.mark.parametrize("trickle", [0, 20])
def test_a_call_has_its_time_and_its_attempts(stalling: Stalling, run: Run, photos: Path, trickle: int) -> None:
    stalling.trickle = trickle
    result = run(*rerank(stalling, photos), "--request-timeout", "1", "--attempts", "2")
    assert result.exit_code == 1
    assert "did not answer within 1 s" in result.stderr
    assert len(stalling.bodies) == 2


def test_search_and_eval_take_the_same_options(run: Run, world: World, stalling: Stalling, tmp_path: Path) -> None:
    stalling.answer = lambda body: (500, "{}")
    stalling.go.set()
    server = ["--lmm", stalling.url, "--model", "vl", "--strategy", "yes-no", "--attempts", "1"]
    assert run("index", world.pictures, "-o", tmp_path / "index").exit_code == 0
    result = run("search", "--index", tmp_path / "index", "--query", "a red crab", "--top-k", 3, "--rerank", *server)
    assert result.exit_code == 1
    assert 0 < len(stalling.bodies) <= 12
    assert len({json.dumps(body["messages"]) for body in stalling.bodies}) == len(stalling.bodies)
    stalling.bodies.clear()
    assert run("eval", "fieldnotes-rerank", "--limit", 1, *server).exit_code == 1
    assert len({json.dumps(body["messages"]) for body in stalling.bodies}) == len(stalling.bodies)
