"""Options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from fieldscope.service.wiring.settings import (
    CACHE_MODES,
    DEFAULT_ATTEMPTS,
    DEFAULT_CONCURRENCY,
    DEFAULT_MAX_SIDE,
    DEFAULT_REQUEST_TIMEOUT,
    DEFAULT_STRATEGY,
    Settings,
)

Function = TypeVar("Function", bound=Callable[..., Any])

strategy_option = click.option(
    "--strategy",
    "name",
    default=DEFAULT_STRATEGY,
    show_default=True,
    metavar="NAME|FILE",
    help="How to rank: a strategy's name, or a YAML file with one. `fieldscope strategies list` shows the names.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")

split_option = click.option("--split", metavar="NAME", help="test, validation, ...  [default: test]")
runs_argument = click.argument("runs", nargs=-1, required=True, metavar="RUN ...", type=click.Path(path_type=Path))


def folder_option(help_text: str, *names: str, **options: Any) -> Callable[[Any], Any]:
    """`--out FOLDER`, or an option of other `names` that takes a folder."""
    kind = click.Path(path_type=Path, file_okay=False)
    return click.option(*(names or ("--out",)), type=kind, metavar="FOLDER", help=help_text, **options)


def file_option(*names: str, help_text: str, **options: Any) -> Callable[[Any], Any]:
    """An option that takes a file."""
    kind = click.Path(path_type=Path, dir_okay=False)
    return click.option(*names, type=kind, metavar="FILE", help=help_text, **options)


def price_option(purpose: str) -> Callable[[Any], Any]:
    """`--prices FILE`."""
    text = (
        f"{purpose} YAML with input_per_million, output_per_million and currency, or with these below the name of each "
        "model."
    )
    return file_option("--prices", "price_file", help_text=text)


runs_out = folder_option("The folder for the runs, with a folder for each strategy.", "-o", "--out", required=True)

_CLIP = click.option(
    "--clip",
    metavar="NAME",
    help="The first stage's CLIP: MODEL:PRETRAINED as open_clip names it, or a folder.  [default: the bundled one]",
)
_SERVER = (
    click.option("--lmm", "lmm_url", metavar="URL", help="An OpenAI-compatible server, such as http://localhost:8000."),
    click.option("--model", metavar="NAME", help="The name under which the server serves the model."),
)
_MAX_SIDE = click.option(
    "--max-side",
    type=click.IntRange(min=1),
    default=DEFAULT_MAX_SIDE,
    show_default=True,
    metavar="PIXELS",
    help="Scale larger images down before they are sent to the server.",
)
_REQUEST_TIMEOUT = click.option(
    "--request-timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=DEFAULT_REQUEST_TIMEOUT,
    show_default=True,
    metavar="SECONDS",
    help="Time limit for one attempt of a call to the server, from the first to the last byte.",
)
_LMM = (
    *_SERVER,
    click.option(
        "--revision",
        metavar="TEXT",
        help="The version of the model, if it can change under the same name.",
    ),
    _MAX_SIDE,
    click.option(
        "--concurrency",
        type=click.IntRange(min=1),
        default=DEFAULT_CONCURRENCY,
        show_default=True,
        metavar="N",
        help="How many calls run at once.",
    ),
    _REQUEST_TIMEOUT,
    click.option(
        "--attempts",
        type=click.IntRange(min=1),
        default=DEFAULT_ATTEMPTS,
        show_default=True,
        metavar="N",
        help="At most N attempts for a call that timed out or met a temporary error.",
    ),
    click.option(
        "--cache",
        "cache_mode",
        type=click.Choice(CACHE_MODES),
        default="on",
        show_default=True,
        help="on: ask only new questions. refresh: ask all again. replay: ask nothing. off: keep no answers.",
    ),
)
_DRY_RUN = (
    click.option("--dry-run", is_flag=True, help="Print how many calls it would make, and make none."),
    price_option("With --dry-run: what the calls would cost."),
)


def clip_options(command: Function) -> Function:
    """`--clip`; the command gets `settings`."""
    return _with_settings(command, _CLIP)


def model_options(command: Function) -> Function:
    """`--clip`, and everything about the LMM and its cache; the command gets `settings`.

    A server's key is no option, since other users of a machine can see command lines: it comes from the environment,
    FIELDSCOPE_API_KEY or OPENAI_API_KEY.
    """
    return _with_settings(command, *_LMM, _CLIP)


def server_options(command: Function) -> Function:
    """`--lmm`, `--model`, `--max-side` and `--request-timeout`, for commands without a cache; the command gets
    `settings`."""
    return _with_settings(command, *_SERVER, _MAX_SIDE, _REQUEST_TIMEOUT)


def budget_options(command: Function) -> Function:
    """`--max-calls`, `--max-tokens` and `--deadline`; the command gets `budget`, what a query may spend."""
    return _with_budget(
        command,
        "budget",
        "",
        "At most N calls to the LMM for each query, including answers from the cache.",
        "At most N tokens for each query, prompt and answer together.",
        "Time limit for each query, from its first call. Then calls that are still running are abandoned, and the "
        "images are ranked by the answers so far.",
    )


def run_budget_options(command: Function) -> Function:
    """The same with `--run-` before them; the command gets `run_budget`, what all queries of a run may spend."""
    return _with_budget(
        command,
        "run_budget",
        "run-",
        "At most N calls for all queries of a strategy together. Queries that run at the same time share what is left.",
        "At most N tokens for all queries of a strategy together.",
        "Time limit for all queries of a strategy, from the first call. Calls that are still running are abandoned.",
    )


def dry_run_options(command: Function) -> Function:
    """`--dry-run` and `--prices`; the command gets `dry_run` and `price_file`, which goes with it."""

    @functools.wraps(command)
    def wrapped(**values: Any) -> Any:
        if values["price_file"] is not None and not values["dry_run"]:
            raise click.UsageError("--prices needs --dry-run")
        return command(**values)

    return _decorated(wrapped, *_DRY_RUN)  # type: ignore[no-any-return]


def _with_budget(command: Function, name: str, prefix: str, calls: str, tokens: str, deadline: str) -> Function:
    number, seconds = click.IntRange(min=0), click.FloatRange(min=0, min_open=True)
    limits: tuple[tuple[str, str, click.ParamType[Any], str, str], ...] = (
        ("max_calls", "max-calls", number, "N", calls),
        ("max_tokens", "max-tokens", number, "N", tokens),
        ("deadline", "deadline", seconds, "SECONDS", deadline),
    )

    @functools.wraps(command)
    def wrapped(**values: Any) -> Any:
        from fieldscope.agent.budget import Budget

        budget = Budget(**{limit: values.pop(f"{name}_{limit}") for limit, *_ in limits})
        return command(**{name: budget}, **values)

    options = (
        click.option(f"--{prefix}{option}", f"{name}_{limit}", type=kind, metavar=metavar, help=text)
        for limit, option, kind, metavar, text in limits
    )
    return _decorated(wrapped, *options)  # type: ignore[no-any-return]


def _with_settings(command: Function, *options: Callable[[Any], Any]) -> Function:
    @functools.wraps(command)
    def wrapped(**values: Any) -> Any:
        chosen = {name: values.pop(name) for name in Settings.__dataclass_fields__ if name in values}
        return command(settings=_checked(Settings(**chosen)), **values)

    return _decorated(wrapped, *options)  # type: ignore[no-any-return]


def _decorated(wrapped: Callable[..., Any], *options: Callable[[Any], Any]) -> Any:
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


def _checked(settings: Settings) -> Settings:
    if settings.lmm_url and not settings.model:
        raise click.UsageError("--lmm needs --model: the name under which the server serves the model")
    for name, value in (("--model", settings.model), ("--revision", settings.revision)):
        if value and not settings.lmm_url:
            raise click.UsageError(f"{name} goes with --lmm: the address of the server")
    return settings
