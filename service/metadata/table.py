"""A table of metadata as a user keeps it: CSV, JSON lines, or the core table of a Darwin Core archive."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fieldscope.core.errors import ConfigError
from fieldscope.core.reading import file_bytes, load_json

LISTED = " | "
"""Between several values of one cell, as Darwin Core recommends."""

_DELIMITERS = (",", "\t", ";")
_MOST_BYTES = 200_000_000
_MOST_COLUMNS = 1_000
_JSON_SUFFIXES = frozenset({".jsonl", ".ndjson", ".json"})
_DEEPEST = 20


@dataclass(frozen=True)
class Table:
    """A table's columns, and its rows as texts by column; a cell that is empty is left out of its row.

    `source` is the file. With `decimal_comma` its numbers may be written like 46,5.
    """

    source: Path
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, str], ...]
    decimal_comma: bool = False


def read_table(path: Path) -> Table:
    """The table in a file: JSON lines by its ending (.jsonl, .ndjson, .json), else CSV with commas, semicolons or tabs,
    as Darwin Core's `occurrence.txt` has them.

    Raises `ConfigError`, which names the file and the line, for anything else.
    """
    text = _text(path)
    decimal_comma = False
    if path.suffix.lower() in _JSON_SUFFIXES:
        rows = list(_json_rows(text, path))
        columns = tuple(dict.fromkeys(column for row in rows for column in row))
    else:
        delimiter = _delimiter(text)
        columns, rows = _csv_rows(text, delimiter, path)
        decimal_comma = delimiter == ";"
    if not rows:
        raise ConfigError(f"{path} has no rows; give a table with a line for each image")
    if len(columns) > _MOST_COLUMNS:
        raise ConfigError(f"{path} has {len(columns):,} columns, over the limit of {_MOST_COLUMNS:,}; leave some out")
    return Table(path, columns, tuple(rows), decimal_comma)


def _text(path: Path) -> str:
    if path.suffix.lower() == ".zip":
        raise ConfigError(f"{path} is an archive; unpack it, and give its table, such as occurrence.txt")
    try:
        if path.is_file() and path.stat().st_size > _MOST_BYTES:
            raise ConfigError(f"{path} is over the limit of {_MOST_BYTES // 1_000_000} MB; leave rows or columns out")
        data = file_bytes(path)
    except OSError as error:
        raise ConfigError(f"{path}: can't be read ({error.strerror}); check the file") from error
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text; save it as CSV in UTF-8, or as JSON lines") from error
    if "\0" in text:
        raise ConfigError(f"{path} is no text; give a CSV, JSON lines or Darwin Core table")
    return text


def _delimiter(text: str) -> str:
    """The one that divides the first line into most columns."""
    first = text.lstrip("\r\n").splitlines()[:1]
    return max(_DELIMITERS, key=lambda delimiter: len(next(csv.reader(first, delimiter=delimiter), ())))


def _csv_rows(text: str, delimiter: str, path: Path) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: tuple[str, ...] = ()
    rows: list[dict[str, str]] = []
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if not any(stripped):
                continue
            if not columns:
                columns = _named([*stripped], path)
                continue
            if any(stripped[len(columns) :]):
                raise ConfigError(
                    f"{path}, line {reader.line_num}: {len(cells)} cells in a table of {len(columns)} columns; put "
                    "cells with a delimiter in quotation marks"
                )
            rows.append({column: cell for column, cell in zip(columns, stripped, strict=False) if cell})
    except csv.Error as error:
        raise ConfigError(f"{path}, line {reader.line_num}: not valid CSV ({error}); correct it there") from error
    return columns, rows


def _named(header: Sequence[str], path: Path) -> tuple[str, ...]:
    names = [name or f"column {place}" for place, name in enumerate(header, start=1)]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"{path} has two columns called {twice!r}; rename one of them")
    return tuple(names)


def _json_rows(text: str, path: Path) -> Iterator[dict[str, str]]:
    if text.lstrip().startswith("["):
        entries = _value(text, str(path))
        numbered = enumerate(entries, start=1)
        places: Iterator[tuple[str, Any]] = ((f"{path}, entry {number}", entry) for number, entry in numbered)
    else:
        lines = ((number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip())
        places = ((f"{path}, line {number}", _value(line, f"{path}, line {number}")) for number, line in lines)
    for place, entry in places:
        if not isinstance(entry, dict):
            raise ConfigError(f'{place}: not a JSON object; write columns and their values, as in {{"file": "1.jpg"}}')
        yield dict(_flat(entry, place))


def _value(text: str, place: str) -> Any:
    try:
        return load_json(text)
    except ValueError as error:
        raise ConfigError(f"{place}: not valid JSON ({error}); write one JSON object on each line") from error


def _flat(entry: Mapping[str, Any], place: str, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """An object's values as texts; those of objects within it have names like `location.latitude`."""
    if depth > _DEEPEST:
        raise ConfigError(f"{place}: nested more than {_DEEPEST} deep; write plain columns")
    for name, value in entry.items():
        key = f"{prefix}{name}".strip()
        if isinstance(value, dict):
            yield from _flat(value, place, f"{key}.", depth + 1)
        elif text := _cell(value):
            yield key, text


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return LISTED.join(text for part in value if (text := _cell(part)))
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return LISTED.join(f"{name}: {_cell(part)}" for name, part in value.items())
    return "" if value is None else str(value).strip()
