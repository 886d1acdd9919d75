"""The flags of the service's commands. Settings without a flag come from variables, the file and the defaults."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from fieldscope.service.cli.lmm_option import chosen_lmms
from fieldscope.service.cli.options import (
    ENCODER,
    PATH,
    file_option,
    folder_option,
    lmm_flags,
    prompts_option,
    scorer_option,
)

Function = TypeVar("Function", bound=Callable[..., Any])

CONFIG = file_option(
    "--config",
    help_text="Settings in TOML.  [default: fieldscope.toml here, or in the user's configuration folder]",
)
DATA = (
    file_option("--keys", help_text="The file with the hashes of the API keys."),
    folder_option("The folder for uploaded images, traces and jobs.", "--data"),
)


def _several(*names: str, metavar: str, help_text: str, **options: Any) -> Callable[[Any], Any]:
    return click.option(*names, multiple=True, metavar=metavar, help=f"May be repeated. {help_text}", **options)


_COLLECTIONS = (
    _several(
        "--collection",
        "collections",
        metavar="NAME=FOLDER",
        help_text="A folder of images, or an index of `fieldscope index`.  [default: FieldNotes' images]",
    ),
    _several(
        "--metadata",
        metavar="NAME=FILE",
        help_text="A table about a collection's images: CSV, JSON lines or Darwin Core, joined by file name.",
    ),
)
_ENGINE = (
    *_COLLECTIONS,
    *lmm_flags("lmm", defaults=False).values(),
    prompts_option,
    click.option(
        "--encoder",
        "--clip",
        "encoder",
        metavar="NAME|URL#MODEL|path:FOLDER",
        help=f"{ENCODER} Or none.  [default: the bundled CLIP]",
    ),
    scorer_option,
    file_option("--cache-file", help_text="The response cache."),
    click.option("--strategy", metavar="NAME", help="The strategy of requests that name none.  [default: agent]"),
    _several("--strategies", metavar="FILE|FOLDER", help_text="Your own strategies.", type=PATH),
)
_ALL = (
    click.option("--host", metavar="HOST", help="The address to listen on.  [default: 127.0.0.1]"),
    click.option("--port", type=click.IntRange(0, 65535), metavar="PORT", help="0 picks a free one.  [default: 8080]"),
    *_ENGINE,
    _several("--image-host", "image_hosts", metavar="HOST", help_text="Fetch images from HOST.  [default: none]"),
    *DATA,
    folder_option("The runs that the viewer shows at /.", "--runs"),
    folder_option(
        "A finished run of `fieldscope eval` over labelled queries, for requests with a `precision`.",
        "--precision-from",
    ),
    file_option("--prices", help_text="What the models' tokens cost (YAML); searches say it before they start."),
    click.option("--grace", type=click.FloatRange(0, 3600), metavar="SECONDS", help="How long a shutdown waits."),
    _several(
        "--limit",
        "limits",
        metavar="NAME=NUMBER",
        help_text="A limit that `fieldscope config` lists, such as max_seconds=60.",
    ),
)


def server_options(command: Function) -> Function:
    """Every flag of the service; the command gets `sourced`, the settings with their origins."""
    return _with_settings(command, CONFIG, *_ALL)


def workbench_options(command: Function) -> Function:
    """The service's flags without its collections; the command gets `table`, a file of metadata, and `sourced`."""
    table = file_option(
        "--metadata",
        "table",
        help_text="A table about the images: CSV, JSON lines or Darwin Core, joined by file name.",
    )
    return _with_settings(command, CONFIG, table, *(option for option in _ALL if option not in _COLLECTIONS))


def engine_options(command: Function) -> Function:
    """The flags of models, collections and stored data; the command gets `sourced`."""
    return _with_settings(command, CONFIG, *_ENGINE, DATA[1])


def keys_options(command: Function) -> Function:
    """The flags that say where keys are; the command gets `sourced`."""
    return _with_settings(command, CONFIG, *DATA)


def _with_settings(command: Function, *options: Callable[[Any], Any]) -> Function:
    @functools.wraps(command)
    def wrapped(**values: Any) -> Any:
        from fieldscope.service.server.settings import ServerSettings, read_settings

        config = values.pop("config")
        flags = {name: values.pop(name) for name in ServerSettings.model_fields if name in values}
        if "lmm" in flags:
            lmms = chosen_lmms(flags["lmm"], flags["model"])
            flags |= {"lmm": lmms.lmm, "model": lmms.model}
            flags |= {f"roles.{role}": own for role, own in lmms.roles.items()}
        given = {name: value for name, value in flags.items() if value not in (None, ())}
        given |= _limits(given.pop("limits", ()))
        return command(sourced=read_settings(given, config), **values)

    decorated: Any = wrapped
    for option in reversed(options):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


def _limits(given: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for limit in given:
        name, equals, value = limit.partition("=")
        if not equals:
            raise click.UsageError(f"--limit {limit!r} has no '='; write it as NAME=NUMBER")
        pairs[f"limits.{name.strip()}"] = value.strip()
    return pairs
