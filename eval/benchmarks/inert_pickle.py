"""Pickles of published results, read without running anything in them.

A pickle can run any code when it is opened. Here nothing in it is ever called: the few names that such a file may hold
stand for plain records, and any other name is refused.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from fieldscope.core.errors import BenchmarkError

MOST_BYTES = 1_000_000_000

_NUMBERS = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "b1": "?"}


class Array:
    """What a pickled NumPy array becomes: its items, and nothing else."""

    items: Any = None

    def __setstate__(self, state: Any) -> None:
        self.items = state[-1]


class Dtype:
    """What a pickled number's type becomes: its code, such as `f8`, and its byte order."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code, self.order = str(code), "<"

    def __setstate__(self, state: Any) -> None:
        self.order = ">" if state[1] == ">" else "<"


class Inert:
    """What stands for an object that only has to be skipped: it takes all that a pickle gives it, and keeps nothing."""

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        """Skip an item of a list."""

    def extend(self, items: Any) -> None:
        """Skip items of a list."""


def scalar(dtype: Any, data: Any) -> float:
    """A number of NumPy's. Raises `UnpicklingError` for a kind that no published result has."""
    if not isinstance(dtype, Dtype) or dtype.code not in _NUMBERS or not isinstance(data, bytes):
        raise pickle.UnpicklingError("it holds a number of an unknown kind")
    return float(struct.unpack(dtype.order + _NUMBERS[dtype.code], data)[0])


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1") or not isinstance(text, str):
        raise pickle.UnpicklingError("it holds bytes of an unknown kind")
    return text.encode("latin1")


def _array(*_: Any) -> Array:
    return Array()


NUMPY: Mapping[tuple[str, str], Any] = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): scalar for core in ("core", "_core")},
    ("numpy", "ndarray"): Array,
    ("numpy", "dtype"): Dtype,
    ("_codecs", "encode"): _encode,
}
"""What stands for NumPy's names."""

FAULTS = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, LookupError, ImportError, MemoryError,
    OverflowError, RecursionError, struct.error,
)  # fmt: skip
"""Whatever the opcodes of a damaged or hostile pickle can lead to."""


class Reader(pickle.Unpickler):
    """Reads one pickle from a file. `names` has what stands for each name by module and name; `skipped` says of which
    modules every object is skipped; `persistent` gives what a persistent id stands for."""

    def __init__(
        self,
        file: BinaryIO,
        names: Mapping[tuple[str, str], Any],
        skipped: Callable[[str, str], bool] = lambda module, name: False,
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__(file)
        self._names, self._skipped, self._persistent = names, skipped, persistent

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._names:
            return self._names[module, name]
        if self._skipped(module, name):
            return Inert
        raise pickle.UnpicklingError(f"it refers to {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        if self._persistent is None:
            raise pickle.UnpicklingError("it points outside of itself")
        return self._persistent(pid)


def read_inert(path: Path, read: Callable[[BinaryIO], Any], what: str) -> Any:
    """What `read` makes of a file. `what` is the kind of file that it should be, in words.

    Raises `BenchmarkError` for a file that is none, holds anything but plain values, or is too large.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BenchmarkError(
                f"{path} is larger than {MOST_BYTES:,} bytes, too large for {what}. Name one of INQUIRE's caches."
            )
        with path.open("rb") as file:
            return read(file)
    except BenchmarkError:
        raise
    except OSError as error:
        raise BenchmarkError(f"{path} can't be read: {error.strerror or error}. Check the file.") from error
    except FAULTS as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BenchmarkError(
            f"{path} is not one of INQUIRE's caches ({reason}). Nothing in it was executed; fetch the file again."
        ) from error
