"""Asynchronous work of one command, and what Ctrl-C does to it."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from fieldscope.service.wiring.feedback import Interrupted, error, keeping

GRACE = 5.0
"""Seconds from Ctrl-C to the end of the process, whatever still runs. Most of them are for the calls in flight, whose
answers were paid for and go to the cache."""

FOR_CALLS = 0.8
"""Their share of it. The rest is for closing files and connections."""

INTERRUPTED = 130
"""The exit status after Ctrl-C, as shells have it."""

ANSWERS_KEPT = "answers so far are in the cache; rerun this command to continue"
"""What an interruption leaves of work that only asks a model."""

T = TypeVar("T")


def interruptible(work: Coroutine[Any, Any, T], kept: str) -> T:
    """Complete `work` in an event loop of its own.

    The first Ctrl-C says at once what is `kept` and cancels the work; the process ends as soon as that has closed what
    it holds, and after `GRACE` seconds in any case. A second Ctrl-C ends it at that moment: every file that Fieldscope
    writes survives a kill.
    """
    import asyncio  # a fifth of what `fieldscope --help` takes

    presses = 0

    def press(*_: object) -> None:
        nonlocal presses
        presses += 1
        if presses > 1:
            os._exit(INTERRUPTED)
        end = threading.Timer(GRACE, os._exit, [INTERRUPTED])
        end.daemon = True
        end.start()
        loop.call_soon_threadsafe(stop)

    def stop() -> None:
        error(f"interrupted; {kept}. Running calls have up to {GRACE:g} s to finish; press Ctrl-C again to end now")
        # LangGraph leaves the coroutines of tasks that are cancelled before they began.
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        task.cancel()

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        task = loop.create_task(work)
        with _on_interrupt(press):
            try:
                with keeping(kept):
                    return loop.run_until_complete(task)
            except BaseException:
                if presses:
                    raise Interrupted from None
                raise


@contextmanager
def _on_interrupt(press: Callable[..., None]) -> Iterator[None]:
    """Where Ctrl-C would raise `KeyboardInterrupt`, call `press` instead. After a first press that stays so: the loop
    is closed behind this, and a second press must not wait for it."""
    pressed = False

    def noted(*of: object) -> None:
        nonlocal pressed
        pressed = True
        press(*of)

    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, noted)
    try:
        yield
    finally:
        if not pressed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
