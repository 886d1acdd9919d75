"""Options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from fieldscope.service.cli.lmm_option import chosen_lmms
from fieldscope.service.wiring.settings import (
    CACHE_MODES,
    DEFAULT_ATTEMPTS,
    DEFAULT_CONCURRENCY,
    DEFAULT_IMAGE_FORMAT,
    DEFAULT_MAX_PIXELS,
    DEFAULT_MAX_SIDE,
    DEFAULT_REQUEST_TIMEOUT,
    DEFAULT_STRATEGY,
    IMAGE_FORMATS,
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


Option = Callable[[Any], Any]

PATH = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
COUNT = click.IntRange(min=1)
_SECONDS = click.FloatRange(min=0, min_open=True)


def folder_option(help_text: str, *names: str, **options: Any) -> Option:
    """`--out FOLDER`, or an option of other `names` that takes a folder."""
    return click.option(*(names or ("--out",)), type=FOLDER, metavar="FOLDER", help=help_text, **options)


def file_option(*names: str, help_text: str, **options: Any) -> Option:
    """An option that takes a file."""
    return click.option(*names, type=FILE, metavar="FILE", help=help_text, **options)


kept_option = folder_option(
    "Keep the ranking in FOLDER, which the viewer opens.  [default: a new folder below the data folder of `fieldscope "
    "serve`, which lists it]"
)


predicates_option = file_option(
    "--predicates",
    "predicates_file",
    help_text="Questions in YAML or JSON, asked of each image in place of the model's own (`fieldscope predicates` "
    "prints those).",
)


def count_option(*names: str, help_text: str, metavar: str = "N", **options: Any) -> Option:
    """An option that takes a whole number from 1 on."""
    return click.option(*names, type=COUNT, metavar=metavar, help=help_text, **options)


def price_option(purpose: str) -> Option:
    """`--prices FILE`."""
    content = "YAML with input_per_million, output_per_million and currency, or with these below each model's name."
    return file_option("--prices", "price_file", help_text=f"{purpose} {content}")


def lmm_flags(url: str, *, defaults: bool) -> dict[str, Option]:
    """The flags about the LMM and its server, by their names. The one for the server's address sets the parameter
    `url`; without `defaults` a flag that is not given is None."""

    def flag(name: str, parameter: str, help_text: str, default: Any = None, **kind: Any) -> Option:
        shown = {"default": default, "show_default": True} if defaults and default is not None else {}
        return click.option(f"--{name}", parameter, help=help_text, **kind, **shown)

    server = (
        "An OpenAI-compatible server, such as http://localhost:8000, or another back end by its name. May be repeated: "
        "ROLE=URL#NAME gives one role an LMM of its own (roles: reasoner, captioner, verifier, judge)."
    )
    timeout = "Time limit for one attempt of a call to the server, from the first to the last byte."
    attempts = "At most N attempts for a call that timed out or met a temporary error."
    cache = "on: ask only new questions. refresh: ask all again. replay: ask nothing. off: keep no answers."
    max_side = "Scale images with a longer side down before they are sent to the server."
    max_pixels = "Scale images with more pixels down before they are sent to the server."
    image_format = "Send images as jpeg (quality 95; small ones as PNG) or all of them as png."
    concurrency = "How many calls run at once, at most; the server gets as many of them as make it faster."
    return {
        "lmm": flag("lmm", url, server, multiple=True, metavar="[ROLE=]URL|NAME[:ARG]"),
        "model": flag("model", "model", "The name under which the server serves the model.", metavar="NAME"),
        "revision": flag("revision", "revision", "The model's version, if its name does not tell.", metavar="TEXT"),
        "max-side": flag("max-side", "max_side", max_side, DEFAULT_MAX_SIDE, type=COUNT, metavar="PIXELS"),
        "max-pixels": flag("max-pixels", "max_pixels", max_pixels, DEFAULT_MAX_PIXELS, type=COUNT, metavar="PIXELS"),
        "image-format": flag(
            "image-format", "image_format", image_format, DEFAULT_IMAGE_FORMAT, type=click.Choice(IMAGE_FORMATS)
        ),
        "concurrency": flag("concurrency", "concurrency", concurrency, DEFAULT_CONCURRENCY, type=COUNT, metavar="N"),
        "request-timeout": flag(
            "request-timeout", "request_timeout", timeout, DEFAULT_REQUEST_TIMEOUT, type=_SECONDS, metavar="SECONDS"
        ),
        "attempts": flag("attempts", "attempts", attempts, DEFAULT_ATTEMPTS, type=COUNT, metavar="N"),
        "cache": flag("cache", "cache_mode", cache, "on", type=click.Choice(CACHE_MODES)),
    }


ENCODER = (
    "The model of the first stage: MODEL:PRETRAINED as open_clip names it, a folder (path:FOLDER), URL#MODEL of an "
    "embeddings server, or another encoder by its name."
)
encoder_option = click.option(
    "--encoder",
    "--clip",
    "encoder",
    metavar="NAME|URL#MODEL|path:FOLDER",
    help=f"{ENCODER}  [default: the bundled CLIP]",
)
SCORER = (
    "A scoring model for strategies that use one, such as cross-encoder: URL#MODEL of a server of rerankers, a "
    "sentence-transformers CrossEncoder (path:FOLDER or hf:NAME), or another scorer by its name."
)
scorer_option = click.option("--scorer", "scorer", metavar="URL#MODEL|path:FOLDER|NAME[:ARG]", help=SCORER)
encoders_option = click.option(
    "--encoder",
    "--clip",
    "encoders",
    multiple=True,
    metavar="NAME|URL#MODEL|path:FOLDER ...",
    help=f"{ENCODER} It also scores candidates that come with a benchmark. With several, each strategy runs once with "
    "each of them.  [default: the bundled CLIP; for given candidates, the scores that they come with]",
)
_PROMPTS = (
    "The wording of the prompts: a set of `fieldscope prompts list`, or a folder of your own .md files.  "
    "[default: fieldnotes for the bundled LMM, else instruct]"
)
prompts_option = click.option("--prompts", metavar="SET|FOLDER", help=_PROMPTS)
prompt_sets_option = click.option(
    "--prompts",
    "prompt_sets",
    multiple=True,
    metavar="SET|FOLDER ...",
    help=f"{_PROMPTS} With several, each strategy runs once with each of them.",
)


metadata_option = file_option(
    "--metadata",
    help_text="A table about the images: CSV, JSON lines or Darwin Core, joined by file name. No model sees it.",
)
opened_option = click.option(
    "--open-groups", "opened", is_flag=True, help="Show near duplicates and bursts one by one, and not as one line."
)
filter_option = click.option(
    "--filter",
    "conditions",
    multiple=True,
    metavar="CONDITION",
    help="May be repeated. Only images whose metadata satisfies every condition, such as 'station = A1|B2', "
    "'count >= 2', 'date >= 2023-05', 'taxon = Canidae', or 'box = WEST,SOUTH,EAST,NORTH'.",
)


def _ray(ctx: click.Context, param: click.Parameter, address: str | None) -> str | None:
    if address and ":" not in address:
        raise click.BadParameter(
            f"{address!r} is no address; write HOST:PORT, or put --ray last to use the cluster on this machine",
            ctx,
            param,
        )
    return address


ray_option = click.option(
    "--ray",
    is_flag=False,
    flag_value="",
    metavar="[HOST:PORT]",
    callback=_ray,
    help="Work on a Ray cluster: the one at this address, else the one that runs on this machine or is started here.",
)


def _choices(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    choices: dict[str, str] = {}
    for text in values:
        name, found, value = text.partition("=")
        if not found or not name or not value:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE; write it so, such as reference=kept", ctx, param)
        choices[name] = value
    return choices


choices_option = click.option(
    "--set",
    "choices",
    multiple=True,
    metavar="NAME=VALUE ...",
    callback=_choices,
    help="A choice of a data set's protocol, such as reference=kept; docs/datasets.md lists them.",
)
runs_argument = click.argument("runs", nargs=-1, required=True, metavar="RUN ...", type=PATH)
runs_out = folder_option("The folder for the runs, with a folder for each strategy.", "-o", "--out", required=True)
_LMM = lmm_flags("lmm_url", defaults=True)
_DRY_RUN = (
    click.option("--dry-run", is_flag=True, help="Print how many calls and tokens it would take, and start nothing."),
    click.option(
        "--no-probe", is_flag=True, help="With --dry-run: don't ask the server what a picture costs (one call)."
    ),
    price_option("With --dry-run: what the calls would cost."),
)


def encoder_options(command: Function) -> Function:
    """`--encoder`; the command gets `settings`."""
    return _with_settings(command, encoder_option)


def model_options(command: Function) -> Function:
    """`--encoder`, `--prompts`, and everything about the LMM and its cache; the command gets `settings`.

    A server's key is no option, since other users of a machine can see command lines: it comes from the environment,
    FIELDSCOPE_API_KEY or OPENAI_API_KEY.
    """
    return _with_settings(command, *_LMM.values(), prompts_option, encoder_option)


def evaluation_options(command: Function) -> Function:
    """The same with any number of `--prompts` and of `--encoder`, which are the command's `prompt_sets`, `encoders`."""
    return _with_settings(command, *_LMM.values(), prompt_sets_option, encoders_option)


