"""Options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from service.settings import CACHE_MODES, DEFAULT_CONCURRENCY, DEFAULT_MAX_SIDE, Settings

Function = TypeVar("Function", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")

_CLIP = click.option(
    "--clip",
    metavar="NAME",
    help="The first stage's CLIP: MODEL:PRETRAINED as open_clip names it, or a folder.  [default: the bundled one]",
)
_LMM = (
    click.option("--lmm", "lmm_url", metavar="URL", help="An OpenAI-compatible server, such as http://localhost:8000."),
    click.option("--model", metavar="NAME", help="The model to ask there."),
    click.option("--revision", metavar="TEXT", help="Tells two models of that name apart in the cache."),
    click.option(
        "--max-side",
        type=click.IntRange(min=1),
        default=DEFAULT_MAX_SIDE,
        show_default=True,
        metavar="PIXELS",
        help="Larger pictures are scaled down before they travel to the server.",
    ),
    click.option(
        "--concurrency",
        type=click.IntRange(min=1),
        default=DEFAULT_CONCURRENCY,
        show_default=True,
        metavar="N",
        help="Calls in flight at once.",
    ),
    click.option(
        "--cache",
        "cache_mode",
        type=click.Choice(CACHE_MODES),
        default="on",
        show_default=True,
        help="on: ask what was never asked. refresh: ask again. replay: never ask. off: remember nothing.",
    ),
)


def clip_options(command: Function) -> Function:
    """`--clip`; the command gets `settings`."""
    return _with_settings(command, _CLIP)


def model_options(command: Function) -> Function:
    """`--clip`, and everything about the LMM and its cache; the command gets `settings`.

    A server's key is no option, for other users of a machine see the command lines of all: it comes from the
    environment, FIELDSCOPE_API_KEY or OPENAI_API_KEY.
    """
    return _with_settings(command, *_LMM, _CLIP)


def _with_settings(command: Function, *options: Callable[[Any], Any]) -> Function:
    @functools.wraps(command)
    def wrapped(**values: Any) -> Any:
        chosen = {name: values.pop(name) for name in Settings.__dataclass_fields__ if name in values}
        return command(settings=_checked(Settings(**chosen)), **values)

    decorated: Any = wrapped
    for option in reversed(options):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


def _checked(settings: Settings) -> Settings:
    if settings.lmm_url and not settings.model:
        raise click.UsageError("--lmm needs --model: the name under which that server serves the model")
    for name, value in (("--model", settings.model), ("--revision", settings.revision)):
        if value and not settings.lmm_url:
            raise click.UsageError(f"{name} goes with --lmm: the address of the server")
    return settings
