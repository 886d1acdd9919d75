"""`kill -9` of training, in each stage: the same call goes on to the same weights, bit for bit."""

from __future__ import annotations

import multiprocessing
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from tests.eval.killing import PATIENCE
from tests.retrieval.conftest import write_clip
from tests.slow.killable_training import train
from tests.training_files import write_training_files

pytestmark = [pytest.mark.slow, pytest.mark.timeout(10 * PATIENCE)]

STAGES = ("random", "mined", "texts")
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.slow.killable_training"])


def started(*arguments: Path) -> BaseProcess:
    process = FORKS.Process(target=train, args=arguments)
    process.start()
    return process


def test_training_killed_in_each_stage_ends_with_the_identical_weights(tmp_path: Path) -> None:
    data, clip = write_training_files(tmp_path / "data"), write_clip(tmp_path / "clip")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    straight = started(data, clip, whole)
    deaths = 0
    for stage in STAGES:
        process = started(data, clip, stopped)
        while process.is_alive() and not (stopped / f"{stage}.checkpoint.safetensors").exists():
            time.sleep(0.002)
        process.kill()
        process.join(PATIENCE)
        deaths += process.exitcode == -signal.SIGKILL
    assert deaths == len(STAGES)
    assert (stopped / "texts.checkpoint.safetensors").exists()
    last = started(data, clip, stopped)
    for process in (straight, last):
        process.join(4 * PATIENCE)
        assert process.exitcode == 0
    for stage in STAGES:
        weights = Path(stage) / "model.safetensors"
        assert (stopped / weights).read_bytes() == (whole / weights).read_bytes()
    assert not list(stopped.glob("*.checkpoint.safetensors"))
