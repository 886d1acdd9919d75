"""Which kind of index a collection gets, by its size and the memory that it may take."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Literal

from fieldscope.core.errors import ConfigError

MEMORY = 3_000_000_000
"""Bytes that an index may take, unless a user says otherwise."""

_VARIABLE = "FIELDSCOPE_INDEX_MEMORY"

_CODES = (64, 32, 16)
"""Bytes of a product code, best first. Longer ones gain little: the best candidates are scored again exactly."""

_BESIDE = 12
"""Bytes beside each code: the vector's row in its list, and room for the lists to grow by."""

_SHARE = 2
"""Codes take at most one part of so many of the memory. The rest is for building the lists, and for searches."""


@dataclass(frozen=True)
class IndexPlan:
    """`flat` is exact and holds all vectors; `sq` and `pq` hold codes in so many `lists`, one byte for each number of a
    vector, or `code_bytes` in all, and read vectors from a file. `memory_bytes` is about what the index takes."""

    kind: Literal["flat", "sq", "pq"]
    memory_bytes: int
    lists: int = 0
    code_bytes: int = 0


def index_memory() -> int:
    """The bytes that an index may take: FIELDSCOPE_INDEX_MEMORY gigabytes, 3 where that is not set. Raises
    `ConfigError` where it is no such number."""
    text = os.environ.get(_VARIABLE, "")
    try:
        memory = float(text) * 1e9 if text else MEMORY
    except ValueError:
        memory = 0.0
    if not 0 < memory < math.inf:
        raise ConfigError(f"{_VARIABLE} is {text!r}; set it to a number of gigabytes, such as 3")
    return int(memory)


def plan_index(count: int, dim: int, memory: int = MEMORY) -> IndexPlan:
    """The most exact index of `count` vectors of length `dim` that fits into `memory` bytes. Raises `ConfigError` where
    none does."""
    if (flat := 4 * count * dim) <= memory:
        return IndexPlan("flat", flat)
    lists = lists_for(count)
    centres = 4 * lists * dim
    for kind, size in (("sq", dim), *(("pq", size) for size in _CODES if size <= dim // 2)):
        taken = count * (size + _BESIDE) + centres
        if taken <= memory // _SHARE:
            return IndexPlan("sq" if kind == "sq" else "pq", taken, lists, 0 if kind == "sq" else size)
    least = _SHARE * (count * (_CODES[-1] + _BESIDE) + centres)
    raise ConfigError(
        f"an index of {count:,} vectors of length {dim} takes {least / 1e9:.1f} GB at least, and may take"
        f" {memory / 1e9:.1f} GB; allow it more with {_VARIABLE}"
    )


def lists_for(count: int) -> int:
    """How many inverted lists a collection gets: the power of two nearest to twice the root of its size."""
    return 1 << max(round(math.log2(2 * math.sqrt(count))), 4)
