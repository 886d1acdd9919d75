"""One line for a fault in a user's file, which names the file and the key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from yaml.composer import Composer, ComposerError

from fieldscope.core.errors import ConfigError

_LONGEST = 1_000_000  # characters of a YAML document
_DEEPEST = 50
_MOST_VALUES = 20_000  # with aliases written out
_REMEMBERED = 256  # documents: strategies share prompts, and PyYAML takes some 10 ms for each

ModelT = TypeVar("ModelT", bound=BaseModel)


def read_document(path: Path, error: type[ConfigError]) -> str:
    """A user's file as UTF-8 text. Raises `error` where it can't be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        reason = getattr(cause, "strerror", None) or "not UTF-8 text"
        raise error(f"{path}: can't be read ({reason}); check the file") from cause


def parse_yaml(text: str, where: str, error: type[ConfigError]) -> dict[str, Any]:
    """A YAML mapping. Raises `error`, naming `where` and the line, for anything else."""
    try:
        data = load_yaml(text)
    except yaml.YAMLError as cause:
        mark = getattr(cause, "problem_mark", None)
        at = f", line {mark.line + 1}" if mark else ""
        problem = getattr(cause, "problem", None) or "unreadable"
        raise error(f"{where}{at}: not valid YAML ({problem}); correct it there") from cause
    if not isinstance(data, dict):
        raise error(f"{where}: must be a YAML mapping of keys to values; write lines like `key: value`")
    return {str(key): value for key, value in data.items()}


def load_yaml(text: str, *, all_text: bool = False) -> Any:
    """What a YAML document holds; with `all_text` every scalar is a string, so that `no` is a word.

    Raises `yaml.YAMLError` for a document that is no YAML, or larger than any that a user writes: in characters, in
    depth, or in values once its aliases are followed.
    """
    if len(text) > _LONGEST:
        raise yaml.MarkedYAMLError(problem=f"it has {len(text):,} characters, over the limit of {_LONGEST:,}")
    try:
        return deepcopy(_values(text, all_text))
    except (ValueError, OverflowError) as cause:  # a date that is none, a number of thousands of digits
        raise yaml.MarkedYAMLError(problem=" ".join(str(cause).split())) from cause


@lru_cache(_REMEMBERED)
def _values(text: str, all_text: bool) -> Any:
    """What `load_yaml` returns a copy of."""
    return yaml.load(text, _TextLoader if all_text else _ValueLoader)


class _Bounded(Composer):
    """Composes a document's values, and counts them as if every alias were written out."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)  # type: ignore[call-arg]  # the loader's, which comes behind this class
        self._depth = self._values = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event, before = self.peek_event(), self._values  # type: ignore[attr-defined]  # the parser's
        self._depth += 1
        _require(self._depth <= _DEEPEST, f"it is nested more than {_DEEPEST} deep", event)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(event, yaml.AliasEvent):
            _require(id(node) in self._sizes, "an alias stands inside of what it names", event)
            self._values += self._sizes[id(node)]
        else:
            self._values += 1
            self._sizes[id(node)] = self._values - before
        _require(self._values <= _MOST_VALUES, f"it holds more than {_MOST_VALUES:,} values", event)
        if isinstance(node, yaml.ScalarNode):
            whole = not any("\ud800" <= character <= "\udfff" for character in node.value)
            _require(whole, "it has half of a character, which UTF-8 can't write", event)
        return node


def _require(sound: bool, problem: str, event: Any) -> None:
    if not sound:
        mark: Any = event.start_mark  # of either of PyYAML's two parsers
        raise ComposerError(problem=problem, problem_mark=mark)


class _ValueLoader(_Bounded, yaml.SafeLoader):
    """Numbers, dates and truth values are what they say."""


class _TextLoader(_Bounded, yaml.BaseLoader):
    """Every scalar is text."""


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
    """The sentence for an unknown name: the nearest known one, and all known ones."""
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
