"""What goes to a terminal: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from fieldscope.eval.types import RunSummary
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


def show_runs(summaries: Sequence[RunSummary], out: Path, as_json: bool) -> None:
    """Runs that were just made, as tables with the command to read one or as JSON, and what makes them worth less."""
    from fieldscope.eval.report import payload, tables, warnings

    if as_json:
        show_json(payload(summaries))
    else:
        show(*tables(summaries), f"Runs are in {out}; to read one: {program()} trace {summaries[-1].out} QUERY")
    for line in warnings(summaries):
        warn(line)


def warn(message: str) -> None:
    """One line about something that makes a result worth less."""
    _tell("warning", message, "yellow")


def note(message: str) -> None:
    """One line that is good to know."""
    _tell("note", message, "cyan")


def complain(message: str) -> None:
    """One line that says what went wrong and what to do."""
    _tell("error", message, "red")


def _tell(kind: str, message: str, colour: str) -> None:
    click.echo(f"{click.style(f'{kind}:', fg=colour, bold=True)} {spelled(' '.join(message.split()))}", err=True)


def spelled(text: str) -> str:
    """The text with whatever a terminal would not show as itself, such as control characters, spelled out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def plain(text: str, style: str = "") -> Text:
    """Somebody else's words for rich: no markup, no control characters."""
    from rich.text import Text

    return Text(spelled(text), style=style)


@contextmanager
def progress(title: str) -> Iterator[Report]:
    """A bar on standard error that appears with the first report, and only on a terminal."""
    with ExitStack() as stack:
        bar: Report | None = None

        def report(done: int, total: int) -> None:
            nonlocal bar
            if bar is None:
                from fieldscope.retrieval.progress import progress_bar

                bar = stack.enter_context(progress_bar(title))
            bar(done, total)

        yield report


@contextmanager
def keeping(what: str) -> Iterator[None]:
    """Let an interruption say what is kept."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(what) from None


def program() -> str:
    """How the user can call this program again: its name where that is on PATH, else its file."""
    called = Path(sys.argv[0])
    if called.name != "fieldscope":
        return "fieldscope"
    on_path = shutil.which(called.name)
    if on_path is not None and Path(on_path).resolve() == called.resolve():
        return called.name
    return shlex.quote(os.path.relpath(called) if called.is_relative_to(Path.cwd()) else str(called))
