"""What the service can be told: by flag, by variable, by file, in this order of precedence, or else the defaults."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator

from fieldscope.core.errors import ConfigError
from fieldscope.core.paths import cache_folder
from fieldscope.core.validation import read_document, validated
from fieldscope.service.server.limits import Limits
from fieldscope.service.wiring.settings import (
    DEFAULT_ATTEMPTS,
    DEFAULT_CONCURRENCY,
    DEFAULT_MAX_SIDE,
    DEFAULT_REQUEST_TIMEOUT,
    DEFAULT_STRATEGY,
    Settings,
)

FILE = "fieldscope.toml"
"""The name of a settings file that is found without being named: in the working folder, or in the user's own."""

PREFIX = "FIELDSCOPE_"
DEFAULT = "default"
NO_CLIP = "none"

_ELSEWHERE = frozenset(
    {"FIELDSCOPE_CACHE", "FIELDSCOPE_DEBUG", "FIELDSCOPE_CONFIG", "FIELDSCOPE_STORE"}
)  # variables that others read
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _listed(value: Any) -> Any:
    """A variable holds several values with commas between them."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _mapped(value: Any) -> Any:
    """`NAME=FOLDER`, several of them with commas in between, or as a list."""
    if isinstance(value, Mapping):
        return value
    pairs = [part.partition("=") for part in _listed(value)]
    if bad := next((name for name, equals, folder in pairs if not (name and equals and folder)), None):
        raise ValueError(f"{bad!r} is no NAME=FOLDER")
    return {name.strip(): folder.strip() for name, _, folder in pairs}


class ServerSettings(BaseModel):
    """Where it listens, which models and collections it holds, and what a request may ask for.

    `lmm`, `model`, `revision`, `concurrency`, `max_side`, `request_timeout`, `attempts`, `clip`, `cache_mode` and
    `cache_file` are those of the command line; `clip` may be "none". `collections` maps names to folders of images,
    or to libraries that `fieldscope index` made; without any there is FieldNotes' test collection. `strategies` are
    files, or folders of files, of strategies beside the shipped ones. Pictures are fetched from `image_hosts`
    alone. `keys` is the file of API keys, `data` the folder of all that the service keeps, `runs` the folder whose
    runs are shown. `grace` is how many seconds a shutdown waits for what is in flight.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8080, ge=0, le=65535)
    lmm: str | None = None
    model: str | None = None
    revision: str | None = None
    api_key: SecretStr | None = None
    concurrency: int = Field(default=DEFAULT_CONCURRENCY, ge=1)
    max_side: int = Field(default=DEFAULT_MAX_SIDE, ge=1)
    request_timeout: float = Field(default=DEFAULT_REQUEST_TIMEOUT, gt=0, allow_inf_nan=False)
    attempts: int = Field(default=DEFAULT_ATTEMPTS, ge=1)
    clip: str | None = None
    cache_mode: Annotated[str, Field(pattern="^(on|refresh|replay|off)$")] = "on"
    cache_file: Path | None = None
    collections: Annotated[Mapping[str, Path], BeforeValidator(_mapped)] = {}
    strategy: str = DEFAULT_STRATEGY
    strategies: Annotated[tuple[Path, ...], BeforeValidator(_listed)] = ()
    image_hosts: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    keys: Path | None = None
    data: Path | None = None
    runs: Path | None = None
    grace: float = Field(default=30.0, ge=0, le=3600)
    limits: Limits = Limits()

    @field_validator("collections")
    @classmethod
    def _names_fit_addresses(cls, collections: Mapping[str, Path]) -> Mapping[str, Path]:
        if bad := next((name for name in collections if not _NAME.fullmatch(name)), None):
            raise ValueError(f"{bad!r} can't be a collection's name; use letters, digits, dots, dashes and underscores")
        return collections

    @property
    def models(self) -> Settings:
        """The same as the command line has it."""
        return Settings(
            lmm_url=self.lmm,
            model=self.model,
            revision=self.revision,
            api_key=self.api_key.get_secret_value() if self.api_key else None,
            clip=None if self.clip == NO_CLIP else self.clip,
            cache_mode=self.cache_mode,  # type: ignore[arg-type]  # the pattern lets nothing else through
            cache_file=self.cache_file,
            concurrency=self.concurrency,
            max_side=self.max_side,
            request_timeout=self.request_timeout,
            attempts=self.attempts,
        )

    @property
    def data_folder(self) -> Path:
        """Where pictures, traces and jobs are kept."""
        return self.data or cache_folder() / "service"

    @property
    def keys_file(self) -> Path:
        """Where the API keys' hashes are kept."""
        return self.keys or self.data_folder / "keys.json"

    @property
    def runs_folder(self) -> Path:
        """The runs that are shown."""
        return self.runs or self.data_folder / "runs"

    @property
    def loopback(self) -> bool:
        """Whether nobody but this machine can reach it."""
        return is_loopback(self.host)


