"""`fieldscope serve`: rerank and search over HTTP, with the viewer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from fieldscope.core.private import writing_privately
from fieldscope.service.cli.console import show
from fieldscope.service.cli.server_options import server_options
from fieldscope.service.wiring.feedback import note

if TYPE_CHECKING:
    from fieldscope.service.server.settings import SourcedSettings


@click.command()
@server_options
def serve(sourced: SourcedSettings) -> None:
    """Serve reranking over HTTP, and the viewer at /.

    Clients of Jina, Cohere and vLLM only need this address as their base URL; /docs lists every endpoint. Only this
    machine can connect, unless --host says otherwise; then API keys are required (see `fieldscope keys`). Every setting
    can come from a flag, a variable FIELDSCOPE_..., or a TOML file (see `fieldscope config`).
    """
    from fieldscope.service.server.api.opening import prepare
    from fieldscope.service.server.app import create_app, require_keys
    from fieldscope.service.server.serve import address_of, bind, serve_until_stopped

    settings = sourced.settings
    keys = require_keys(settings).all()
    with writing_privately(), bind(settings) as listener:
        app = create_app(settings, prepared=prepare(settings))
        if keys:
            note(f"Every request needs one of the {len(keys)} API keys in {settings.keys_file}.")
        serve_until_stopped(
            app, listener, settings.grace, lambda: show(f"Fieldscope serves at {address_of(listener)} until Ctrl-C")
        )
