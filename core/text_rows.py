"""Millions of texts in a sequence that makes each when it is read: found by their hashes, and changed on the way."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

From = TypeVar("From")


class TextRows:
    """Where each text of a sequence stands, by its hash: 16 bytes a text, in memory or mapped from files."""

    def __init__(self, hashes: NDArray[np.uint64], rows: NDArray[np.int64]) -> None:
        """`hashes` in ascending order, and beside each the row of its text."""
        self.hashes = hashes
        self.rows = rows

    @classmethod
    def of(cls, texts: Iterable[str]) -> TextRows:
        """The rows of texts that are read once."""
        made = array("Q")
        made.extend(text_hash(text) for text in texts)
        return cls.of_hashes(np.frombuffer(made, np.uint64))

    @classmethod
    def of_hashes(cls, hashes: NDArray[np.uint64]) -> TextRows:
        """The rows of texts by their hashes, in the order of the texts."""
        rows = np.argsort(hashes, kind="stable").astype(np.int64)
        return cls(hashes[rows], rows)

    def find(self, text: str, texts: Sequence[str]) -> int | None:
        """The row of a text among `texts`; None where it is none of them."""
        wanted = np.uint64(text_hash(text))
        at = int(np.searchsorted(self.hashes, wanted))
        while at < len(self.hashes) and self.hashes[at] == wanted:
            if texts[int(self.rows[at])] == text:
                return int(self.rows[at])
            at += 1
        return None

    def repeated(self, texts: Sequence[str]) -> str | None:
        """A text that comes twice among `texts`; None where they all differ. Equal texts have equal hashes, which are
        neighbours."""
        for at in np.flatnonzero(self.hashes[1:] == self.hashes[:-1]):
            first, second = (texts[int(row)] for row in self.rows[at : at + 2])
            if first == second:
                return first
        return None


class LazyTexts(Sequence[str]):
    """A sequence that makes each text when it is read."""

    @abstractmethod
    def _text(self, row: int) -> str:
        """The text of a row from 0 on."""

    def _texts_of(self, rows: slice) -> list[str]:
        return [self._text(row) for row in range(*rows.indices(len(self)))]

    @overload
    def __getitem__(self, row: int) -> str: ...

    @overload
    def __getitem__(self, row: slice) -> list[str]: ...

    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return self._texts_of(row)
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        return self._text(row % len(self))


class MappedTexts(LazyTexts, Generic[From]):
    """Each of `texts` through a function, when it is read."""

    def __init__(self, change: Callable[[From], str], texts: Sequence[From]) -> None:
        self._change = change
        self._texts = texts

    def __len__(self) -> int:
        return len(self._texts)

    def _text(self, row: int) -> str:
        return self._change(self._texts[row])

    def _texts_of(self, rows: slice) -> list[str]:
        return [self._change(text) for text in self._texts[rows]]

    def __iter__(self) -> Iterator[str]:
        return map(self._change, self._texts)


class PairedTexts(Mapping[str, str]):
    """Key -> value, of two sequences of one length whose keys differ; neither becomes a dictionary."""

    def __init__(self, keys: Sequence[str], values: Sequence[str], rows: TextRows) -> None:
        self._keys = keys
        self._values = values
        self._rows = rows

    def __getitem__(self, key: str) -> str:
        row = self._rows.find(key, self._keys)
        if row is None:
            raise KeyError(key)
        return self._values[row]

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)


class ArrowTexts(LazyTexts):
    """A column of texts of an Arrow table, or of several such columns behind each other; "" for what is missing."""

    def __init__(self, column: Any) -> None:
        """`column` is a `pyarrow.ChunkedArray` of strings."""
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def _text(self, row: int) -> str:
        return self._column[row].as_py() or ""

    def _texts_of(self, rows: slice) -> list[str]:
        return [text or "" for text in self._column[rows].to_pylist()]

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _READ):
            yield from self[start : start + _READ]


_READ = 8192


def text_hash(text: str) -> int:
    """64 bits of a text."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
