"""`fieldscope keys`: who may use the service."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from fieldscope.service.cli.console import show, show_json
from fieldscope.service.cli.options import json_option
from fieldscope.service.cli.server_options import keys_options
from fieldscope.service.wiring.feedback import note

if TYPE_CHECKING:
    from fieldscope.service.server.api.keys import KeyFile
    from fieldscope.service.server.settings import SourcedSettings


@click.group()
def keys() -> None:
    """Make, list and remove the API keys of `fieldscope serve`.

    As soon as there is a key, every request needs one. A running service sees changes at once.
    """


@keys.command()
@click.argument("name")
@keys_options
def add(name: str, sourced: SourcedSettings) -> None:
    """Make a key for NAME, and print it this once.

    Only a salted hash of it is kept. Send it with each request as `Authorization: Bearer KEY` or `X-API-Key: KEY`.
    """
    secret = _file(sourced).add(name)
    click.echo(secret)
    note("This key is not shown again. Keep it in a safe place.")


@keys.command("list")
@json_option
@keys_options
def list_(as_json: bool, sourced: SourcedSettings) -> None:
    """List the names of all keys."""
    known = _file(sourced).all()
    if as_json:
        show_json([{"name": key.name, "created": key.created} for key in known])
        return
    show(*(f"{key.name}  since {key.created}" for key in known))
    if not known:
        note("There is no key yet. Run `fieldscope keys add NAME` to make one.")


@keys.command()
@click.argument("name")
@keys_options
def remove(name: str, sourced: SourcedSettings) -> None:
    """Remove the key of NAME. Requests with it are refused from then on."""
    _file(sourced).remove(name)
    show(f"The key of {name} is removed.")


def _file(sourced: SourcedSettings) -> KeyFile:
    from fieldscope.service.server.api.keys import KeyFile

    return KeyFile(sourced.settings.keys_file)
