"""`fieldscope version`."""

from __future__ import annotations

import platform
from importlib import metadata

import click

from service.console import show_json
from service.options import json_option

_LIBRARIES = ("torch", "transformers", "open_clip_torch", "langgraph", "openai", "faiss-cpu", "pillow")


@click.command()
@json_option
def version(as_json: bool) -> None:
    """The version of Fieldscope, and of the libraries that decide its results."""

    versions = {"fieldscope": _installed("fieldscope"), "python": platform.python_version()}
    versions |= {name: _installed(name) for name in _LIBRARIES}
    if as_json:
        show_json(versions)
    else:
        for name, found in versions.items():
            click.echo(f"{name:<16} {found or 'not installed'}")


def _installed(name: str) -> str | None:

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
