"""`kill -9` at random moments loses nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from fieldscope.agent.types import RerankResult
from tests.eval.killable_run import main
from tests.eval.killing import PATIENCE, Killable, committed, kill_again_and_again, lines, run_killable

KILLS = 5


def rankings(out: Path) -> dict[str, dict[str, float | None]]:
    """Query id -> image id -> P(match), in the order of the ranking."""
    results = [RerankResult.model_validate_json(line) for line in lines(out / "yes-no-fused" / "results.jsonl")]
    return {result.query_id: {found.image_id: found.p_match for found in result.ranking} for result in results}


@pytest.mark.timeout(3 * PATIENCE)
def test_killing_the_process_again_and_again_loses_nothing(rows: Any, write_parquet: Any, tmp_path: Path) -> None:
    parquet = write_parquet(rows)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()

    def start(folder: Path, most: int) -> Killable:
        return run_killable(main, parquet, folder, most)

    uninterrupted = start(whole, sys.maxsize)
    ever_asked = kill_again_and_again(start, killed, KILLS, 0, 9)
    asked = uninterrupted.calls()
    assert uninterrupted.ended() == 0
    assert ever_asked == set(asked) == committed(killed / "cache.sqlite")
    found, expected = rankings(killed / "out"), rankings(whole / "out")
    assert len(expected) == 5
    assert {query: list(p) for query, p in found.items()} == {query: list(p) for query, p in expected.items()}
    for query, p_match in expected.items():
        assert found[query] == pytest.approx(p_match, abs=1e-5)
