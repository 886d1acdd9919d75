"""What goes to a terminal: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import click

from fieldscope.service.wiring.feedback import spelled

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from fieldscope.eval.progress import Progress
    from fieldscope.retrieval.progress import Report


def show(*things: RenderableType) -> None:
    """Print for people to standard output; texts as they are, without markup."""
    from rich.console import Console

    console = Console(highlight=False)
    for thing in things:
        # A line of text is not wrapped, so that a command in it can be copied.
        console.print(plain(thing) if isinstance(thing, str) else thing, soft_wrap=isinstance(thing, str))


def show_json(value: Any) -> None:
    """Print one JSON object for programs, to standard output."""
    click.echo(json.dumps(value, indent=2, allow_nan=False))


class Terminal:
    """Feedback on standard error; bars appear on a terminal only."""

    def warn(self, message: str) -> None:
        _print_line("warning", message, "yellow")

    def note(self, message: str) -> None:
        _print_line("note", message, "cyan")

    def error(self, message: str) -> None:
        complain(message)

    @contextmanager
    def progress(self, title: str) -> Iterator[Report]:
        with ExitStack() as stack:
            bar: Report | None = None

            def report(done: int, total: int) -> None:
                nonlocal bar
                if bar is None:
                    from fieldscope.retrieval.progress import progress_bar

                    bar = stack.enter_context(progress_bar(title))
                bar(done, total)

            yield report

    def run_progress(self) -> AbstractContextManager[Progress | None]:
        if not sys.stderr.isatty():
            return nullcontext(None)
        from fieldscope.eval.progress import LiveProgress

        return LiveProgress()


def complain(message: str) -> None:
    """One line that says what went wrong and what to do."""
    _print_line("error", message, "red")


def _print_line(kind: str, message: str, colour: str) -> None:
    click.echo(f"{click.style(f'{kind}:', fg=colour, bold=True)} {spelled(' '.join(message.split()))}", err=True)


def plain(text: str, style: str = "") -> Text:
    """A text from outside for rich: no markup, no control characters."""
    from rich.text import Text

    return Text(spelled(text), style=style)
