"""INQUIRE's pickled answers, read without running anything in them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldscope.core.errors import BenchmarkError
from fieldscope.eval.benchmarks.inquire_cache import answers_to, read_published_cache


def saved(path: Path, value: Any) -> Path:
    np.save(path, value)
    return path


def chat(**logprobs: float) -> dict[str, Any]:
    top = [{"token": token, "logprob": value, "bytes": None} for token, value in logprobs.items()]
    return {"choices": [{"logprobs": {"content": [{"token": "Yes", "top_logprobs": top}]}, "index": 0}], "id": "x"}


def test_floats_and_chat_completions_become_probabilities(tmp_path: Path) -> None:
    cache = {
        "a.jpg--Does this show a crab?": 0.75,
        "b.jpg--Does this show a crab?": np.float64(0.25),
        "c.jpg--Does this show a crab?": np.float32(0.5),
        "d.jpg--Does this show a crab?": chat(Yes=np.log(0.6), No=np.log(0.2)),
        "e.jpg--Does this show a crab?": {"error": "refused"},
        "f.jpg--Does this show a crab?": 1.0,
        "g.jpg--Does this show a crab?": 7.0,
    }
    found = read_published_cache(saved(tmp_path / "llava--cache.npy", cache))
    values = [found[key] for key in cache]
    assert values[:4] == pytest.approx([0.75, 0.25, 0.5, 0.75])
    assert (values[4], values[6]) == (None, None)
    assert values[5] is not None and 0.999 < values[5] < 1.0


def test_queries_are_found_in_their_template_and_not_in_one_another(tmp_path: Path) -> None:
    cache = {f"{image}--show {query}? yes or no": p for image, query, p in [
        ("a", "a crab", 0.9), ("a", "a crab on snow", 0.1), ("b", "a crab", 0.2), ("c", "an owl", 0.3),
    ]}  # fmt: skip
    found = answers_to(cache, ["a crab", "a crab on snow", "a fish"])
    assert found.template == ("show ", "? yes or no")
    assert dict(found.answers) == {("a", "a crab"): 0.9, ("a", "a crab on snow"): 0.1, ("b", "a crab"): 0.2}
    assert found.prompt("a fish") == "show a fish? yes or no"
    with pytest.raises(BenchmarkError, match="Name the answers to this benchmark"):
        answers_to(cache, ["a beetle"])


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_malicious_pickle_does_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for value in (np.array(Hostile(mark), dtype=object), {"a--b": Hostile(mark)}, {Hostile(mark): 1.0}):
        path = saved(tmp_path / "evil.npy", value)
        with pytest.raises(BenchmarkError, match="Nothing in it was executed"):
            read_published_cache(path)
    assert not mark.exists()
    np.load(path, allow_pickle=True)  # it would have
    assert mark.exists()


@pytest.mark.parametrize("call", ["os.system", "builtins.eval", "numpy.fromfile", "numpy.core.multiarray.fromfile"])
def test_no_other_name_is_looked_up(tmp_path: Path, call: str) -> None:
    module, _, name = call.rpartition(".")
    body = f"c{module}\n{name}\n(S'x'\ntR.".encode()
    head = saved(tmp_path / "x.npy", np.array({"a--b": 1.0}, dtype=object)).read_bytes()
    (tmp_path / "x.npy").write_bytes(head[: head.index(b"\n") + 1] + body)
    with pytest.raises(BenchmarkError, match=f"it refers to {call}"):
        read_published_cache(tmp_path / "x.npy")


@pytest.mark.parametrize(
    "value", [np.arange(3.0), np.array([{"a--b": 1.0}], dtype=object), np.array("text", dtype=object), {"no key": 1.0}]
)
def test_other_files_are_no_caches(tmp_path: Path, value: Any) -> None:
    with pytest.raises(BenchmarkError, match="not one of INQUIRE's caches"):
        read_published_cache(saved(tmp_path / "x.npy", value))


def test_damaged_files_are_no_caches(tmp_path: Path) -> None:
    whole = saved(tmp_path / "x.npy", {f"{n}--b": 0.5 for n in range(50)}).read_bytes()
    for text in (whole[:-40], whole[:60], b"", b"PK\x03\x04", pickle.dumps({"a--b": 1.0})):
        (tmp_path / "x.npy").write_bytes(text)
        with pytest.raises(BenchmarkError, match="is not one of"):
            read_published_cache(tmp_path / "x.npy")
    with pytest.raises(BenchmarkError, match="can't be read"):
        read_published_cache(tmp_path / "gone.npy")
