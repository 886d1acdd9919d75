"""What a user chooses about models and the response cache."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fieldscope.core.errors import ConfigError
from fieldscope.core.paths import cache_folder
from fieldscope.core.private import shown_address

if TYPE_CHECKING:
    from fieldscope.agent.lmm.cached import CacheMode
    from fieldscope.agent.lmm.server_profile import ServerProfile
    from fieldscope.agent.roles import Role
    from fieldscope.core.image_encoding import ImageFormat

IMAGE_FORMATS = ("jpeg", "png")
CACHE_MODES = ("on", "refresh", "replay", "off")
DEFAULT_CONCURRENCY = 128
DEFAULT_MAX_SIDE = 1024
DEFAULT_MAX_PIXELS = 1_048_576
DEFAULT_IMAGE_FORMAT: ImageFormat = "jpeg"
DEFAULT_REQUEST_TIMEOUT = 120.0
DEFAULT_ATTEMPTS = 6
DEFAULT_MAX_UNKNOWN = 0.10
DEFAULT_STRATEGY = "agent"
NO_KEY = ""
"""The `api_key` of a server that gets none, whatever the environment says."""
BUNDLED = "bundled"
"""The name of the LMM, and of the CLIP, that come with Fieldscope."""


@dataclass(frozen=True)
class RoleModel:
    """What a user chooses for the LMM of one role. What is None is as for the LMM of all roles.

    `lmm` is a server's address or another back end's name, `model` the name under which the server serves it. One that
    names either is another LMM, so the others' `revision` and `profile` do not hold for it; and no key is sent to
    another host than the one that it was given for: such a host gets `api_key`, else FIELDSCOPE_API_KEY_VERIFIER (or
    _REASONER, _CAPTIONER, _JUDGE), else none.
    """

    lmm: str | None = None
    model: str | None = None
    revision: str | None = None
    api_key: str | None = field(default=None, repr=False)
    max_side: int | None = None
    max_pixels: int | None = None
    image_format: ImageFormat | None = None
    request_timeout: float | None = None
    attempts: int | None = None
    profile: ServerProfile | None = None

    def __post_init__(self) -> None:
        for name in ("max_side", "max_pixels", "request_timeout", "attempts"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"the {name} of a role must be above 0, and not {value}; correct it")


@dataclass(frozen=True)
class Settings:
    """Models, and how to talk to them.

    `lmm_url` and `model` name a server and the model it serves, `revision` whatever tells two models of that name
    apart; without a server the bundled LMM answers. `api_key` is by default what the environment says. `encoder` is the
    first stage's model as `--encoder` names it; None is the bundled CLIP. `concurrency` bounds the calls in flight, of
    which a server gets as many as make it faster. Images that are longer than `max_side` pixels on a side, or have more
    than `max_pixels` in all, are scaled down before they are sent to a server, and sent as `image_format` says. A call
    to a server has `request_timeout` seconds, and at most `attempts` attempts where another one can help. `prompts` is
    a prompt set's name or a folder of prompts; None is the set for the LMM. `profile` has the parameters that the
    server takes, as far as they are set and not to be found out. `roles` says what is otherwise for the LMM of a role.
    `scorer` is a scoring model as `--scorer` names it; None is none.
    `embeddings` is a folder with vectors of a benchmark's images. `encoder_named` says that an encoder was named, the
    bundled one among them: it then gives the priors of candidates that come with others.
    """

    lmm_url: str | None = None
    model: str | None = None
    revision: str | None = None
    api_key: str | None = field(default=None, repr=False)
    encoder: str | None = None
    cache_mode: CacheMode = "on"
    cache_file: Path | None = None
    concurrency: int = DEFAULT_CONCURRENCY
    max_side: int = DEFAULT_MAX_SIDE
    max_pixels: int = DEFAULT_MAX_PIXELS
    image_format: ImageFormat = DEFAULT_IMAGE_FORMAT
    request_timeout: float = DEFAULT_REQUEST_TIMEOUT
    attempts: int = DEFAULT_ATTEMPTS
    roles: Mapping[Role, RoleModel] = field(default_factory=dict, hash=False)
    prompts: str | None = None
    profile: ServerProfile | None = None
    scorer: str | None = None
    embeddings: Path | None = None
    encoder_named: bool = field(default=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.encoder is not None:
            object.__setattr__(self, "encoder_named", True)
        for name in ("lmm_url", "encoder"):
            if getattr(self, name) == BUNDLED:  # by its name, or by naming none
                object.__setattr__(self, name, None)

    @property
    def backend(self) -> tuple[str, str]:
        """The registered LMM back end and its argument; a text that names no back end is a server's address."""
        from fieldscope.agent.lmm.backends import LMMS

        return LMMS.split(self.lmm_url, "openai") if self.lmm_url else ("bundled", "")

    @property
    def asks_server(self) -> bool:
        """Whether a server's model is asked, and not the bundled one or another package's."""
        return self.backend[0] == "openai" and self.model is not None

    def of(self, role: Role) -> Settings:
        """The settings of the LMM that has this role."""
        own = self.roles.get(role)
        if own is None:
            return replace(self, roles={})
        chosen: dict[str, Any] = {
            name: value for name, value in vars(own).items() if name not in ("lmm", "api_key") and value is not None
        }
        if own.lmm is not None or own.model is not None:
            chosen = {"model": None, "revision": None, "profile": None, **chosen}
        if own.lmm is not None:
            chosen["lmm_url"] = own.lmm
        settings = replace(self, roles={}, **chosen)
        if settings.lmm_url and settings.model is None and settings.backend[0] != "openai":
            settings = replace(settings, model=settings.lmm_url)
        key = own.api_key or os.environ.get(f"FIELDSCOPE_API_KEY_{role.upper()}")
        if key is None and not self._shares_key(settings):
            key = NO_KEY
        return settings if key is None else replace(settings, api_key=key)

    def by_model(self, roles: Collection[Role]) -> dict[Settings, tuple[Role, ...]]:
        """The settings of each LMM that has any of these roles, with the roles that it has."""
        models: dict[Settings, tuple[Role, ...]] = {}
        for role in roles:
            settings = self.of(role)
            models[settings] = (*models.get(settings, ()), role)
        return models

    def _shares_key(self, settings: Settings) -> bool:
        """Whether the key for all goes to this server: that is the host of the LMM of all roles or, where that is on no
        server, the only host there is."""
        hosts = _hosts(settings.lmm_url)
        if self.asks_server:
            return hosts <= _hosts(self.lmm_url)
        named = (own.lmm for own in self.roles.values() if own.lmm and _is_server(own.lmm))
        return all(_hosts(url) == hosts for url in named)

    def key_for(self, url: str, variable: str) -> str | None:
        """The key for the server of an encoder or a scoring model: the one in its own `variable`; else the key for all,
        where its host is the LMM's or, where the LMM is on no server, the only host there is; else none."""
        if own := os.environ.get(variable):
            return own
        if self.asks_server:
            return self.api_key if _hosts(url) <= _hosts(self.lmm_url) else NO_KEY
        named = (name.removeprefix("openai:") for name in (self.encoder, self.scorer) if name and "://" in name)
        return self.api_key if all(_hosts(name) == _hosts(url) for name in named) else NO_KEY

    def names(self, roles: Collection[Role]) -> dict[Role, str]:
        """The name of the model that has each role, for people."""
        return {role: self.of(role).model or BUNDLED for role in roles}

    def bundled(self, roles: Collection[Role]) -> bool:
        """Whether the bundled LMM has any of these roles."""
        return any(not chosen.lmm_url for chosen in self.by_model(roles))

    @property
    def store_path(self) -> Path:
        """The response cache's file."""
        return self.cache_file or cache_folder() / "responses.sqlite"


