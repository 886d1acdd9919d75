"""`fieldscope doctor` on checkpoints of real families in this process: random ones, which answer and see nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from fieldscope.service.cli.main import cli
from tests.vllm.tiny_checkpoints import make

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

FAMILIES = ("qwen2.5-vl", "qwen3-vl", "internvl3", "llava-onevision", "gemma3", "idefics3")
ONCE = {"internvl3", "llava-onevision", "idefics3"}
"""Families whose images are read once for all questions."""

OF_WHAT_IT_SAYS = {
    "answer format", "yes/no spellings", "image seen", "edges seen", "several images", "JSON schema", "ways to P(yes)",
    "joint answers",
}  # fmt: skip
"""Checks that a model of random words may fail."""


@pytest.mark.parametrize("family", FAMILIES)
def test_the_doctor_runs_whole_and_finds_no_fault_of_the_client(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)  # in bfloat16 an answer depends on its batch
    folder = make(family, tmp_path)
    result = CliRunner().invoke(cli, ["doctor", "--lmm", f"path:{folder}", "--json"], catch_exceptions=False)
    findings = {finding["name"]: finding for finding in json.loads(result.stdout)["findings"]}
    assert list(findings)[-1] == "throughput", "the last check"
    others = {name: finding["state"] for name, finding in findings.items() if name not in OF_WHAT_IT_SAYS}
    assert others.pop("prefix caching") == ("ok" if family in ONCE else "warn"), findings
    assert set(others.values()) == {"ok"}, findings
    assert findings["top log-probabilities"]["seen"] == "20 of 20"
    for finding in findings.values():
        assert "gave no answer" not in finding["seen"], finding
        assert "chat template" not in finding["seen"], finding
