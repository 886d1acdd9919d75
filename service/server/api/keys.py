"""API keys: made here, shown once, and kept as salted hashes.

A key has 256 random bits, which can't be guessed, so one SHA-256 of it is as safe at rest as a slow hash; slow hashes
are for passwords, which people choose. The check is cheap enough for every request.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from fieldscope.core.errors import ConfigError
from fieldscope.core.files import replace_file
from fieldscope.core.validation import unknown_name

PREFIX = "fs_"
_SALT_BYTES = 16
_KEY_BYTES = 32


class Key(BaseModel):
    """A key at rest. `created` is ISO 8601 in UTC; `sha256` is that of salt and key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")
    salt: str
    sha256: str
    created: str


_KEYS = TypeAdapter(tuple[Key, ...])


class KeyFile:
    """The keys in a file, read again whenever it changes, so that a removed key fails at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, ...] | None = None
        self._keys: tuple[Key, ...] = ()

    def all(self) -> tuple[Key, ...]:
        """Every key, oldest first. Raises `ConfigError` for a file with other content."""
        try:
            status = self.path.stat()
            stamp = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
            if stamp != self._stamp:
                self._keys = _KEYS.validate_json(self.path.read_bytes())
                self._stamp = stamp
        except FileNotFoundError:
            self._keys, self._stamp = (), None
        except (OSError, ValidationError) as error:
            raise ConfigError(
                f"{self.path} is not a file of API keys. Move it away, or name another file with --keys"
            ) from error
        return self._keys

    def add(self, name: str) -> str:
        """A new key of this name, which can't be shown again. Raises `ConfigError` for a name that is taken or
        invalid."""
        keys = self.all()
        if any(key.name == name for key in keys):
            raise ConfigError(f"a key called {name!r} exists. Remove it first, or choose another name")
        secret, salt = PREFIX + secrets.token_urlsafe(_KEY_BYTES), secrets.token_hex(_SALT_BYTES)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            key = Key(name=name, salt=salt, sha256=_hash(salt, secret), created=created)
        except ValidationError as error:
            raise ConfigError(
                f"{name!r} can't be a key's name; use up to 64 letters, digits, dots, dashes and underscores"
            ) from error
        self._write((*keys, key))
        return secret

    def remove(self, name: str) -> None:
        """Remove a key. Raises `ConfigError` if there is no key of this name."""
        keys = self.all()
        if all(key.name != name for key in keys):
            raise ConfigError(unknown_name("key", name, [key.name for key in keys]))
        self._write(tuple(key for key in keys if key.name != name))

    def owner(self, secret: str) -> str | None:
        """The name of the key, or None. Takes the same time for every key, also for a wrong one."""
        name = None
        for key in self.all():
            if hmac.compare_digest(key.sha256, _hash(key.salt, secret)):
                name = key.name
        return name

    def _write(self, keys: tuple[Key, ...]) -> None:
        try:
            replace_file(self.path, json.dumps([key.model_dump() for key in keys], indent=2), private=True)
        except OSError as error:
            raise ConfigError(f"can't write {self.path} ({error.strerror or error}); name another file") from error


def _hash(salt: str, secret: str) -> str:
    return hashlib.sha256(bytes.fromhex(salt) + secret.encode("utf-8", "surrogateescape")).hexdigest()
