"""A grid: one strategy with some settings, models and seeds varied, expanded to all their combinations.

A grid file is YAML: `base` is a strategy's name or file; every other key is a setting by its dotted name, with the list
of its values; `model` lists models and `seed` seeds. Paths count from the folder of the grid file.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from math import prod
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from fieldscope.agent.strategies.strategy import Strategy, load_strategy
from fieldscope.core.errors import ConfigError, StrategyError
from fieldscope.core.fingerprint import fingerprint
from fieldscope.core.validation import parse_yaml, read_document, unknown_name, validated
from fieldscope.eval.tuning.calibrate import require_selection_split
from fieldscope.eval.types import RunSummary
from fieldscope.prompts.prompt_set import INSTRUCT, PromptSet

MOST = 1000
"""So many members a grid may have."""

_LONGEST_NAME = 120  # a folder's name; file systems allow 255 bytes
_DESCRIPTIVE = frozenset({"name", "description", "source", "prompt_set"})  # not settings
_SETTINGS = tuple(key for key in Strategy.model_fields if key not in _DESCRIPTIVE)


class ModelRef(BaseModel):
    """A model on a server, as `--model`, `--lmm` and `--revision` name it; without `lmm` on the command's server."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1)
    lmm: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        return self.model + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True)
class Member:
    """One combination: the strategy, whose name says what is its own, and what was varied to get it.

    `model` is None where the grid leaves the model to the command. `settings` has the model and the seed in it, too.
    """

    strategy: Strategy
    settings: Mapping[str, Any]
    model: ModelRef | None = None


class _File(BaseModel):
    """The part of a grid file that names no setting."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str
    model: tuple[ModelRef, ...] | None = Field(default=None, min_length=1)
    seed: tuple[int, ...] | None = Field(default=None, min_length=1)


def load_grid(
    path: Path, prompts: PromptSet | str = INSTRUCT, served: PromptSet | str = INSTRUCT
) -> tuple[Member, ...]:
    """All members of a grid file, the last key varying fastest. `prompts` is the set that words their prompts, `served`
    that of members with a model of their own.

    Raises `ConfigError`, naming the file and the member or key, for whatever can't be used: unknown keys, values that a
    strategy does not take, values and members that are there twice, seeds where nothing is drawn at random, and more
    than `MOST` members.
    """
    data = parse_yaml(read_document(path, ConfigError), str(path), ConfigError)
    own = {key: value for key, value in data.items() if key in _File.model_fields}
    if isinstance(models := own.get("model"), list):
        own["model"] = [{"model": model} if isinstance(model, str) else model for model in models]
    file = validated(_File, own, str(path), ConfigError)
    lists: dict[str, Sequence[Any]] = {
        key: _values(value, f"{path}: {key}") for key, value in data.items() if key not in own
    }
    _require_settings(lists, path)
    if file.model is not None:
        _require_distinct_models(file.model, path)
        lists["model"] = file.model
    if file.seed is not None:
        lists["seed"] = _values(list(file.seed), f"{path}: seed")
    if (size := prod(map(len, lists.values()))) > MOST:
        raise ConfigError(f"{path} makes {size:,} strategies, more than {MOST:,}. Leave some values out.")
    base = str(path.parent / file.base) if Path(file.base).suffix in {".yaml", ".yml"} else file.base
    wording = prompts if file.model is None else served
    name = load_strategy(base, prompts=wording).name
    members = [
        _member(base, name, dict(zip(lists, chosen, strict=True)), path, wording) for chosen in product(*lists.values())
    ]
    _require_different(members, path)
    return _named_apart(members)


def pick(members: Sequence[Member], names: Sequence[str], path: Path) -> tuple[Member, ...]:
    """The members of these names, or all where none is given. Raises `ConfigError` for a name that there is not."""
    known = {member.strategy.name: member for member in members}
    for name in names:
        if name not in known:
            raise ConfigError(f"{path}: {unknown_name('member', name, known)}")
    return tuple(known[name] for name in dict.fromkeys(names)) if names else tuple(members)


def require_may_decide(members: Sequence[Member], split: str) -> None:
    """Raise `ConfigError` where several members would be scored on a split that may not decide a setting: a ranking of
    them is a choice. A single member was chosen before."""
    if len(members) > 1:
        try:
            require_selection_split(split)
        except ConfigError as error:
            raise ConfigError(
                f"{error} A grid of {len(members)} strategies is a choice among them; on another split, name only the "
                "one that "
                "you chose, with --member."
            ) from error


def ranked(summaries: Iterable[RunSummary]) -> list[RunSummary]:
    """The best first, by the benchmark's headline; equal ones by fewer calls; those that could not be scored last."""

    def place(summary: RunSummary) -> tuple[bool, float, int]:
        value = summary.metrics[summary.reported.mean]
        return value is None, -(value or 0.0), summary.cost.calls

    return sorted(summaries, key=place)


def _values(value: Any, where: str) -> list[Any]:
    """A list of different values. Raises `ConfigError` for anything else."""
    if not isinstance(value, list) or not value:
        raise ConfigError(f"{where}: must be a list of values. Write `[a, b]`.")
    for spelling, times in Counter(map(_spelled, value)).items():
        if times > 1:
            raise ConfigError(f"{where}: {spelling} occurs {times} times. Name each value once.")
    return value


