"""Warnings that point at the line of the caller's program."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from fieldscope.core.errors import FieldscopeWarning
from fieldscope.service.wiring.feedback import Silent, listening

_PACKAGE = __name__.partition(".")[0]
_kept: ContextVar[list[str] | None] = ContextVar("kept_warnings", default=None)


class CallerWarnings(Silent):
    """Feedback that keeps warnings while work is done in `with`, and issues each once when it is done without error."""

    def __init__(self) -> None:
        self._messages: list[str] = []
        self._listening = listening(self)

    def warn(self, message: str) -> None:
        self._messages.append(message)

    def __enter__(self) -> None:
        self._listening.__enter__()

    def __exit__(self, *error: object) -> None:
        self._listening.__exit__(None, None, None)
        if error[0] is None:
            warn_caller(dict.fromkeys(self._messages))


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
