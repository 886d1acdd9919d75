"""The settings of the service: from flags, else variables, else a TOML file, else the defaults."""

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
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, SettingsConfigDict

from fieldscope.agent.lmm.server_profile import ServerProfile
from fieldscope.agent.roles import ROLES, Role
from fieldscope.core.errors import ConfigError
from fieldscope.core.paths import cache_folder
from fieldscope.core.validation import read_document, unknown_name, validated
from fieldscope.service.server.limits import Limits
from fieldscope.service.server.role_table import RoleTable, role_tables
from fieldscope.service.wiring.settings import (
    DEFAULT_ATTEMPTS,
    DEFAULT_CONCURRENCY,
    DEFAULT_IMAGE_FORMAT,
    DEFAULT_MAX_PIXELS,
    DEFAULT_MAX_SIDE,
    DEFAULT_REQUEST_TIMEOUT,
    DEFAULT_STRATEGY,
    IMAGE_FORMATS,
    Settings,
    require_role_models,
)

FILE = "fieldscope.toml"
"""The name of the settings file that is read by default, in the working folder or in the user's folder."""

PREFIX = "FIELDSCOPE_"
GROUPS: Mapping[str, type[BaseModel]] = {"limits": Limits, "profile": ServerProfile}
"""Settings that are tables of settings."""

DEFAULT = "default"
NO_ENCODER = "none"
_OLD_NAMES = {"clip": "encoder"}
"""Names that settings had in files and variables of earlier releases, and still may have."""

_OTHER_VARIABLES = frozenset(
    {"FIELDSCOPE_CACHE", "FIELDSCOPE_DEBUG", "FIELDSCOPE_CONFIG", "FIELDSCOPE_STORE", "FIELDSCOPE_SERVICE_KEY"}
)
_SERVER_KEYS = frozenset({"FIELDSCOPE_API_KEY_ENCODER", "FIELDSCOPE_API_KEY_SCORER"})
_INNER = {**{group: tuple(model.model_fields) for group, model in GROUPS.items()}, "roles": ROLES}
"""The names of the settings in each group of them."""

