"""`kill -9` at random moments of the whole agent: what was asked is never asked again, and the results are the same."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from fieldscope.agent.types import RerankResult
from fieldscope.eval.runs.read import read_results
from tests.agent.oracle import paint
from tests.eval.killable_agent import QUERIES, main
from tests.eval.killing import PATIENCE, Killable, committed, kill_again_and_again, run_killable

OF_THE_PROCESS = {"cached", "latency", "at"}  # what may differ between two runs


@pytest.mark.timeout(3 * PATIENCE)
@pytest.mark.parametrize(
    ("strategy", "max_calls", "kills", "latest"),
    [("agent", 0, 3, 40), ("agent", 12, 2, 12), ("pairwise", 7, 2, 8)],
)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, strategy: str, max_calls: int, kills: int, latest: int
) -> None:
    """It is killed `kills` times, each after up to `latest` further calls."""
    whole, killed, pictures = (tmp_path / name for name in ("whole", "killed", "pictures"))
    for folder in (whole, killed, pictures):
        folder.mkdir()
    paint(pictures)

    def start(folder: Path, most: int) -> Killable:
        return run_killable(main, strategy, max_calls, pictures, folder, most)

    undisturbed = start(whole, sys.maxsize)
    ever_asked = kill_again_and_again(start, killed, kills, 1, latest)
    asked = undisturbed.calls()
    assert undisturbed.ended() == 0
    assert ever_asked == set(asked) == committed(killed / "cache.sqlite")
    found, expected = (read_results(folder / "out" / strategy) for folder in (killed, whole))
    assert len(expected) == QUERIES
    assert found.keys() == expected.keys()
    for query_id, result in expected.items():
        assert_alike(told(found[query_id]), told(result), query_id)
        assert (len(result.asked) == max_calls and result.ended is not None) == (max_calls > 0)
    if strategy == "agent" and not max_calls:
        assert all(result.verdicts and result.reasons for result in expected.values())
        assert any(result.comparisons for result in expected.values())


def told(result: RerankResult) -> Any:
    """The whole result with its trace, without what is the process' own."""
    return _without(result.model_dump(mode="json"))


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without(part) for key, part in value.items() if key not in OF_THE_PROCESS}
    return [_without(part) for part in value] if isinstance(value, list) else value


def assert_alike(found: Any, expected: Any, where: str) -> None:
    """The same keys, words and counts in the same order, and the same numbers to 1e-9."""
    if isinstance(expected, dict):
        assert isinstance(found, dict) and list(found) == list(expected), where
        for key, value in expected.items():
            assert_alike(found[key], value, f"{where}.{key}")
    elif isinstance(expected, list):
        assert isinstance(found, list) and len(found) == len(expected), where
        for at, value in enumerate(expected):
            assert_alike(found[at], value, f"{where}.{at}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=1e-9), where
    else:
        assert found == expected, where
