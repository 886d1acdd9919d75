"""Cells that a spreadsheet opens as texts and numbers, and never runs as formulas."""

from __future__ import annotations

from typing import Any

_FORMULA = tuple("=+-@＝＋－＠")
"""What makes a spreadsheet take a text for a formula, in both widths, behind any white space."""

_STRIPPED = ("\t", "\r")
"""What some spreadsheets drop from the front of a text before they look at the rest."""


def cell(value: Any) -> Any:
    """A value for a CSV file: a text that a spreadsheet could run as a formula gets a `'` in front; all else stays."""
    if isinstance(value, str) and (value.startswith(_STRIPPED) or value.lstrip().startswith(_FORMULA)):
        return f"'{value}"
    return value