@dataclass(frozen=True)
class Told:
    """Settings, and for each one by its dotted name who set it: a flag, a variable, a file's path, or `default`."""

    settings: ServerSettings
    origins: Mapping[str, str]


def read_settings(
    flags: Mapping[str, Any] | None = None, file: Path | None = None, environ: Mapping[str, str] | None = None
) -> Told:
    """All settings, from `flags` (dotted name -> value), variables, a file, and the defaults.

    The file is `file`, or what `FIELDSCOPE_CONFIG` names, or `fieldscope.toml` in the working folder or in the user's
    configuration folder, if there is one. Paths in it count from its folder. Raises `ConfigError`, which names the key.
    """
    environ = os.environ if environ is None else environ
    merged: dict[str, Any] = {}
    origins = dict.fromkeys(_keys(), DEFAULT)
    for origin, key, value in (*_from_file(file, environ), *_from_variables(environ), *_from_flags(flags or {})):
        merged[key] = value
        origins[key] = origin
    settings = validated(ServerSettings, _nested(merged), "settings", ConfigError)
    _require_sense(settings)
    return Told(settings, origins)


def user_file(environ: Mapping[str, str]) -> Path:
    """The user's own settings file, whether it is there or not."""
    base = environ.get("XDG_CONFIG_HOME")
    return (Path(base).expanduser() if base else Path.home() / ".config") / "fieldscope" / FILE


def is_loopback(host: str) -> bool:
    """Whether a host, without its port, is this machine: the name `localhost`, or a loopback address."""
    name = host.strip("[]").rstrip(".").lower()
    try:
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


def flag_of(key: str) -> str:
    """The flag that sets a key."""
    special = {"cache_mode": "--cache", "collections": "--collection", "image_hosts": "--image-host"}
    return special.get(key) or ("--limit" if key.startswith("limits.") else "--" + key.replace("_", "-"))


def variable_of(key: str) -> str:
    """The variable that sets a key."""
    return PREFIX + key.replace(".", "_").upper()


def _keys() -> Iterator[str]:
    """The dotted name of every setting, in order."""
    for name in ServerSettings.model_fields:
        yield from (f"limits.{limit}" for limit in Limits.model_fields) if name == "limits" else (name,)


def _from_file(file: Path | None, environ: Mapping[str, str]) -> Iterator[tuple[str, str, Any]]:
    named = file or (Path(environ["FIELDSCOPE_CONFIG"]) if environ.get("FIELDSCOPE_CONFIG") else None)
    path = named or next((path for path in (Path(FILE), user_file(environ)) if path.is_file()), None)
    if path is None:
        return
    try:
        data = tomllib.loads(read_document(path, ConfigError))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid TOML ({error})") from error
    settings = validated(ServerSettings, data, str(path), ConfigError)
    for key, value in data.items():
        if key == "limits":
            yield from ((str(path), f"limits.{limit}", number) for limit, number in value.items())
        else:
            yield str(path), key, _from_folder(key, value, getattr(settings, key), path.parent)


def _from_folder(key: str, value: Any, read: Any, folder: Path) -> Any:
    """A file's paths count from where it lies."""
    if isinstance(read, Path):
        return folder / read.expanduser()
    if key == "collections":
        return {name: folder / path.expanduser() for name, path in read.items()}
    if key == "strategies":
        return [folder / path.expanduser() for path in read]
    if key == "clip" and isinstance(value, str) and (folder / value).is_dir():
        return str(folder / value)
    return value


def _from_variables(environ: Mapping[str, str]) -> Iterator[tuple[str, str, Any]]:
    known = {variable_of(key): key for key in _keys()}
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in _ELSEWHERE or not environ[name]:
            continue
        if name not in known:
            near = difflib.get_close_matches(name, [*known, *_ELSEWHERE], n=1)
            raise ConfigError(f"unknown variable {name}" + (f" (did you mean {near[0]}?)" if near else ""))
        validated(ServerSettings, _nested({known[name]: environ[name]}), name, ConfigError)
        yield name, known[name], environ[name]


def _from_flags(flags: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    for key, value in flags.items():
        validated(ServerSettings, _nested({key: value}), flag_of(key), ConfigError)
        yield flag_of(key), key, value


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        group, _, name = key.rpartition(".")
        (nested.setdefault(group, {}) if group else nested)[name] = value
    return nested


def _require_sense(settings: ServerSettings) -> None:
    if settings.lmm and not settings.model:
        raise ConfigError("lmm needs model: the name under which that server serves the model")
    for name in ("model", "revision"):
        if getattr(settings, name) and not settings.lmm:
            raise ConfigError(f"{name} goes with lmm: the address of the server")
