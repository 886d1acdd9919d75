"""INQUIRE's published answers of LMMs (arXiv 2411.02537): NumPy files that hold a pickled dictionary.

Its keys are an image's file name, `--` and the prompt; its values P(yes), or the chat completions of the GPT runs. A
pickle can run any code when it is opened. So nothing in it is ever called: the few names that such a file may hold
stand for plain records here, and any other name is refused.
"""

from __future__ import annotations

import pickle
import struct
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from numpy.lib import format as npy

from fieldscope.agent.lmm.base import TokenLogprob
from fieldscope.agent.lmm.yes_no import MAX_LOG_ODDS, p_yes
from fieldscope.core.errors import BenchmarkError

MOST_BYTES = 1_000_000_000
SEPARATOR = "--"

_NUMBERS = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i"}
_LEAST = 1.0 / (1.0 + 2.718281828459045**MAX_LOG_ODDS)


def read_published_cache(path: Path) -> dict[str, float | None]:
    """P(yes) by key, strictly between 0 and 1; None for an answer that can't be read.

    Raises `BenchmarkError` for a file that is no such cache, holds anything but plain values, or is too large.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BenchmarkError(
                f"{path} is larger than {MOST_BYTES:,} bytes, too large for a cache of answers. Name one of INQUIRE's "
                "caches."
            )
        with path.open("rb") as file:
            said = _dictionary(file)
    except BenchmarkError:
        raise
    except OSError as error:
        raise BenchmarkError(f"{path} can't be read: {error.strerror or error}. Check the file.") from error
    except _FAULTS as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BenchmarkError(
            f"{path} is not one of INQUIRE's caches ({reason}). Nothing in it was executed; fetch the file again."
        ) from error
    return {key: _p_of(value) for key, value in said.items()}


@dataclass(frozen=True)
class PublishedAnswers:
    """P(yes) by image file name and query, out of a cache whose prompts are one template around the query's words."""

    template: tuple[str, str]
    answers: Mapping[tuple[str, str], float | None]

    def prompt(self, query: str) -> str:
        """The prompt that was asked."""
        return query.join(self.template)


def answers_to(cache: Mapping[str, float | None], queries: Collection[str]) -> PublishedAnswers:
    """The answers to these query texts. The template is what most prompts leave when their query is taken out.

    Raises `BenchmarkError` where no prompt has any of the queries in it.
    """
    prompts = Counter(key.partition(SEPARATOR)[2] for key in cache)
    templates: Counter[tuple[str, str]] = Counter()
    for prompt, count in prompts.items():
        for query in queries:
            before, found, after = prompt.partition(query)
            if found:
                templates[before, after] += count
    if not templates:
        raise BenchmarkError(
            "none of the queries occurs in the prompts of these answers. Name the answers to this benchmark."
        )
    (before, after), _ = templates.most_common(1)[0]
    asked = {f"{before}{query}{after}": query for query in queries}
    split = {key: key.partition(SEPARATOR) for key in cache}
    answers = {(image, asked[prompt]): cache[key] for key, (image, _, prompt) in split.items() if prompt in asked}
    return PublishedAnswers((before, after), answers)


class _Array:
    """What a pickled array becomes: its state, and nothing else."""

    items: Any = None

    def __setstate__(self, state: Any) -> None:
        self.items = state[-1]


class _Dtype:
    """What a pickled number's type becomes: its code, such as `f8`, and its byte order."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code, self.order = str(code), "<"

    def __setstate__(self, state: Any) -> None:
        self.order = ">" if state[1] == ">" else "<"


def _scalar(dtype: Any, data: Any) -> float:
    if not isinstance(dtype, _Dtype) or dtype.code not in _NUMBERS or not isinstance(data, bytes):
        raise pickle.UnpicklingError("it holds a number of an unknown kind")
    return float(struct.unpack(dtype.order + _NUMBERS[dtype.code], data)[0])


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1") or not isinstance(text, str):
        raise pickle.UnpicklingError("it holds bytes of an unknown kind")
    return text.encode("latin1")


def _array(*_: Any) -> _Array:
    return _Array()


_STANDING_IN: Mapping[tuple[str, str], Any] = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STANDING_IN:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}")
        return _STANDING_IN[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it points outside of itself")


_FAULTS = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, LookupError, ImportError, MemoryError,
    OverflowError, RecursionError, struct.error,
)  # fmt: skip
"""Whatever the opcodes of a damaged or hostile pickle can lead to."""


def _dictionary(file: BinaryIO) -> dict[str, Any]:
    version = npy.read_magic(file)
    header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
    shape, _, dtype = header(file)
    if shape != () or not dtype.hasobject:
        raise ValueError("it is an array, and no dictionary")
    array = _Reader(file).load()
    items = array.items if isinstance(array, _Array) else None
    if not (isinstance(items, list) and len(items) == 1 and isinstance(items[0], dict)):
        raise ValueError("there is no dictionary in it")
    if not all(isinstance(key, str) and SEPARATOR in key for key in items[0]):
        raise ValueError("its keys are not image--prompt")
    return items[0]


def _p_of(value: Any) -> float | None:
    if isinstance(value, int | float):
        return min(max(float(value), _LEAST), 1.0 - _LEAST) if 0.0 <= value <= 1.0 else None
    try:
        found = value["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        return p_yes([TokenLogprob(token=str(one["token"]), logprob=float(one["logprob"])) for one in found]).p_yes
    except (LookupError, TypeError, ValueError):
        return None
