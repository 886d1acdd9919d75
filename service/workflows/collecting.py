"""Python's garbage collector, run less often."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_SELDOM = (1_000_000, 50, 50)  # Python's own: after 700 new objects, each generation 10 times as seldom


@contextmanager
def seldom_collecting() -> Iterator[None]:
    """Collect less often. A replay keeps nearly all of its many small objects: looking through them again and again
    takes a third of its time and frees nothing. Work with images and tensors should not use this."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*_SELDOM)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
