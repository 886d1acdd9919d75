"""Dates and times as people, cameras and Darwin Core write them: from the year alone to the second, and intervals."""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import datetime, timedelta

_WRITTEN = re.compile(
    r"(?P<year>\d{4})(?:(?P<sep>[-:/])(?P<month>\d{1,2})(?:(?P=sep)(?P<day>\d{1,2})"
    r"(?:[T ](?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,]\d+)?)?\s*(?:Z|[+-]\d{2}:?\d{2})?)?)?)?"
)
_DOTTED = re.compile(r"(?P<day>\d{1,2})\.(?P<month>\d{1,2})\.(?P<year>\d{4})(?P<rest> .*)?")


@dataclass(frozen=True)
class Span:
    """From the first second to the last one, as written, without a time zone: a day is a span, and so is a year."""

    first: datetime
    last: datetime


def read_span(text: str) -> Span | None:
    """The span that a text means; None where it is no date.

    Read are ISO 8601 (`2023`, `2023-05`, `2023-05-14`, `2023-05-14T06:30`), its intervals (`2023-05-14/2023-05-20`),
    EXIF (`2023:05:14 06:30:00`), `2023/05/14` and `14.05.2023`. `5/14/2023` is not: day and month can't be told apart.
    A time zone is not converted.
    """
    text = text.strip()
    begin, slash, end = text.partition("/")
    if slash and not re.fullmatch(r"\d{4}/\d{1,2}(/\d{1,2}.*)?", text):
        first, last = _read_one(begin.strip()), _read_one(_completed(begin.strip(), end.strip()))
        return Span(first.first, last.last) if first and last and first.first <= last.last else None
    return _read_one(text)


def _completed(begin: str, end: str) -> str:
    """The end of an ISO interval, which leaves out what it shares with its begin, as in `2023-05-14/20`."""
    return begin[: len(begin) - len(end)] + end if len(end) < len(begin) and "T" not in begin else end


def _read_one(text: str) -> Span | None:
    if dotted := _DOTTED.fullmatch(text):
        text = f"{dotted['year']}-{dotted['month']}-{dotted['day']}{dotted['rest'] or ''}"
    match = _WRITTEN.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (
        None if match[name] is None else int(match[name])
        for name in ("year", "month", "day", "hour", "minute", "second")
    )
    assert year is not None
    try:
        first = datetime(year, month or 1, day or 1, hour or 0, minute or 0, second or 0)
        if second is not None:
            return Span(first, first)
        if minute is not None:
            return Span(first, first + timedelta(seconds=59))
        last_month = month or 12
        last_day = day or calendar.monthrange(year, last_month)[1]
        return Span(first, datetime(year, last_month, last_day, 23, 59, 59))
    except (ValueError, OverflowError):
        return None
