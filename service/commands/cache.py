"""`fieldscope cache`: the answers that are remembered."""

from __future__ import annotations

from contextlib import closing

import click

from service.console import show, show_json
from service.options import json_option
from service.settings import Settings


@click.group()
def cache() -> None:
    """Look at the response cache."""


@cache.command()
@json_option
def stats(as_json: bool) -> None:
    """How many answers are kept, of which models, and where."""
    from cache.sqlite import SqliteStore
    from cache.store import StoreStats

    path = Settings().store_path
    if path.exists():
        with closing(SqliteStore(path)) as store:
            found = store.stats()
    else:
        found = StoreStats(entries=0, size_bytes=0, by_model={})
    if as_json:
        show_json(
            {"path": str(path), "entries": found.entries, "size_bytes": found.size_bytes, "by_model": found.by_model}
        )
        return
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("model", overflow="fold")
    table.add_column("answers", justify="right")
    for model, entries in sorted(found.by_model.items(), key=lambda item: -item[1]):
        table.add_row(model, f"{entries:,}")
    show(f"{found.entries:,} answers, {found.size_bytes / 1e6:,.1f} MB, in {path}", *([table] if found.entries else []))
