"""`fieldscope workbench`: one's own pictures, indexed and opened to be searched in a browser."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fieldscope.core.errors import ConfigError
from fieldscope.core.private import writing_privately
from fieldscope.service.cli.console import show
from fieldscope.service.cli.server_options import workbench_options

if TYPE_CHECKING:
    from fieldscope.service.server.settings import ServerSettings, SourcedSettings


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@workbench_options
def workbench(folder: Path, table: Path | None, sourced: SourcedSettings) -> None:
    """Index a FOLDER of images, or take its index, and serve it to a browser.

    Encoding goes on where it was left, and takes new images on at the next start. Without --port a free one is taken
    if the usual one is in use.
    """
    from fieldscope.service.server.api.opening import prepare
    from fieldscope.service.server.app import create_app, require_keys
    from fieldscope.service.server.serve import address_of, serve_until_stopped
    from fieldscope.service.viewer.addresses import SEARCH

    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._")[:64] or "pictures"
    update = {"collections": {name: folder}, "metadata": {name: table} if table is not None else {}}
    settings = sourced.settings.model_copy(update=update)
    require_keys(settings)
    with writing_privately(), _bind(settings, fixed=sourced.origins["port"] != "default") as listener:
        app = create_app(settings, prepared=prepare(settings))
        address = f"{address_of(listener)}/{SEARCH}"
        serve_until_stopped(app, listener, settings.grace, lambda: show(f"Search {name} at {address} until Ctrl-C"))


def _bind(settings: ServerSettings, *, fixed: bool) -> socket.socket:
    """A socket at the settings' port, or at a free one where that was not chosen and is in use."""
    from fieldscope.service.server.serve import bind

    try:
        return bind(settings)
    except ConfigError:
        if fixed:
            raise
        return bind(settings.model_copy(update={"port": 0}))
