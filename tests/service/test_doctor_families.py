"""`fieldscope doctor` on checkpoints of real families in this process: random ones, which see nothing, but answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from fieldscope.service.cli.main import cli
from tests.vllm.tiny_checkpoints import make

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

FAMILIES = ("qwen2.5-vl", "qwen3-vl", "internvl3", "llava-onevision", "gemma3", "idefics3")