_ROLE_KEYS = frozenset(f"FIELDSCOPE_API_KEY_{role.upper()}" for role in ROLES)
_COLLECTION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _split_list(value: Any) -> Any:
    """The parts of a variable, which separates several values by commas."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _split_pairs(value: Any) -> Any:
    """A mapping from `NAME=FOLDER` pairs: a list of them, or a string that separates them by commas."""
    if isinstance(value, Mapping):
        return value
    pairs = [part.partition("=") for part in _split_list(value)]
    if bad := next((name for name, equals, folder in pairs if not (name and equals and folder)), None):
        raise ValueError(f"{bad!r} is not NAME=FOLDER; write it as in birds=/data/birds")
    return {name.strip(): folder.strip() for name, _, folder in pairs}


class ServerSettings(BaseModel):
    """Where the service listens, its models and collections, and the limits of a request.

    `lmm`, `model`, `revision`, `concurrency`, `max_side`, `max_pixels`, `image_format`, `request_timeout`, `attempts`,
    `prompts`, `encoder`, `scorer`, `cache_mode` and `cache_file` are those of the command line; `encoder` may be
    "none". `roles` has the LMMs of single roles. `collections` maps names to folders of images, or to libraries that
    `fieldscope index` made; without any there is FieldNotes' test collection. `metadata` maps the names of collections
    to tables about their images. `strategies` are strategy files, or
    folders of them, beside the shipped ones. Images are fetched from `image_hosts` only. `keys` is the file of API
    keys, `data` the folder of all that the service keeps, `runs` the folder whose runs are shown. `precision_from` is a
    finished run over labelled queries, from which promised precisions get their threshold. `prices` is a file
    of what the models' tokens cost, which is said before a search starts. `grace` is how many seconds a shutdown waits
    for calls in flight.
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
    max_pixels: int = Field(default=DEFAULT_MAX_PIXELS, ge=1)
    image_format: str = Field(default=DEFAULT_IMAGE_FORMAT, pattern=f"^({'|'.join(IMAGE_FORMATS)})$")
    request_timeout: float = Field(default=DEFAULT_REQUEST_TIMEOUT, gt=0, allow_inf_nan=False)
    attempts: int = Field(default=DEFAULT_ATTEMPTS, ge=1)
    roles: Annotated[Mapping[Role, RoleTable], NoDecode, BeforeValidator(role_tables)] = {}
    prompts: str | None = None
    encoder: str | None = None
    scorer: str | None = None
    cache_mode: Annotated[str, Field(pattern="^(on|refresh|replay|off)$")] = "on"
    cache_file: Path | None = None
    collections: Annotated[Mapping[str, Path], NoDecode, BeforeValidator(_split_pairs)] = {}
    metadata: Annotated[Mapping[str, Path], NoDecode, BeforeValidator(_split_pairs)] = {}
    strategy: str = DEFAULT_STRATEGY
    strategies: Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_split_list)] = ()
    image_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_list)] = ()
    keys: Path | None = None
    data: Path | None = None
    runs: Path | None = None
    precision_from: Path | None = None
    prices: Path | None = None
    grace: float = Field(default=30.0, ge=0, le=3600)
    limits: Limits = Limits()
    profile: ServerProfile = ServerProfile()

    @field_validator("collections")
    @classmethod
    def _require_addressable_names(cls, collections: Mapping[str, Path]) -> Mapping[str, Path]:
        if bad := next((name for name in collections if not _COLLECTION_NAME.fullmatch(name)), None):
            raise ValueError(f"{bad!r} can't be a collection's name; use letters, digits, dots, dashes and underscores")
        return collections

    @property
    def models(self) -> Settings:
        """The part of them that all commands share."""
        return Settings(
            lmm_url=self.lmm,
            model=self.model,
            revision=self.revision,
            api_key=self.api_key.get_secret_value() if self.api_key else None,
            encoder=None if self.encoder == NO_ENCODER else self.encoder,
            cache_mode=self.cache_mode,  # type: ignore[arg-type]  # the pattern lets nothing else through
            cache_file=self.cache_file,
            concurrency=self.concurrency,
            max_side=self.max_side,
            max_pixels=self.max_pixels,
            image_format=self.image_format,  # type: ignore[arg-type]  # as above
            request_timeout=self.request_timeout,
            attempts=self.attempts,
            roles={role: table.model for role, table in self.roles.items()},
            profile=self.profile if self.profile.model_fields_set else None,
            prompts=self.prompts,
            scorer=self.scorer,
        )

    @property
    def data_folder(self) -> Path:
        """The folder of uploaded images, traces and jobs."""
        return self.data or cache_folder() / "service"

    @property
    def keys_file(self) -> Path:
        """The file of the API keys' hashes."""
        return self.keys or self.data_folder / "keys.json"

    @property
    def runs_folder(self) -> Path:
        """The folder whose runs are shown."""
        return self.runs or self.data_folder / "runs"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        return is_loopback(self.host)


@dataclass(frozen=True)
class SourcedSettings:
    """Settings, and the source of each by its dotted name: a flag, a variable, a file's path, or `default`."""

    settings: ServerSettings
    origins: Mapping[str, str]


def read_settings(
    flags: Mapping[str, Any] | None = None, file: Path | None = None, environ: Mapping[str, str] | None = None
) -> SourcedSettings:
    """All settings, from `flags` (dotted name -> value), variables, a file, and the defaults.

    The file is `file`, or the one that `FIELDSCOPE_CONFIG` names, or `fieldscope.toml` in the working folder or in the
    user's configuration folder, if there is one. Paths in it are relative to its folder. Raises `ConfigError`, which
    names the source and the key.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    origins = dict.fromkeys(_keys(), DEFAULT)
    given = ((flag_of(key), {key: value}) for key, value in (flags or {}).items())
    for origin, layer in (*_file_layers(file, environ), *_variable_layers(environ), *given):
        validated(ServerSettings, _nested(layer), origin, ConfigError)
        values |= layer
        origins |= dict.fromkeys(layer, origin)
    settings = validated(ServerSettings, _nested(values), "settings", ConfigError)
    _require_server_and_model(settings)
    if unknown := next((name for name in settings.metadata if name not in settings.collections), None):
        raise ConfigError(f"metadata names an {unknown_name('collection', unknown, settings.collections)}")
    return SourcedSettings(settings, origins)


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
    group = {"limits": "--limit", "roles": "--lmm"}.get(key.partition(".")[0])
    return special.get(key) or group or "--" + key.replace("_", "-")


def variable_of(key: str) -> str:
    """The variable that sets a key; empty for the LMM of a role, which has none."""
    return "" if key.startswith("roles.") else PREFIX + key.replace(".", "_").upper()


def _keys() -> Iterator[str]:
    """The dotted name of every setting, in order."""
    for name in ServerSettings.model_fields:
        inner = _INNER.get(name)
        yield from (f"{name}.{key}" for key in inner) if inner else (name,)


Layer = tuple[str, Mapping[str, Any]]
"""A source's name, and the values that it gives by dotted names."""


