"""What a running evaluation tells whoever watches."""

from __future__ import annotations

from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichBar

from fieldscope.eval.types import Cost


class Progress(Protocol):
    """Told of every strategy in turn: `begin`, `advance` for each finished query, `end` (also after a failure)."""

    def begin(self, strategy: str, queries: int, finished: int, cost: Cost) -> None:
        """A strategy starts; `finished` of its `queries`, at `cost`, were read back from an earlier process."""
        ...

    def advance(self, cost: Cost, unknown: int) -> None:
        """One more query is on the disk; so many of its calls gave no answer."""
        ...

    def end(self) -> None:
        """The strategy has come to its end."""
        ...


class Silent:
    """Tells nobody."""

    def begin(self, strategy: str, queries: int, finished: int, cost: Cost) -> None: ...

    def advance(self, cost: Cost, unknown: int) -> None: ...

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
        self._cost = Cost()
        self._unknown = 0

    def begin(self, strategy: str, queries: int, finished: int, cost: Cost) -> None:
        self._cost, self._unknown = cost, 0
        self._task = self._bar.add_task(strategy, total=queries, completed=finished, account=self._account())

    def advance(self, cost: Cost, unknown: int) -> None:
        self._cost += cost
        self._unknown += unknown
        self._bar.update(self._task, advance=1, account=self._account())

    def end(self) -> None:
        self._bar.stop_task(self._task)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _account(self) -> str:
        tokens = self._cost.prompt_tokens + self._cost.completion_tokens
        account = f"{self._cost.calls:,} calls, {tokens:,} tokens, {self._cost.cache_hits:,} cached"
        return f"{account}, {self._unknown:,} unknown" if self._unknown else account
