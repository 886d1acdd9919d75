"""Python's garbage collector, told to look less often."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_SELDOM = (100_000, 50, 50)  # Python's own: after 700 new objects, each generation 10 times as seldom


@contextmanager
def seldom_collecting() -> Iterator[None]:
    """A replay keeps nearly all that it makes, in many small objects. To look through all of them again and again takes
    a third of its time, and finds nothing. Where pictures and tensors come and go it is worth its time."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*_SELDOM)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
