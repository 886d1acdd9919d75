"""INQUIRE's pickled lists of the best images, read without running anything in them and without torch."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fieldscope.core.errors import BenchmarkError
from fieldscope.eval.benchmarks.inquire_top_k import RankedImages, is_top_k, read_top_k

SCORES = torch.tensor([0.9, 0.5, 0.5, 0.25])


def entry(scores: Any = SCORES, **more: Any) -> dict[str, Any]:
    matches = [{"image_path": f"train/a/{n}", "key": n} for n in range(len(scores))]
    return {"query": "a crab", "distances": scores, "indices": torch.arange(len(scores)), "matches": matches, **more}


def written(path: Path, value: Any, protocol: int = pickle.HIGHEST_PROTOCOL) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_tensors_of_every_kind(tmp_path: Path, kind: torch.dtype, protocol: int) -> None:
    path = written(tmp_path / "vit-l-14--top-1000.pkl", [entry(SCORES.to(kind))], protocol)
    found = read_top_k(path)["a crab"]
    assert found.scores == tuple(SCORES.to(kind).tolist())
    assert found.paths == ("train/a/0", "train/a/1", "train/a/2", "train/a/3")
    assert found.top(2) == RankedImages(("train/a/0", "train/a/1"), found.scores[:2])
    assert is_top_k(path)


def test_a_part_of_a_longer_tensor(tmp_path: Path) -> None:
    longer = torch.cat([torch.tensor([7.0, 8.0]), SCORES])
    assert read_top_k(written(tmp_path / "x.pkl", [entry(longer[2:])]))["a crab"].scores == tuple(SCORES.tolist())
    every_other = torch.stack([SCORES, -SCORES], dim=1)[:, 0]
    assert read_top_k(written(tmp_path / "x.pkl", [entry(every_other)]))["a crab"].scores == tuple(SCORES.tolist())


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    "value",
    [
        {"a": 1}, [], ["x"], [{"query": "q"}], [entry(torch.zeros(2, 2))], [entry(torch.tensor([float("nan")]))],
        [entry(matches=[{"image_path": "one"}])], [entry(query=3)],
    ],
    ids=["no list", "empty", "text", "a part", "a matrix", "no number", "one path", "no query"],
)  # fmt: skip
def test_other_files_are_no_lists(tmp_path: Path, value: Any) -> None:
    with pytest.raises(BenchmarkError, match="Nothing in it was executed"):
        read_top_k(written(tmp_path / "x.pkl", value))


def test_a_hostile_or_damaged_file_does_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for value in (Hostile(mark), [entry(query=Hostile(mark))], [entry(more=[Hostile(mark)])]):
        with pytest.raises(BenchmarkError, match="Nothing in it was executed"):
            read_top_k(written(tmp_path / "x.pkl", value))
    assert not mark.exists()
    whole = written(tmp_path / "x.pkl", [entry()]).read_bytes()
    for place in range(0, len(whole) - 1, 7):
        (tmp_path / "x.pkl").write_bytes(whole[:place])
        with pytest.raises(BenchmarkError):
            read_top_k(tmp_path / "x.pkl")


def test_torch_is_not_imported_for_it(tmp_path: Path) -> None:
    path = written(tmp_path / "x.pkl", [entry()])
    lines = (
        "import sys",
        "from pathlib import Path",
        "from fieldscope.eval.benchmarks.inquire_top_k import read_top_k",
        f"read_top_k(Path({str(path)!r}))",
        "assert 'torch' not in sys.modules",
    )
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)
