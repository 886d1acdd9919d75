"""A filter by metadata: conditions that an image's cells must satisfy before it is searched."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from fieldscope.core.errors import ConfigError
from fieldscope.core.validation import unknown_name
from fieldscope.service.metadata.records import Records, is_absent, values_of
from fieldscope.service.metadata.spans import Span, read_span

EXAMPLE = "'station = A1', 'count >= 2', 'date >= 2023-05', 'taxon = Canidae' or 'box = 7.0,46.0,8.5,47.0'"

TAXON, BOX, DATE = "taxon", "box", "date"
"""Names that need no column: any name of a taxon, coordinates, and when the image was taken."""

_OPERATORS = ("!=", ">=", "<=", "=", ">", "<", "~")
_TEXT = re.compile(r"\s*(?P<column>[^=<>~!]+?)\s*(?P<operator>!=|>=|<=|=|>|<|~)\s*(?P<value>.*?)\s*", re.DOTALL)
_OR = "|"
_LONGEST = 1_000
_MOST = 100

Given: TypeAlias = str | Sequence[str] | Mapping[str, Any]
"""A filter as a user writes it: see `read_filter`."""

Test = Callable[[str], bool]
"""Whether the image of an id satisfies a condition."""


@dataclass(frozen=True)
class Condition:
    """One condition: `operator` is `=` (any of the values), `!=` (none of them), `>=`, `<=`, `>`, `<` or `~` (contains
    one of them)."""

    column: str
    operator: str
    values: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.column} {self.operator} {_OR.join(self.values)}"


@dataclass(frozen=True)
class Filter:
    """Conditions that must all hold. An image without a value in a condition's column does not satisfy it."""

    conditions: tuple[Condition, ...]

    def __str__(self) -> str:
        return ", ".join(map(str, self.conditions))

    def select(self, records: Records, ids: Sequence[str]) -> list[str]:
        """Those of the images that satisfy all conditions, in their order.

        Raises `ConfigError` for a column that the metadata does not have, and for a value that does not fit it.
        """
        tests = [_test(condition, records) for condition in self.conditions]
        return [image_id for image_id in ids if all(test(image_id) for test in tests)]


def read_filter(given: object) -> Filter:
    """A filter from a text like `station = A1|B2`, from a list of them, or from a mapping of columns to values:
    `{"station": ["A1", "B2"], "count": {">=": 2}, "box": [7.0, 46.0, 8.5, 47.0]}`.

    Raises `ConfigError` for anything else.
    """
    if isinstance(given, str):
        given = [given]
    if isinstance(given, Mapping):
        conditions = [condition for column, wanted in given.items() for condition in _of_mapping(column, wanted)]
    elif isinstance(given, Sequence) and all(isinstance(text, str) for text in given):
        conditions = [_of_text(text) for text in given]
    else:
        raise ConfigError(
            f"this is no filter; give a text, a list of texts, or an object of columns and values, such as {EXAMPLE}"
        )
    if not conditions:
        raise ConfigError(f"the filter has no condition; write one such as {EXAMPLE}, or leave the filter out")
    if len(conditions) > _MOST:
        raise ConfigError(f"the filter has {len(conditions)} conditions, over the limit of {_MOST}; leave some out")
    return Filter(tuple(conditions))


def filterable(records: Records) -> list[str]:
    """Every name that a condition may have: the columns, and `date`, `taxon` and `box` where there is such metadata."""
    facets = {DATE: records.has_times, TAXON: bool(records.taxon_columns), BOX: records.has_places}
    return list(dict.fromkeys((*records.columns, *(facet for facet, there in facets.items() if there))))


def _of_text(text: str) -> Condition:
    match = _TEXT.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        raise ConfigError(f"{text[:80]!r} is no condition of a filter; write a column, a sign and a value: {EXAMPLE}")
    values = (match["value"],) if match["column"].casefold() == BOX else match["value"].split(_OR)
    return _condition(match["column"], match["operator"], values)


