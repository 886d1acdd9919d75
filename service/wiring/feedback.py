"""What a workflow says while it works: warnings, notes and progress. Silent, unless a caller listens.

The command line listens with a terminal (`service/cli/console.py`). A caller in Python passes its own `Feedback` to
`listening`, or nothing. The choice holds for the current context: asyncio tasks and worker threads inherit it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from fieldscope.eval.progress import Progress
    from fieldscope.retrieval.progress import Report


class Feedback(Protocol):
    """Who receives what a workflow says."""

    def warn(self, message: str) -> None:
        """One line about something that makes a result worth less."""
        ...

    def note(self, message: str) -> None:
        """One line of information."""
        ...

    def error(self, message: str) -> None:
        """One line that says why the work ends, before the exception that ends it."""
        ...

    def progress(self, title: str) -> AbstractContextManager[Report]:
        """A bar for work that takes long; the report takes the amount done and the total."""
        ...

    def run_progress(self) -> AbstractContextManager[Progress | None]:
        """A bar for each run of an evaluation, with its cost; None where nothing is shown."""
        ...


class Silent:
    """Feedback that is dropped."""

    def warn(self, message: str) -> None:
        pass

    def note(self, message: str) -> None:
        pass

    def error(self, message: str) -> None:
        pass

    def progress(self, title: str) -> AbstractContextManager[Report]:
        return nullcontext(lambda done, total: None)

    def run_progress(self) -> AbstractContextManager[Progress | None]:
        return nullcontext(None)


_listener: ContextVar[Feedback] = ContextVar("feedback", default=Silent())  # noqa: B039  it holds no state


@contextmanager
def listening(feedback: Feedback) -> Iterator[None]:
    """Send all warnings, notes and progress of this context to `feedback`."""
    token = _listener.set(feedback)
    try:
        yield
    finally:
        _listener.reset(token)


def warn(message: str) -> None:
    """One line about something that makes a result worth less."""
    _listener.get().warn(message)


def note(message: str) -> None:
    """One line of information."""
    _listener.get().note(message)


def error(message: str) -> None:
    """One line that says why the work ends, before the exception that ends it."""
    _listener.get().error(message)


def progress(title: str) -> AbstractContextManager[Report]:
    """A bar for work that takes long; it appears with the first report."""
    return _listener.get().progress(title)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, and the user was told already what is kept."""


def run_progress() -> AbstractContextManager[Progress | None]:
    """A bar for each run of an evaluation, with its cost."""
    return _listener.get().run_progress()


class _Once:
    """Passes feedback on, but no warning or note a second time."""

    def __init__(self, listener: Feedback) -> None:
        self._listener = listener
        self._said: set[str] = set()
        self.error, self.progress, self.run_progress = listener.error, listener.progress, listener.run_progress

    def warn(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            self._listener.warn(message)

    def note(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            self._listener.note(message)


@contextmanager
def saying_once() -> Iterator[None]:
    """Drop warnings and notes that were given before in this context, such as those about files that are opened several
    times."""
    with listening(_Once(_listener.get())):
        yield


@contextmanager
def keeping(what: str) -> Iterator[None]:
    """Let an interruption say what is kept."""
    try:
        yield
    except Interrupted:
        raise
    except KeyboardInterrupt:
        raise KeyboardInterrupt(what) from None


def spelled(text: str) -> str:
    """The text with whatever a terminal would not show as itself, such as control characters, spelled out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def program() -> str:
    """How the user can call this program again: its name where that is on PATH, else its file."""
    called = Path(sys.argv[0])
    if called.name != "fieldscope":
        return "fieldscope"
    on_path = shutil.which(called.name)
    if on_path is not None and Path(on_path).resolve() == called.resolve():
        return called.name
    return shlex.quote(os.path.relpath(called) if called.is_relative_to(Path.cwd()) else str(called))
