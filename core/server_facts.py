"""What a server tells of the model behind a name, as far as it stays the same for as long as the model does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from pydantic import BaseModel, ValidationError

WEIGHTS = ("root", "parent", "revision", "digest", "sha", "quantization", "dtype", "params", "size")
"""Facts that tell two models of one name apart. A model list entry has them as such (vLLM and SGLang: `root`, the
folder or the hub's name of the weights), or llama.cpp's below `meta` (`n_params`, `size`). When it was made
(`created`), for how long a context (`max_model_len`) and at which address say nothing of its answers."""

_IMAGES_BY_NAME = (0, 12)
"""The first version of vLLM that certainly finds an image by its `uuid` alone. Those before 0.11 leave such an image
out, and say so in their log only."""

_OTHERS = ("owned_by",)
_META = {"params": "n_params", "size": "size"}
_PLAIN = re.compile(r"\w[\w.+@:/-]{0,79}")


@dataclass(frozen=True)
class Served:
    """What a server's list of models says of one: whether it names it (false where there is no list that can be read),
    and how many tokens its context has, None where it does not say."""

    listed: bool
    context: int | None = None


class _Entry(BaseModel):
    id: str

    model_config = {"extra": "allow"}


class _Models(BaseModel):
    data: list[_Entry]


class _Version(BaseModel):
    version: str


def read_facts(models: str | None, version: str | None, model: str) -> dict[str, str]:
    """The facts in a model list (`/v1/models`) and in what tells the server's version (`/version`, as vLLM has it), in
    a fixed order; None and anything that is neither tell nothing."""
    entry = _entry(models, model)
    meta = entry.get("meta")
    nested = {name: meta.get(key) for name, key in _META.items()} if isinstance(meta, Mapping) else {}
    values = {name: entry.get(name, nested.get(name)) for name in (*WEIGHTS, *_OTHERS)} | {"version": _version(version)}
    return {name: fact for name, value in values.items() if (fact := _spelled(value))}


def listed_models(models: str | None) -> list[str] | None:
    """The names in a model list; None where it can't be read as one."""
    try:
        return [entry.id for entry in _Models.model_validate_json(models or "").data]
    except ValidationError:
        return None


def finds_images_by_name(facts: Mapping[str, str]) -> bool:
    """Whether a server with these facts is a vLLM that finds an image that it has by its `uuid`."""
    version = re.match(r"(\d+)\.(\d+)", facts.get("version", "")) if facts.get("owned_by") == "vllm" else None
    return version is not None and (int(version[1]), int(version[2])) >= _IMAGES_BY_NAME


def _entry(models: str | None, model: str) -> Mapping[str, Any]:
    try:
        listed = _Models.model_validate_json(models or "").data
    except ValidationError:
        return {}
    return next((entry.model_dump() for entry in listed if entry.id == model), {})


def _version(body: str | None) -> str | None:
    try:
        return _Version.model_validate_json(body or "").version
    except ValidationError:
        return None


def _spelled(value: Any) -> str:
    """A fact as it stands in an identity, which pages and run folders show: short, on one line, and a path or an
    address as its hash."""
    if not isinstance(value, str | int):
        return ""
    text = str(value).strip()
    plain = _PLAIN.fullmatch(text) and "://" not in text and ":/" not in text
    return text if plain or not text else sha256(text.encode()).hexdigest()[:12]
