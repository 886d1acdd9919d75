"""The bar is drawn on a terminal, and nowhere else."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fieldscope.retrieval.progress import progress_bar


@pytest.mark.parametrize("terminal", [True, False])
def test_the_bar_is_for_terminals(terminal: bool) -> None:
    screen = io.StringIO()
    with progress_bar("Indexing", Console(file=screen, force_terminal=terminal, width=80)) as report:
        report(3, 7)
    assert ("Indexing" in screen.getvalue() and "3/7" in screen.getvalue()) == terminal
    assert terminal or screen.getvalue() == ""