def _of_mapping(column: object, wanted: object) -> list[Condition]:
    if not isinstance(column, str) or not column.strip():
        raise ConfigError(f"{str(column)[:80]!r} is no name of a column; name one in the filter")
    if isinstance(wanted, Mapping):
        if unknown := next((sign for sign in wanted if sign not in _OPERATORS), None):
            known = ", ".join(_OPERATORS)
            raise ConfigError(
                f"the filter on {column!r} has {str(unknown)[:80]!r}, which is no sign; use one of {known}"
            )
        if not wanted:
            raise ConfigError(f"the filter on {column!r} is empty; give a value, or leave the column out")
        return [_condition(column, sign, _texts(column, value)) for sign, value in wanted.items()]
    return [_condition(column, "=", _texts(column, wanted))]


def _texts(column: str, value: object) -> list[str]:
    values = value if isinstance(value, list | tuple) else [value]
    if any(not isinstance(one, str | int | float) for one in values):
        raise ConfigError(f"the filter on {column!r} needs texts or numbers; write them as in {EXAMPLE}")
    texts = [str(one).lower() if isinstance(one, bool) else str(one) for one in values]
    return [",".join(texts)] if column.casefold() == BOX else texts


def _condition(column: str, operator: str, values: Sequence[str]) -> Condition:
    stripped = tuple(value.strip() for value in values)
    if not stripped or not all(stripped):
        raise ConfigError(f"the filter on {column.strip()!r} has no value behind {operator!r}; write one")
    if len(stripped) > 1 and operator not in ("=", "!=", "~"):
        raise ConfigError(
            f"the filter on {column.strip()!r} compares with several values; give one behind {operator!r}"
        )
    return Condition(column.strip(), operator, stripped)


def _test(condition: Condition, records: Records) -> Test:
    column = _column(condition.column, records)
    if column is not None and column.casefold() != TAXON:
        if records.has_times and column.casefold() == DATE:
            return _date_test(condition, records)
        return _cell_test(condition, records, column)
    name = condition.column.casefold()
    if name == TAXON and records.taxon_columns:
        return _taxon_test(condition, records)
    if name == DATE and records.has_times:
        return _date_test(condition, records)
    if name == BOX and records.has_places:
        return _box_test(condition, records)
    if not records.columns:
        raise ConfigError(
            f"these images have no metadata, so they can't be filtered by {condition.column!r}; add a table with "
            "--metadata when they are indexed or opened, or leave the filter out"
        )
    raise ConfigError(f"the filter names an {unknown_name('column', condition.column[:80], filterable(records))}")


def _column(name: str, records: Records) -> str | None:
    """A column by its name, in another case where only one is called so."""
    if name in records.columns:
        return name
    alike = [column for column in records.columns if column.casefold() == name.casefold()]
    return alike[0] if len(alike) == 1 else None


def _cell_test(condition: Condition, records: Records, column: str) -> Test:
    """A test of a column: of numbers or dates where all its values are some, else of texts."""
    values = [value for cells in records.images.values() for value in values_of(cells.get(column, ""))]
    known = [value for value in values if not is_absent(value)]
    operator = condition.operator
    if operator != "~":
        if known and all(records.number(value) is not None for value in known):
            return _over_values(records, column, operator, _number_matcher(condition, records))
        if known and all(read_span(value) is not None for value in known):
            return _over_values(records, column, operator, _span_matcher(condition))
    if operator not in ("=", "!=", "~"):
        raise ConfigError(
            f"the filter compares {column!r} with {operator!r}, but not all of its values are numbers or dates; use "
            "= or ~"
        )
    wanted = [value.casefold() for value in condition.values]
    if operator == "~":
        return _over_values(records, column, operator, lambda value: any(text in value.casefold() for text in wanted))
    return _over_values(records, column, operator, lambda value: value.casefold() in wanted)


