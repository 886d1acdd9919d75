"""`fieldscope version`."""

from __future__ import annotations

import platform

import click

from fieldscope.service.cli.console import show_json
from fieldscope.service.cli.options import json_option

_LIBRARIES = ("torch", "transformers", "open_clip_torch", "langgraph", "openai", "faiss-cpu", "pillow")


@click.command()
@json_option
def version(as_json: bool) -> None:
    """Print the versions of Fieldscope and its main libraries."""
    versions = {"fieldscope": _installed("fieldscope"), "python": platform.python_version()}
    versions |= {name: _installed(name) for name in _LIBRARIES}
    if as_json:
        show_json(versions)
    else:
        for name, version_number in versions.items():
            click.echo(f"{name:<16} {version_number or 'not installed'}")


def _installed(name: str) -> str | None:
    from importlib import metadata  # slower to import than all of click

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
