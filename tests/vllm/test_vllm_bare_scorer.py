"""A tiny random Qwen3-VL-Reranker under a real vLLM, served without the template that it needs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from fieldscope.service.cli.main import cli
from tests.vllm.server import AS_A_RERANKER, serving
from tests.vllm.tiny_checkpoints import make

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1800)]


def test_the_doctor_misses_the_template(tmp_path: Path) -> None:
    folder = make("qwen3-vl-reranker", tmp_path)
    with serving(folder, tmp_path / "server.log", *AS_A_RERANKER) as server:
        result = CliRunner().invoke(cli, ["doctor", "--scorer", f"{server.url}#{server.model}", "--json"])
    findings = {finding["name"]: finding for finding in json.loads(result.stdout)["findings"]}
    assert result.exit_code == 1
    assert findings["instruction"]["state"] in {"warn", "unknown"}, result.output
