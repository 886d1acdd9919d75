"""`fieldscope mcp`: what it refuses before it loads anything. `make test-adaptors` has what it does."""

from __future__ import annotations

import importlib.util

import pytest
from click.testing import CliRunner

from fieldscope.service.cli.main import cli


def test_without_its_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "fieldscope.service.cli.commands.mcp.find_spec", lambda name: None if name == "mcp" else find(name)
    )
    done = CliRunner().invoke(cli, ["mcp"])
    assert done.exit_code == 1
    assert "Install the extra `mcp`" in " ".join(done.output.split())


def test_a_service_keeps_its_own_settings() -> None:
    done = CliRunner().invoke(cli, ["mcp", "--url", "http://127.0.0.1:9", "--strategy", "yes-no"])
    assert done.exit_code == 2
    assert "--strategy has no effect on the service at --url" in " ".join(done.output.split())
