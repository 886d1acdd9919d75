"""`kill -9` of `fieldscope train-retriever`, as a user runs it: the same command goes on to the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.eval.killing import PATIENCE
from tests.retrieval.conftest import write_clip
from tests.slow.test_index_killed import ended, fieldscope, killed
from tests.training_files import write_training_files

pytestmark = [pytest.mark.slow, pytest.mark.timeout(6 * PATIENCE)]

STAGES = ("random", "mined", "texts")


def test_training_killed_in_each_stage_ends_with_the_identical_weights(tmp_path: Path) -> None:
    data, clip = write_training_files(tmp_path / "data"), write_clip(tmp_path / "clip")
    plan = ("--clip", clip, "--texts", data, "--steps", 120, "--text-steps", 120, "--batch", 8)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert ended(fieldscope(tmp_path, "train-retriever", data, "-o", whole, *plan)) == 0
    deaths = 0
    for stage in STAGES:
        begun = stopped / f"{stage}.checkpoint.safetensors"
        process = fieldscope(tmp_path, "train-retriever", data, "-o", stopped, *plan)
        deaths += killed(process, begun.exists) != 0
    assert deaths >= 1
    assert ended(fieldscope(tmp_path, "train-retriever", data, "-o", stopped, *plan)) == 0
    for stage in STAGES:
        weights = Path(stage) / "model.safetensors"
        assert (stopped / weights).read_bytes() == (whole / weights).read_bytes()
    assert not list(stopped.glob("*.checkpoint.safetensors"))
