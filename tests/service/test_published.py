"""INQUIRE's published answers through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fieldscope.eval.benchmarks.inquire_rerank import COLUMNS
from tests.service.conftest import Run

TEMPLATE = "USER: <image>\nDoes this picture show {}?\nASSISTANT:"
QUERIES = ("a red crab", "a red crab on snow")


@pytest.fixture
def copied(photos: Path, tmp_path: Path) -> Path:
    """A copy of a benchmark in INQUIRE-Rerank's shape: the first stage likes the wrong image best."""
    picture = (photos / "red.png").read_bytes()
    rows = [
        dict.fromkeys(COLUMNS, "")
        | {
            "image": {"bytes": picture, "path": None}, "query": query, "relevant": int(n == place),
            "clip_score": 0.5 - n / 10, "inat24_image_id": n, "inat24_file_name": f"train/{n:05}_Cancer/{n}.jpg",
        }
        for place, query in enumerate(QUERIES, start=1)
        for n in range(3)
    ]  # fmt: skip
    folder = tmp_path / "inquire"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "test-00000-of-00001.parquet")
    return folder


def saved(path: Path, answers: dict[tuple[int, str], float]) -> Path:
    cache = {f"train/{n:05}_Cancer/{n}.jpg--{TEMPLATE.format(query)}": p for (n, query), p in answers.items()}
    np.save(path, np.array(cache, dtype=object))
    return path


def test_published_answers_are_ranked_and_told_in_their_own_words(run: Run, copied: Path, tmp_path: Path) -> None:
    answers = {(n, query): 0.9 if n == place else 0.2 for place, query in enumerate(QUERIES, 1) for n in range(3)}
    del answers[2, QUERIES[0]]
    file = saved(tmp_path / "llava--cache.npy", answers)
    result = run("published", file, copied, "--strategy", "yes-no", "yes-no-fused", "-o", tmp_path / "o", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)["runs"]
    assert [(each["strategy"], each["metrics"]["MRR"], each["unknown"]) for each in told] == [
        ("yes-no", 1.0, 1), ("yes-no-fused", 1.0, 1),
    ]  # fmt: skip
    traced = json.loads(run("trace", tmp_path / "o" / "yes-no", "q001", "--json").stdout)
    assert traced["predicates"][0]["question"] == TEMPLATE.format(QUERIES[1])
    assert any("published" in flag for flag in traced["flags"])


def test_what_was_not_published_can_not_be_ranked(run: Run, copied: Path, tmp_path: Path) -> None:
    file = saved(tmp_path / "llava--cache.npy", {(0, QUERIES[0]): 0.5})
    result = run("published", file, copied, "--strategy", "agent", "-o", tmp_path / "o")
    assert result.exit_code == 1 and "asks questions without published answers" in result.stderr
    (tmp_path / "no.npy").write_bytes(b"nothing")
    result = run("published", tmp_path / "no.npy", copied, "-o", tmp_path / "o")
    assert result.exit_code == 1 and "not one of INQUIRE's caches" in result.stderr