def require_role_models(settings: Settings) -> None:
    """Raise `ConfigError` where the LMM of a role is on a server without a model's name, or the other way around."""
    for role, own in settings.roles.items():
        chosen = settings.of(role)
        if chosen.lmm_url and _is_server(chosen.lmm_url) and not chosen.model:
            raise ConfigError(
                f"the {role} is on a server, but its model has no name; add the name under which the server serves it"
            )
        if not chosen.lmm_url and (own.model or own.revision):
            raise ConfigError(f"the {role} has a model, but no server; add the address of the server (lmm)")


def read_model(text: str) -> RoleModel:
    """The LMM that `URL#MODEL` means, or another back end's `name` or `name:argument`. Raises `ConfigError` for a
    server's address without a model."""
    url, _, model = text.partition("#") if _is_server(text) else (text, "", "")
    if not url or (_is_server(url) and not model):
        raise ConfigError(
            f"{shown_address(text)!r} does not name a model; write URL#NAME, with the name under which the server "
            "serves the model"
        )
    return RoleModel(lmm=url, model=model or None)


def _is_server(url: str) -> bool:
    """Whether this is a server's address, and no back end's name."""
    return url != BUNDLED and Settings(lmm_url=url).backend[0] == "openai"


def _hosts(addresses: str | None) -> set[tuple[str, str]]:
    """Scheme and host with its port, which a key is for, of each of the addresses of a model."""
    parts = [urlsplit(address.strip()) for address in (addresses or "").split(",")]
    return {(part.scheme.lower(), part.netloc.rpartition("@")[2].lower()) for part in parts}
