"""Warnings that point at the line of the caller's program."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from fieldscope.core.errors import FieldscopeWarning

_PACKAGE = __name__.partition(".")[0]
_kept: ContextVar[list[str] | None] = ContextVar("kept_warnings", default=None)


def warn_caller(messages: Iterable[str]) -> None:
    """Issue a `FieldscopeWarning` for each message, at the nearest line outside of this package."""
    kept = _kept.get()
    if kept is not None:
        kept.extend(messages)
        return
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        level, frame = level + 1, frame.f_back
    for message in messages:
        warnings.warn(message, FieldscopeWarning, stacklevel=level)


@contextmanager
def keeping_warnings() -> Iterator[list[str]]:
    """Keep the warnings that are issued within, for a thread whose stack has the caller in it."""
    kept: list[str] = []
    token = _kept.set(kept)
    try:
        yield kept
    finally:
        _kept.reset(token)
