"""LangGraph's server, started as docs/studio.md says."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import create_server

import httpx

ROOT = Path(__file__).resolve().parents[2]
LANGGRAPH = ROOT / ".venv-studio" / "bin" / "langgraph"
ATTEMPTS = 9  # to connect while it starts; httpx waits twice as long each time, two minutes in all


@dataclass(frozen=True)
class Studio:
    """A client of the server, where its cache and its output are, and what it asked of other machines."""

    http: httpx.Client
    cache: Path
    log: Path
    elsewhere: list[str] = field(default_factory=list)


def documented() -> tuple[dict[str, str], list[str]]:
    """The variables and the words of the command that starts the server."""
    text = (ROOT / "docs" / "studio.md").read_text(encoding="utf-8")
    (line,) = (line for line in text.splitlines() if "bin/langgraph dev" in line)
    words = shlex.split(line)
    assignments = [word.partition("=") for word in words if "=" in word]
    return {name: value for name, _, value in assignments}, words[len(assignments) :]


@contextmanager
def serving(folder: Path, cache: Path) -> Iterator[Studio]:
    """The server on a free port until the block ends, in `folder`, for it keeps its threads where it is started."""
    shutil.copy(ROOT / "langgraph.json", folder)
    (folder / "service").symlink_to(ROOT / "service")
    with create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    variables, (program, *options) = documented()
    command = [str(ROOT / program), *options, "--no-browser", "--port", str(port)]
    log = folder / "log.txt"
    with _proxy() as (proxy, elsewhere), log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            cwd=folder,
            env=environment(cache) | {"http_proxy": proxy, "https_proxy": proxy, "no_proxy": "127.0.0.1"} | variables,
            start_new_session=True,
        )
        transport = httpx.HTTPTransport(retries=ATTEMPTS)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", transport=transport, timeout=600) as http:
                try:
                    http.get("/ok").raise_for_status()
                except httpx.HTTPError as error:
                    raise RuntimeError(f"the server did not start:\n{log.read_text(errors='replace')}") from error
                yield Studio(http, cache, log, elsewhere)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise


def environment(cache: Path) -> Mapping[str, str]:
    """The cache folder, and no variable that changes what the server or the command line does."""
    prefixes = ("FIELDSCOPE_", "LANGGRAPH_", "LANGSMITH_", "LANGCHAIN_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    return kept | {"FIELDSCOPE_CACHE": str(cache)}


@contextmanager
def _proxy() -> Iterator[tuple[str, list[str]]]:
    """A proxy that notes which addresses are asked for, and refuses them."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.command} {self.path}")
            self.send_error(403)

        do_CONNECT = do_POST = do_HEAD = do_PUT = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
