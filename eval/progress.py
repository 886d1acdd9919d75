"""The progress of a running evaluation."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichBar

from fieldscope.agent.usage import Usage


class Progress(Protocol):
    """Hears of each strategy: `begin`, `advance` for each finished query, `end` (also after a failure)."""

    def begin(self, strategy: str, queries: int, finished: int, cost: Usage) -> None:
        """A strategy starts; `finished` of its `queries`, at `cost`, were read back from an earlier process."""
        ...

    def advance(self, cost: Usage) -> None:
        """One more query is on the disk; so many of its calls gave no answer."""
        ...

    def end(self) -> None:
        """The strategy has ended."""
        ...


class Silent:
    """Shows nothing."""

    def begin(self, strategy: str, queries: int, finished: int, cost: Usage) -> None: ...

    def advance(self, cost: Usage) -> None: ...

    def end(self) -> None: ...


class LiveProgress:
    """A live bar per strategy: queries, calls, tokens, cache hits, unknown answers, time gone and time left.

    A context manager; it draws on `console`, by default standard error.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._bar = RichBar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[account]}", style="dim"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console or Console(stderr=True),
            expand=True,
        )
        self._task = TaskID(0)
        self._cost = Usage()
        self._unknown = 0

    def begin(self, strategy: str, queries: int, finished: int, cost: Usage) -> None:
        self._cost = replace(cost, unknown=0)
        self._task = self._bar.add_task(strategy, total=queries, completed=finished, account=self._account())

    def advance(self, cost: Usage) -> None:
        self._cost += cost
        self._bar.update(self._task, advance=1, account=self._account())

    def end(self) -> None:
        self._bar.stop_task(self._task)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _account(self) -> str:
        cost = self._cost
        account = f"{cost.calls:,} calls, {cost.tokens:,} tokens, {cost.cached:,} cached"
        return f"{account}, {cost.unknown:,} unknown" if cost.unknown else account
