"""A memory of the last used values, bounded in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class ByteLru(Generic[Value]):
    """The most recently used values, up to `max_bytes` together; the newest one stays whatever its size.

    Safe to use from several threads.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held_bytes = 0
        self._entries: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Value | None:
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key][0]

    def put(self, key: Hashable, value: Value, size_bytes: int) -> None:
        with self._lock:
            _, replaced_bytes = self._entries.pop(key, (None, 0))
            self._entries[key] = (value, size_bytes)
            self._held_bytes += size_bytes - replaced_bytes
            while self._held_bytes > self._max_bytes and len(self._entries) > 1:
                _, (_, dropped_bytes) = self._entries.popitem(last=False)
                self._held_bytes -= dropped_bytes
