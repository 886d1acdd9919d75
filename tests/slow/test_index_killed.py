"""`kill -9` of `fieldscope index` and `fieldscope caption`, as a user runs them: the same command goes on to the
identical index."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from tests.eval.killing import PATIENCE, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(6 * PATIENCE)]

PICTURES = 200


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    noise = np.random.default_rng(0)
    for number in range(PICTURES):
        pixels = noise.integers(0, 255, (40, 50, 3), dtype=np.uint8)
        PILImage.fromarray(pixels).save(folder / f"{number:03}.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    return folder


def fieldscope(tmp_path: Path, *arguments: object, cache: str = "cache") -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "from fieldscope.service.cli.main import main; main()", *map(str, arguments)]
    env = os.environ | {"PYTHONPATH": str(ROOT), "FIELDSCOPE_CACHE": str(tmp_path / cache), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def ended(process: subprocess.Popen[bytes]) -> int:
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode in (0, -signal.SIGKILL), errors.decode()
    return process.returncode


def killed(process: subprocess.Popen[bytes], reached: Callable[[], bool]) -> int:
    """Kill the process a moment after something was reached."""
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and not reached() and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(random.Random().uniform(0, 0.05))
    process.send_signal(signal.SIGKILL)
    return ended(process)


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_index_killed_again_and_again_ends_as_the_identical_index(photos: Path, tmp_path: Path) -> None:
    whole, index = tmp_path / "whole", tmp_path / "index"
    assert ended(fieldscope(tmp_path, "index", photos, "-o", whole)) == 0
    deaths = 0
    for shards in (0, 1, 2, 3):
        process = fieldscope(tmp_path, "index", photos, "-o", index)
        there = lambda shards=shards: len(list(index.glob("shards-*/*.npz"))) >= shards  # noqa: E731
        deaths += killed(process, there) != 0
    assert deaths >= 1
    assert ended(fieldscope(tmp_path, "index", photos, "-o", index)) == 0
    assert content(index) == content(whole)


@dataclass
class Captioner:
    url: str = ""
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def captioner() -> Iterator[Captioner]:
    """A server that captions a picture by its bytes."""
    made = Captioner()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply({"data": [{"id": "vl"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            url = next(p["image_url"]["url"] for p in body["messages"][-1]["content"] if p["type"] == "image_url")
            made.asked.append(url)
            message = {"role": "assistant", "content": f"a crab, {sum(url.encode()) % 97} times"}
            usage = {"prompt_tokens": 7, "completion_tokens": 5}
            self._reply({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})

        def _reply(self, value: object) -> None:
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{http.server_port}"
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    yield made
    http.shutdown()
    http.server_close()


def test_caption_killed_again_and_again_ends_with_the_identical_captions(
    photos: Path, captioner: Captioner, tmp_path: Path
) -> None:
    whole, index = tmp_path / "whole", tmp_path / "index"
    for folder in (whole, index):
        assert ended(fieldscope(tmp_path, "index", photos, "-o", folder)) == 0

    def caption(folder: Path, cache: str) -> subprocess.Popen[bytes]:
        return fieldscope(tmp_path, "caption", folder, "--lmm", captioner.url, "--model", "vl", cache=cache)

    assert ended(caption(whole, "cache-whole")) == 0
    assert len(captioner.asked) == PICTURES
    captioner.asked.clear()
    deaths = 0
    for calls in (0, 1, 60, 140, 199):
        process = caption(index, "cache-killed")
        deaths += killed(process, lambda calls=calls: len(captioner.asked) >= calls) != 0
        assert not (index / "captions").exists() or process.returncode == 0
    assert deaths >= 1
    assert ended(caption(index, "cache-killed")) == 0
    assert content(index) == content(whole)
    assert set(captioner.asked) and len(set(captioner.asked)) == PICTURES
    assert len(captioner.asked) < 3 * PICTURES  # what was answered is not asked again
