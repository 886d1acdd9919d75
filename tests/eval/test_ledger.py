"""The ledger of test scores: what counts, what counts once, and what a kill leaves."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fieldscope.agent.graph import Agent
from fieldscope.agent.lmm.base import LMMRequest
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.core.errors import ConfigError
from fieldscope.core.paths import cache_folder
from fieldscope.eval.harness import evaluate
from fieldscope.eval.runs.ledger import Ledger
from fieldscope.eval.types import Benchmark


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "cache" / "ledger.jsonl")


def test_runs_are_counted_once_by_strategy_and_benchmark(ledger: Ledger) -> None:
    assert ledger.score("b", "test", "one", "run 1") == 1
    assert ledger.score("b", "test", "one", "run 1") == 1
    assert ledger.score("b", "test", "one", "run 2") == 2
    assert ledger.score("b", "test", "two", "run 3") == 1
    assert ledger.score("c", "test", "one", "run 4") == 1
    assert ledger.score("b", "all", "one", "run 5") == 3  # files that name no split may be a test split
    assert len(ledger.path.read_text().splitlines()) == 5


def test_a_strategy_after_another_first_stage_is_counted_apart(ledger: Ledger) -> None:
    ledger.path.parent.mkdir(parents=True)
    ledger.path.write_text('{"benchmark":"b","strategy":"one","run":"of an earlier version"}\n')
    assert ledger.score("b", "test", "one", "run 2", "encoder a") == 2
    assert ledger.score("b", "test", "one", "run 3", "encoder b") == 2
    assert ledger.score("b", "test", "one", "run 4", "encoder b") == 3
    assert ledger.score("b", "test", "one", "run 5") == 2


def test_a_split_that_may_decide_is_not_counted(ledger: Ledger) -> None:
    assert ledger.score("b", "validation", "one", "run 1") == 0
    assert not ledger.path.exists()
    ledger.score("b", "test", "one", "run 2")
    assert ledger.score("b", "validation", "one", "run 1") == 1
    assert len(ledger.path.read_text().splitlines()) == 1


def test_what_is_written_stays_and_a_cut_line_counts_for_nothing(ledger: Ledger) -> None:
    ledger.score("b", "test", "one", "run 1")
    before = ledger.path.read_bytes()
    ledger.path.write_bytes(before + b'{"benchmark":"b","strategy":"one","ru')
    assert ledger.score("b", "test", "one", "run 2") == 2
    assert ledger.score("b", "test", "one", "run 2") == 2
    after = ledger.path.read_bytes()
    assert after.startswith(before)
    assert json.loads(after.splitlines()[-1]) == {"benchmark": "b", "strategy": "one", "run": "run 2"}


def _score_many(path: Path, process: int) -> None:
    for number in range(25):
        Ledger(path).score("b", "test", "one", f"{process}-{number}")


def test_several_processes_count_at_once(ledger: Ledger) -> None:
    spawn = multiprocessing.get_context("fork")
    processes = [spawn.Process(target=_score_many, args=(ledger.path, number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert ledger.score("b", "test", "one", "last") == 101
    assert len(ledger.path.read_text().splitlines()) == 101


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_folder_that_can_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="FIELDSCOPE_CACHE"):
        Ledger(tmp_path / "x" / "ledger.jsonl").score("b", "test", "one", "run")


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(ConfigError, match="FIELDSCOPE_CACHE"):
        Ledger(tmp_path / "cache" / "ledger.jsonl").score("b", "test", "one", "run")


async def test_a_run_that_was_stopped_and_went_on_counts_once(
    bench: Benchmark, make_lmm: Callable[..., ScriptedLMM], tmp_path: Path
) -> None:
    truthful = make_lmm(bench.images)

    class Stop(BaseException):
        pass

    class Stopping(ScriptedLMM):
        async def generate(self, request: LMMRequest) -> Any:
            self.left -= 1
            if self.left < 0:
                raise Stop
            return await truthful.generate(request)

        left = 20

    stopping = Stopping(lambda request: 0.5, identity=truthful.identity)
    strategy = load_strategy("yes-no", prompts="fieldnotes")
    path = cache_folder() / "scored-on-test.jsonl"
    with pytest.raises((Stop, BaseExceptionGroup)):
        await evaluate(bench, [Agent(Resources(bench.images, stopping), strategy)], tmp_path, query_concurrency=1)
    assert not path.exists()
    assert json.loads((tmp_path / "yes-no" / "manifest.json").read_text())["scored_on_test"] == 0
    agent = Agent(Resources(bench.images, truthful), strategy)
    for _ in range(2):
        (summary,) = await evaluate(bench, [agent], tmp_path)
        manifest = json.loads((tmp_path / "yes-no" / "manifest.json").read_text())
        assert (summary.scored_on_test, manifest["scored_on_test"]) == (1, 1)
    (line,) = path.read_text().splitlines()
    assert json.loads(line) == {"benchmark": bench.name, "strategy": strategy.fingerprint, "run": manifest["run"]}
    (again,) = await evaluate(bench, [agent], tmp_path / "elsewhere")
    assert again.scored_on_test == 2
