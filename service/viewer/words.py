"""Numbers and states as the pages write them: the templates' filters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def percent(value: float | None, digits: int = 1) -> str:
    """A share between 0 and 1 in percent; a dash where there is none."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def signed(value: float | None, digits: int = 1) -> str:
    """A difference of shares in points, with its sign."""
    return "–" if value is None else f"{100 * value:+.{digits}f}".replace("-", "−")


def decimal(value: float | None, digits: int = 2) -> str:
    """A number with so many digits."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def count(value: int | None) -> str:
    """A whole number with separators."""
    return "–" if value is None else f"{value:,}"


def moved(ranks: int) -> str:
    """By how many ranks an image rose or fell."""
    return "=" if ranks == 0 else f"▲{ranks}" if ranks > 0 else f"▼{-ranks}"


FILTERS: dict[str, Callable[..., Any]] = {
    "percent": percent, "signed": signed, "decimal": decimal, "count": count, "moved": moved,
}  # fmt: skip
