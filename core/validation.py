"""Turning what pydantic and YAML find wrong with a user's file into one line that names the file and the key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from core.errors import ConfigError

ModelT = TypeVar("ModelT", bound=BaseModel)


def read_document(path: Path, error: type[ConfigError]) -> str:
    """A user's file as UTF-8 text. Raises `error` where it can't be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        raise error(f"{path}: can't be read ({getattr(cause, 'strerror', None) or 'not UTF-8 text'})") from cause


def parse_yaml(text: str, where: str, error: type[ConfigError]) -> dict[str, Any]:
    """A YAML mapping. Raises `error`, naming `where` and the line, for anything else."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as cause:
        mark = getattr(cause, "problem_mark", None)
        at = f", line {mark.line + 1}" if mark else ""
        raise error(f"{where}{at}: not valid YAML ({getattr(cause, 'problem', None) or 'unreadable'})") from cause
    if not isinstance(data, dict):
        raise error(f"{where}: must be a YAML mapping of keys to values")
    return {str(key): value for key, value in data.items()}


def validated(
    model: type[ModelT], data: dict[str, Any], where: str, error: type[ConfigError], context: Any = None
) -> ModelT:
    """`data` as a `model`. Raises `error` with one line that names `where`, and for each fault its key."""
    try:
        return model.model_validate(data, context=context)
    except ValidationError as cause:
        faults = "; ".join(_fault(dict(fault), model) for fault in cause.errors())
        raise error(f"{where}: {faults}") from cause


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The sentence for a name that does not exist: the nearest one that does, and all that there are."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"unknown {kind} {name!r}{hint}; known: {', '.join(names) or 'none'}"


def _fault(fault: dict[str, Any], model: type[BaseModel]) -> str:
    path = [str(step) for step in fault["loc"]]
    key = ".".join(path)
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(path[-1], _keys_at(model, path[:-1]), n=1)
        return f"unknown key {key!r}" + (f" (did you mean {near[0]!r}?)" if near else "")
    if fault["type"] == "missing":
        return f"missing key {key!r}"
    message = " ".join(str(fault["msg"]).removeprefix("Value error, ").split())
    return f"{key}: {message}" if key else message


def _keys_at(model: type[BaseModel], path: list[str]) -> list[str]:
    """The keys that are allowed at `path`, following nested models (also optional ones)."""
    for step in path:
        field = model.model_fields.get(step)
        if field is None:
            return []
        choices = [field.annotation, *getattr(field.annotation, "__args__", ())]
        nested = [c for c in choices if isinstance(c, type) and issubclass(c, BaseModel)]
        if not nested:
            return []
        model = nested[0]
    return list(model.model_fields)
