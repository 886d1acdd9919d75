"""`fieldscope doctor` on a real vLLM that serves the bundled LMM."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from fieldscope.service.cli.main import cli
from tests.vllm.server import Server

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]


def test_the_doctor_finds_nothing_wrong(server: Server) -> None:
    result = CliRunner().invoke(
        cli, ["doctor", "--lmm", server.url, "--model", server.model, "--prompts", "fieldnotes", "--json"]
    )
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["healthy"]
    assert told["probe"] == "fieldnotes"  # it is lost among shapes, and that is no fault of the server's
    found = {finding["name"]: finding for finding in told["findings"]}
    well = (
        *("server", "log-probabilities", "top log-probabilities", "yes/no spellings", "image seen", "same on repeat"),
        *("same in a batch", "prefix caching"),
    )
    assert {name: found[name]["state"] for name in well} == dict.fromkeys(well, "ok"), found
    assert found["top log-probabilities"]["seen"] == "20 of 20"
    assert "more are cached" in found["prefix caching"]["seen"]


def test_a_name_that_it_does_not_serve_is_one_line(server: Server) -> None:
    result = CliRunner().invoke(cli, ["doctor", "--lmm", server.url, "--model", "another"])
    assert result.exit_code == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert server.model in line
