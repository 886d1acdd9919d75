"""The names of splits: which one a user means, and the default."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from fieldscope.core.errors import BenchmarkError

WHOLE = "all"
"""The split of files that name none."""

_ALIASES = {"val": "validation"}
_PREFERRED = ("test", "validation", "train")


def canonical(split: str) -> str:
    """One name for each split: `val` is `validation`."""
    return _ALIASES.get(split.lower(), split.lower())


def wanted_split(split: str | None, available: Collection[str]) -> str:
    """The split that was asked for or, where none was, test if there is one, then validation, then train."""
    return canonical(split) if split else next((name for name in _PREFERRED if name in available), WHOLE)


def require_split(path: Path, split: str, available: Collection[str]) -> None:
    """Raise `BenchmarkError` where the files at `path` do not have this split."""
    if split not in available:
        raise BenchmarkError(f"{path} has no split {split!r}. Use one of {', '.join(sorted(available))}.")
