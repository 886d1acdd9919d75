"""CSV files that people made: read strictly, with headings taken tolerantly."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from fieldscope.core.errors import BenchmarkError


def header(names: Sequence[str]) -> list[str]:
    """Headings as one spelling: `Iconic group` is `iconic_group`."""
    return ["_".join(name.strip().lower().replace("-", " ").replace("_", " ").split()) for name in names]


def read_rows(path: Path, delimiter: str | None = ",") -> Iterator[tuple[int, list[str]]]:
    """Line numbers (from 1) and values of a UTF-8 file; empty lines are left out. Without a delimiter a line is one
    value. Raises `BenchmarkError`."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            if delimiter is None:
                yield from ((number, [line.strip()]) for number, line in enumerate(stream, start=1) if line.strip())
                return
            rows = csv.reader(stream, delimiter=delimiter, strict=True)
            yield from ((rows.line_num, row) for row in rows if row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or ("not UTF-8 text" if isinstance(error, ValueError) else error)
        raise BenchmarkError(f"{str(path)!r} can't be read ({reason}); check the file") from error


def read_table(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and the values of these columns, empty where an optional one is not there.

    Raises `BenchmarkError` for a missing column, and for lines with more or fewer values than headings.
    """
    rows = read_rows(path)
    names = header(next(rows, (1, []))[1])
    if missing := [column for column in columns if column not in names]:
        raise BenchmarkError(
            f"{str(path)!r} lacks {', '.join(missing)}; its columns are {', '.join(names) or 'none'}. Add them."
        )
    places = [names.index(c) if c in names else None for c in (*columns, *optional)]
    for number, row in rows:
        if len(row) != len(names):
            raise BenchmarkError(
                f"{str(path)!r}, line {number}: {len(row)} values under {len(names)} headings. Correct the file."
            )
        yield number, ["" if place is None else row[place] for place in places]