def _require_settings(varied: Mapping[str, Any], path: Path) -> None:
    for key in varied:
        if key.partition(".")[0] not in _SETTINGS:
            known = (*_File.model_fields, *_SETTINGS)
            raise ConfigError(f"{path}: {unknown_name('key', key, known)}; settings are named like verify.top_k")
    for one, other in combinations(varied, 2):
        if f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}."):
            raise ConfigError(f"{path}: {one} and {other} set the same thing. Name one of them.")


def _require_distinct_models(models: Sequence[ModelRef], path: Path) -> None:
    """The cache knows a served model by name and revision, so two of the same would share their answers."""
    for name, times in Counter(map(str, models)).items():
        if times > 1:
            raise ConfigError(f"{path}: model: {name} occurs {times} times. Give each a revision of its own.")


def _member(base: str, name: str, chosen: Mapping[str, Any], path: Path, prompts: PromptSet | str) -> Member:
    settings = {key: str(value) if isinstance(value, ModelRef) else value for key, value in chosen.items()}
    name = _name(name, settings)
    varied = {key: _located(value, path) for key, value in chosen.items() if key not in _File.model_fields}
    own = {"name": name, **varied}
    try:
        strategy = load_strategy(base, own, prompts=prompts)
        if "seed" in chosen:
            strategy = load_strategy(base, own | _seeded(strategy, chosen["seed"]), prompts=prompts)
        if "model" in chosen and not strategy.prompts:
            raise StrategyError("it asks no model. Leave 'model' out of the grid.")
    except ConfigError as error:
        raise StrategyError(f"{path}, {name}: {error}") from error
    return Member(strategy, settings, chosen.get("model"))


def _located(value: Any, path: Path) -> Any:
    """The file of a prompt or of predicates, which counts from the grid's folder; every other value as it is."""
    is_file = isinstance(value, str) and value.endswith((".md", ".yaml", ".yml", ".json"))
    return str((path.parent / value).resolve()) if is_file else value


def _seeded(strategy: Strategy, seed: int) -> dict[str, int]:
    """The settings that make every stage that samples draw from `seed`.

    Stages ask at temperature 0, where nothing is drawn, unless their `extra_body` tells the server another. Raises
    `StrategyError` where no stage does.
    """
    bodies = dict(_extra_bodies(strategy.model_dump(mode="json", exclude_none=True), ""))
    warm = {where: body.get("temperature") for where, body in bodies.items()}
    sampling = [where for where, degree in warm.items() if isinstance(degree, int | float) and degree > 0]
    if not sampling:
        raise StrategyError(
            "it draws nothing at random (every stage asks at temperature 0), so seeds would repeat the same run. Leave "
            "'seed' out, or give a stage a temperature in its extra_body."
        )
    return {f"{where}.seed": seed for where in sampling}


def _extra_bodies(settings: Mapping[str, Any], where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            if key == "extra_body":
                yield f"{where}{key}", value
            else:
                yield from _extra_bodies(value, f"{where}{key}.")


def _require_different(members: Sequence[Member], path: Path) -> None:
    seen: dict[tuple[str, ModelRef | None], str] = {}
    for member in members:
        name = member.strategy.name
        if (twin := seen.setdefault((member.strategy.fingerprint, member.model), name)) != name:
            raise ConfigError(
                f"{path}: {twin} and {name} are the same strategy. Remove one of the settings that make no difference."
            )


def _named_apart(members: Sequence[Member]) -> tuple[Member, ...]:
    """The members, of which those with names that a file system might take for one have a digest too."""
    names = Counter(member.strategy.name.casefold() for member in members)
    apart = []
    for member in members:
        strategy = member.strategy
        if names[strategy.name.casefold()] > 1:
            digest = fingerprint([_spelled(value) for value in member.settings.values()])[:8]
            strategy = strategy.model_copy(update={"name": f"{strategy.name}-{digest}"})
        apart.append(replace(member, strategy=strategy))
    return tuple(apart)


def _name(base: str, settings: Mapping[str, Any]) -> str:
    """`agent~top_k=50,prior_weight=0.3`: each setting by the last part of its name, or by all where that is not enough.

    Letters, digits and `. _ + - ~ = ,` only, which every file system and shell takes as they are.
    """
    last = Counter(key.rpartition(".")[2] for key in settings)
    parts = []
    for key, value in settings.items():
        short = key.rpartition(".")[2]
        parts.append(f"{short if last[short] == 1 else key}={_safe(_spelled(value))}")
    name = f"{base}~{','.join(parts)}" if parts else base
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[: _LONGEST_NAME - 9]}-{fingerprint(name)[:8]}"


def _spelled(value: Any) -> str:
    """A value as text that distinguishes it from others."""
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value, default=str)


def _safe(text: str) -> str:
    """The text with signs that file systems and shells take as they are; numbers stay what they are."""
    safe = re.sub(r"[^A-Za-z0-9.+_-]+", "-", text)
    return safe if safe == text else safe.strip("-") or "empty"
