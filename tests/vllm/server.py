"""Starting a real vLLM on the CPU, the way `fieldscope lmm serve` starts one, and ending all of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from fieldscope.agent.lmm.serve import find_vllm, vllm_command

VENV = Path(__file__).resolve().parents[2] / ".venv-vllm"
START_TIMEOUT = 600.0  # seconds; about 25 on two idle cores
ON_THE_CPU = (
    *("--dtype", "float32"),
    *("--max-model-len", "1024"),
    "--enforce-eager",
    *("--block-size", "32"),  # attention on the CPU fills blocks of 32; with smaller ones short prompts never share any
    *("--gpu-memory-utilization", "0.15"),  # of the machine's memory: several servers stand beside each other
    "--enable-prompt-tokens-details",
)

_QWEN3_VL_RERANKER = {
    "architectures": ["Qwen3VLForSequenceClassification"],
    "classifier_from_token": ["no", "yes"],
    "is_original_qwen3_reranker": True,
}
AS_A_RERANKER = (
    *("--runner", "pooling"),
    *("--max-model-len", "4096"),
    *("--hf-overrides", json.dumps(_QWEN3_VL_RERANKER)),
)


class Server(NamedTuple):
    """Where the server listens, and what it calls its model."""

    url: str
    model: str


@contextmanager
def serving(checkpoint: Path, log: Path, *extra: str) -> Iterator[Server]:
    """A server of `checkpoint`, ready to answer; its output goes to `log`, and `extra` to its command line. None of its
    processes outlives the block."""
    port = _free_port()
    command = vllm_command(str(checkpoint), port=port, extra=(*ON_THE_CPU, *extra), launcher=find_vllm(VENV))
    with log.open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        _wait_until_ready(process, f"http://127.0.0.1:{port}/health", log)
        yield Server(f"http://127.0.0.1:{port}", checkpoint.name)
    finally:
        _stop_group(process)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(url).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    end = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
    raise RuntimeError(f"vLLM did not start (exit status {process.poll()}); its last words:\n{end}")


def _stop_group(process: subprocess.Popen[bytes]) -> None:
    """End the server and the workers that it spawned, which share its process group."""
    for signal_number, patience in ((signal.SIGTERM, 20.0), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(process.pid, signal_number)
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline:
                process.poll()
                os.killpg(process.pid, 0)
                time.sleep(0.1)
        except ProcessLookupError:
            return