def server_options(command: Function) -> Function:
    """The model, how images are sent to it, `--request-timeout` and `--prompts`, for commands without a cache; the
    command gets `settings`."""
    flags = ("lmm", "model", "max-side", "max-pixels", "image-format", "request-timeout")
    return _with_settings(command, *(_LMM[flag] for flag in flags), prompts_option)


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


def promise_options(command: Function) -> Function:
    """`--precision`, `--confidence` and `--precision-from`; the command gets them as they are, None without."""
    share = click.FloatRange(0, 1, min_open=True, max_open=True)
    return _decorated(  # type: ignore[no-any-return]
        command,
        click.option(
            "--precision",
            type=share,
            metavar="SHARE",
            help="Keep the images above a threshold of P(match) that promises this precision, such as 0.9, on average "
            "over queries like the labelled ones. Needs --precision-from.",
        ),
        click.option(
            "--confidence",
            type=share,
            metavar="SHARE",
            help="How sure the promise of --precision must be.  [default: 0.95]",
        ),
        folder_option(
            "A finished run of `fieldscope eval` with this strategy and these models over labelled queries. The "
            "threshold is chosen from it.",
            "--precision-from",
        ),
    )


def dry_run_options(command: Function) -> Function:
    """`--dry-run`, `--no-probe` and `--prices`; the command gets `dry_run`, and `probe` and `price_file`, which go with
    it."""

    @functools.wraps(command)
    def wrapped(**values: Any) -> Any:
        if values["price_file"] is not None and not values["dry_run"]:
            raise click.UsageError("--prices needs --dry-run; add it")
        if values["no_probe"] and not values["dry_run"]:
            raise click.UsageError("--no-probe needs --dry-run; add it")
        return command(probe=not values.pop("no_probe"), **values)

    return _decorated(wrapped, *_DRY_RUN)  # type: ignore[no-any-return]


def _with_budget(command: Function, name: str, prefix: str, calls: str, tokens: str, deadline: str) -> Function:
    number, seconds = click.IntRange(min=0), _SECONDS
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
        if "lmm_url" in chosen:
            lmms = chosen_lmms(chosen["lmm_url"], chosen["model"])
            chosen |= {"lmm_url": lmms.lmm, "model": lmms.model, "roles": lmms.roles}
        return command(settings=_checked(Settings(**chosen)), **values)

    return _decorated(wrapped, *options)  # type: ignore[no-any-return]


def _decorated(wrapped: Callable[..., Any], *options: Callable[[Any], Any]) -> Any:
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


def _checked(settings: Settings) -> Settings:
    if settings.lmm_url and not settings.model:
        if settings.backend[0] != "openai":
            return replace(settings, model=settings.lmm_url)
        raise click.UsageError("--lmm needs --model; add the name under which the server serves the model")
    for name, value in (("--model", settings.model), ("--revision", settings.revision)):
        if value and not settings.lmm_url:
            raise click.UsageError(f"{name} goes with --lmm; add the address of the server")
    return settings
