"""The flags of the service's commands. Settings without a flag come from variables, the file and the defaults."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from fieldscope.service.wiring.settings import CACHE_MODES

Function = TypeVar("Function", bound=Callable[..., Any])

_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)

CONFIG = click.option(
    "--config",
    "config",
    type=_FILE,
    metavar="FILE",
    help="Settings in TOML.  [default: fieldscope.toml here, or in the user's configuration folder]",
)
DATA = (
    click.option("--keys", type=_FILE, metavar="FILE", help="The file with the hashes of the API keys."),
    click.option("--data", type=_FOLDER, metavar="FOLDER", help="The folder for uploaded images, traces and jobs."),
)
_ALL = (
    click.option("--host", metavar="HOST", help="The address to listen on.  [default: 127.0.0.1]"),
    click.option("--port", type=click.IntRange(0, 65535), metavar="PORT", help="0 picks a free one.  [default: 8080]"),
    click.option(
        "--collection",
        "collections",
        multiple=True,
        metavar="NAME=FOLDER",
        help="A folder of images, or an index of `fieldscope index`. May be repeated.  [default: FieldNotes' images]",
    ),
    click.option("--lmm", metavar="URL", help="An OpenAI-compatible server, such as http://localhost:8000."),
    click.option("--model", metavar="NAME", help="The name under which the server serves the model."),
    click.option("--revision", metavar="TEXT", help="The version of the model, if it can change."),
    click.option("--concurrency", type=click.IntRange(min=1), metavar="N", help="How many calls run at once."),
    click.option(
        "--max-side",
        type=click.IntRange(min=1),
        metavar="PIXELS",
        help="Scale larger images down.",
    ),
    click.option(
        "--request-timeout",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="Time limit for one attempt of a call to the LMM's server.",
    ),
    click.option(
        "--attempts", type=click.IntRange(min=1), metavar="N", help="At most N attempts for a call to the LMM's server."
    ),
    click.option("--clip", metavar="NAME", help="MODEL:PRETRAINED, a folder, or none.  [default: the bundled one]"),
    click.option("--cache", "cache_mode", type=click.Choice(CACHE_MODES), help="As for `fieldscope rerank`."),
    click.option("--cache-file", type=_FILE, metavar="FILE", help="The response cache."),
    click.option("--strategy", metavar="NAME", help="The strategy of requests that name none.  [default: agent]"),
    click.option(
        "--strategies",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE|FOLDER",
        help="Your own strategies. May be repeated.",
    ),
    click.option(
        "--image-host",
        "image_hosts",
        multiple=True,
        metavar="HOST",
        help="A host to fetch images from. May be repeated.  [default: none]",
    ),
    *DATA,
    click.option("--runs", type=_FOLDER, metavar="FOLDER", help="The runs that the viewer shows at /."),
    click.option("--grace", type=click.FloatRange(0, 3600), metavar="SECONDS", help="How long a shutdown waits."),
    click.option(
        "--limit",
        "limits",
        multiple=True,
        metavar="NAME=NUMBER",
        help="A limit that `fieldscope config` lists, such as max_seconds=60. May be repeated.",
    ),
)


def server_options(command: Function) -> Function:
    """Every flag of the service; the command gets `told`, the settings with their origins."""
    return _with_settings(command, CONFIG, *_ALL)


def keys_options(command: Function) -> Function:
    """The flags that say where keys are; the command gets `told`."""
    return _with_settings(command, CONFIG, *DATA)


def _with_settings(command: Function, *options: Callable[[Any], Any]) -> Function:
    @functools.wraps(command)
    def wrapped(**values: Any) -> Any:
        from fieldscope.service.server.settings import ServerSettings, read_settings

        config = values.pop("config")
        flags = {name: values.pop(name) for name in ServerSettings.model_fields if name in values}
        given = {name: value for name, value in flags.items() if value not in (None, ())}
        given |= _limits(given.pop("limits", ()))
        return command(told=read_settings(given, config), **values)

    decorated: Any = wrapped
    for option in reversed(options):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


def _limits(given: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for limit in given:
        name, equals, value = limit.partition("=")
        if not equals:
            raise click.UsageError(f"--limit {limit!r} must have the form NAME=NUMBER")
        pairs[f"limits.{name.strip()}"] = value.strip()
    return pairs