def _file_layers(file: Path | None, environ: Mapping[str, str]) -> Iterator[Layer]:
    named = file or (Path(environ["FIELDSCOPE_CONFIG"]) if environ.get("FIELDSCOPE_CONFIG") else None)
    path = named or next((path for path in (Path(FILE), user_file(environ)) if path.is_file()), None)
    if path is None:
        return
    try:
        data = tomllib.loads(read_document(path, ConfigError))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid TOML ({error}); correct the file") from error
    data = _with_new_names(data, _OLD_NAMES, str(path))
    settings = validated(ServerSettings, data, str(path), ConfigError)
    yield str(path), _flat({key: _from_folder(key, value, settings, path.parent) for key, value in data.items()})


def _from_folder(key: str, value: Any, settings: ServerSettings, folder: Path) -> Any:
    """A setting of a file in `folder`, whose paths are relative to it."""
    read = getattr(settings, key)
    if isinstance(read, Path):
        return folder / read.expanduser()
    if key in ("collections", "metadata"):
        return {name: folder / path.expanduser() for name, path in read.items()}
    if key == "strategies":
        return [folder / path.expanduser() for path in read]
    if key in ("encoder", "scorer", "prompts") and read:
        kind, named = ("path:", read[5:]) if read.startswith("path:") else ("", read)
        if (folder / named).is_dir():
            return f"{kind}{folder / named}"
    return value


def _with_new_names(values: Mapping[str, Any], names: Mapping[str, str], source: str) -> dict[str, Any]:
    """The values, with a setting's new name in place of its old one. Raises `ConfigError` where both are there."""
    renamed = dict(values)
    for old, new in names.items():
        if old in renamed and new in renamed:
            raise ConfigError(f"{source}: {old} and {new} are one setting; remove {old}")
        if old in renamed:
            renamed[new] = renamed.pop(old)
    return renamed


class _VariableSettings(ServerSettings, BaseSettings):
    """How variables give the settings: FIELDSCOPE_PORT, FIELDSCOPE_LIMITS_MAX_BODY, and so on."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="_", env_nested_max_split=1)


def _variable_layers(environ: Mapping[str, str]) -> Iterator[Layer]:
    old_names = {variable_of(old): variable_of(new) for old, new in _OLD_NAMES.items()}
    known = {*map(variable_of, _keys()), *_OTHER_VARIABLES, *_ROLE_KEYS, *_SERVER_KEYS, *old_names}
    given = {name: value for name, value in environ.items() if name.startswith(PREFIX) and value}
    if unknown := min(given.keys() - known, default=None):
        near = difflib.get_close_matches(unknown, known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ConfigError(f"unknown variable {unknown}{hint}; `fieldscope config` lists the variables")
    source = EnvSettingsSource(_VariableSettings)
    renamed = _with_new_names(given, old_names, "the environment")
    source.env_vars = {name.lower(): value for name, value in renamed.items()}
    origins = {new: old for old, new in old_names.items() if old in given}
    for key, value in _flat(source()).items():
        yield origins.get(variable_of(key), variable_of(key)), {key: value}


def _flat(nested: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their dotted names."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= {f"{key}.{name}": own for name, own in value.items()} if key in _INNER else {key: value}
    return flat


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        group, _, name = key.rpartition(".")
        (nested.setdefault(group, {}) if group else nested)[name] = value
    return nested


def _require_server_and_model(settings: ServerSettings) -> None:
    if settings.lmm and not settings.model:
        raise ConfigError("lmm needs model: the name under which that server serves the model. Set --model, too")
    for name in ("model", "revision"):
        if getattr(settings, name) and not settings.lmm:
            raise ConfigError(f"{name} goes with lmm, the address of the server. Set --lmm, too")
    require_role_models(settings.models)
