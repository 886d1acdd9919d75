"""The OpenAPI document, tried out: whatever it allows is answered, and whatever it does not allow is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.served import Served

pytest.importorskip("schemathesis", reason="the clients' environment is another one: make test-clients")

pytestmark = [pytest.mark.clients, pytest.mark.nightly, pytest.mark.timeout(1800)]

EXAMPLES = 50
"""Requests for an operation and a phase."""


def test_every_endpoint_keeps_its_word(served: Served, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("st")
    settings = Path(__file__).with_name("schemathesis.toml")
    command = [program, "--config-file", settings, "run", f"{served.url}/openapi.json"]
    done = subprocess.run(
        [
            *map(str, command),
            "--max-examples",
            str(EXAMPLES),
            "--seed",
            "1",
            "--request-timeout",
            "120",
            "--continue-on-failure",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