def _over_values(records: Records, column: str, operator: str, matches: Test) -> Test:
    """A test that holds where one of an image's values in a column matches; for `!=`, where it has some and none
    does."""

    def test(image_id: str) -> bool:
        values = values_of(records.of(image_id).get(column, ""))
        return bool(values) and any(map(matches, values)) != (operator == "!=")

    return test


def _number_matcher(condition: Condition, records: Records) -> Test:
    numbers = [records.number(value) for value in condition.values]
    if None in numbers:
        wrong = condition.values[numbers.index(None)]
        raise ConfigError(
            f"column {condition.column!r} has numbers, and the filter compares it with {wrong[:80]!r}; give a number"
        )
    wanted = [number for number in numbers if number is not None]

    def matches(value: str) -> bool:
        number = records.number(value)
        return number is not None and any(_holds(condition.operator, number, number, one, one) for one in wanted)

    return matches


def _span_matcher(condition: Condition) -> Test:
    spans = _spans(condition)

    def matches(value: str) -> bool:
        span = read_span(value)
        return span is not None and any(_within(condition.operator, span, wanted) for wanted in spans)

    return matches


def _date_test(condition: Condition, records: Records) -> Test:
    spans = _spans(condition)

    def test(image_id: str) -> bool:
        span = records.time(image_id)
        if span is None:
            return False
        return any(_within(condition.operator, span, wanted) for wanted in spans) != (condition.operator == "!=")

    return test


def _spans(condition: Condition) -> list[Span]:
    spans = [read_span(value) for value in condition.values]
    if None in spans or condition.operator == "~":
        wrong = condition.values[spans.index(None)] if None in spans else condition.operator
        raise ConfigError(
            f"column {condition.column!r} has dates, and the filter compares it with {wrong[:80]!r}; write dates like "
            "2023, 2023-05, 2023-05-14 or 2023-05-14T06:30"
        )
    return [span for span in spans if span is not None]


def _within(operator: str, span: Span, wanted: Span) -> bool:
    return _holds(operator, span.first, span.last, wanted.first, wanted.last)


def _holds(operator: str, first: Any, last: Any, low: Any, high: Any) -> bool:
    """Whether a value from `first` to `last` stands so to one from `low` to `high`; `!=` is asked as `=`."""
    match operator:
        case ">=":
            return bool(first >= low)
        case ">":
            return bool(first > high)
        case "<=":
            return bool(last <= high)
        case "<":
            return bool(last < low)
    return bool(first >= low and last <= high)


def _taxon_test(condition: Condition, records: Records) -> Test:
    """A test of the names of taxa: a genus holds its species, and a name its authors."""
    if condition.operator not in ("=", "!=", "~"):
        raise ConfigError(f"the filter compares {TAXON!r} with {condition.operator!r}; use =, != or ~")
    wanted = [value.casefold() for value in condition.values]

    def matches(name: str) -> bool:
        if condition.operator == "~":
            return any(text in name for text in wanted)
        return any(name == text or name.startswith(f"{text} ") for text in wanted)

    def test(image_id: str) -> bool:
        names = [name.casefold() for name in records.taxa(image_id)]
        return bool(names) and any(map(matches, names)) != (condition.operator == "!=")

    return test


def _box_test(condition: Condition, records: Records) -> Test:
    """A test of coordinates against west, south, east and north; west is greater than east across the date line."""
    try:
        west, south, east, north = map(float, condition.values[0].split(","))
        sound = condition.operator in ("=", "!=") and -90 <= south <= north <= 90
        sound = sound and -180 <= west <= 180 and -180 <= east <= 180
    except ValueError:
        sound = False
    if not sound:
        raise ConfigError(
            f"{condition.values[0][:80]!r} is no box of coordinates; write west, south, east and north in degrees, as "
            "in box = 7.0,46.0,8.5,47.0"
        )

    def test(image_id: str) -> bool:
        place = records.place(image_id)
        if place is None:
            return False
        latitude, longitude = place
        across = west <= longitude <= east if west <= east else longitude >= west or longitude <= east
        return (across and south <= latitude <= north) != (condition.operator == "!=")

    return test
