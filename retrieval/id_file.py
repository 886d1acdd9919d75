"""Ids of a large collection in files: millions of them cost their bytes on the disk, and no Python object each."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from fieldscope.core.errors import IndexMismatchError
from fieldscope.core.files import replacing
from fieldscope.core.text_rows import LazyTexts, TextRows, text_hash

_TEXTS, _ENDS, _HASHES, _ROWS = "ids.txt", "ids-ends.npy", "ids-hashes.npy", "ids-rows.npy"
FILES = (_TEXTS, _ENDS, _HASHES, _ROWS)
"""The UTF-8 of all ids behind each other, where each ends, their sorted hashes, and the row of each hash."""


class IdFile(LazyTexts):
    """The ids in a folder, in their order, memory-mapped: by their row, and the row of an id by its hash.

    Raises `IndexMismatchError` where the files are missing or do not fit together.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self._texts = np.memmap(folder / _TEXTS, dtype=np.uint8, mode="r")
            self._ends, hashes, rows = (
                np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in (_ENDS, _HASHES, _ROWS)
            )
        except (OSError, ValueError, EOFError) as error:
            raise IndexMismatchError(f"the ids in {str(folder)!r} can't be read; build the index again") from error
        count = len(self._ends)
        if len(hashes) != count or len(rows) != count or not count or self._ends[-1] != len(self._texts):
            raise IndexMismatchError(f"the ids in {str(folder)!r} are damaged; build the index again")
        self._places = TextRows(hashes, rows)

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[str]:
        return map(self._text, range(len(self)))

    def __contains__(self, image_id: object) -> bool:
        return isinstance(image_id, str) and self.row(image_id) is not None

    def row(self, image_id: str) -> int | None:
        """Where an id stands; None where it is none of these."""
        return self._places.find(image_id, self)

    def _text(self, row: int) -> str:
        start = int(self._ends[row - 1]) if row else 0
        return self._texts[start : int(self._ends[row])].tobytes().decode("utf-8", "surrogatepass")


def write_ids(folder: Path, ids: Iterable[str]) -> IdFile:
    """Write ids in their order; some hundred bytes of each are in memory until then. Raises `IndexMismatchError` where
    one comes twice, `OSError` where the disk refuses."""
    ends, hashes = array("q"), array("Q")
    end = 0
    with replacing(folder / _TEXTS) as partial, partial.open("wb") as stream:
        for image_id in ids:
            text = image_id.encode("utf-8", "surrogatepass")
            stream.write(text)
            end += len(text)
            ends.append(end)
            hashes.append(text_hash(image_id))
    places = TextRows.of_hashes(np.frombuffer(hashes, np.uint64))
    for name, values in ((_ENDS, np.frombuffer(ends, np.int64)), (_HASHES, places.hashes), (_ROWS, places.rows)):
        with replacing(folder / name) as partial, partial.open("wb") as stream:
            np.save(stream, values, allow_pickle=False)
    written = IdFile(folder)
    if (twice := places.repeated(written)) is not None:
        raise IndexMismatchError(f"the id {twice!r} comes twice; give every image its own")
    return written
