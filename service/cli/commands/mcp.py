"""`fieldscope mcp`: the registered collections for an assistant that speaks the Model Context Protocol."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import TYPE_CHECKING

import click

from fieldscope.core.errors import ConfigError
from fieldscope.core.private import writing_privately
from fieldscope.service.cli.server_options import engine_options

if TYPE_CHECKING:
    from fieldscope.service.server.settings import SourcedSettings


@click.command()
@click.option("--url", metavar="URL", help="Use the collections and models of a running `fieldscope serve` instead.")
@engine_options
def mcp(sourced: SourcedSettings, url: str | None) -> None:
    """Let an assistant search and rank the registered collections, and ask why.

    An assistant starts this command and speaks the Model Context Protocol with it, on standard input and output. It can
    call `search`, `rerank` and `explain`, and change nothing.
    """
    if url is not None and (flag := next((o for o in sourced.origins.values() if o.startswith("--")), None)):
        raise click.UsageError(f"{flag} has no effect on the service at --url; leave one of the two out")
    if find_spec("mcp") is None:
        raise ConfigError("`fieldscope mcp` needs the package mcp. Install the extra `mcp` (pip install '.[mcp]')")
    from fieldscope.service.adaptors.mcp import serve_settings, serve_url

    with writing_privately():
        asyncio.run(serve_settings(sourced.settings) if url is None else serve_url(url))
