"""What every test stands on: no network but this machine's own, and no trace in the user's folders."""

from __future__ import annotations

import gc
import os
import socket
import ssl
from collections.abc import Iterator
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from hypothesis import settings

# How long an example takes says more about the machine than about the code. `make test` tries a property on the same
# twenty examples each time, so that a change is judged by what it changed; `make test-nightly` draws a hundred anew.
settings.register_profile("thorough", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=20, derandomize=True)
settings.load_profile("quick")

# Before any test imports a library that reads them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["LANGSMITH_TRACING"] = "false"


def pytest_collection_finish() -> None:
    """What the tests' modules imported stays; the garbage collector need not look through all of it again and again.
    It looks after 20,000 new objects rather than 700, for which a test that opens a service made it look often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)


class NetworkBlockedError(RuntimeError):
    """A test reached for a machine other than this one."""


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine: a loopback address, or the name `localhost`."""
    if host in {"", "localhost"}:
        return True
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _guard(address: Any) -> None:
    # Unix sockets have a path for an address; network sockets have a tuple that starts with the host.
    if isinstance(address, tuple) and not is_loopback(str(address[0])):
        raise NetworkBlockedError(f"a test tried to reach {address[0]}; tests use loopback only")


@pytest.fixture(autouse=True, scope="session")
def one_ssl_context() -> Iterator[None]:
    """HTTP clients that trust the same file of certificates share what was read of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", cache(ssl.create_default_context))
        yield


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """Connections and look-ups that leave this machine raise `NetworkBlockedError`."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            _guard_method(patch, name)
        look_up = socket.getaddrinfo

        def guarded_look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
            name = host.decode() if isinstance(host, bytes) else host
            _guard((name or "",))
            return look_up(host, *args, **kwargs)

        patch.setattr(socket, "getaddrinfo", guarded_look_up)
        yield


def _guard_method(patch: pytest.MonkeyPatch, name: str) -> None:
    original = getattr(socket.socket, name)

    def guarded(self: socket.socket, address: Any) -> Any:
        _guard(address)
        return original(self, address)

    patch.setattr(socket.socket, name, guarded)


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all tests' homes. pytest numbers folders by listing those that are there, and tests are many."""
    return tmp_path_factory.mktemp("homes")


@pytest.fixture(autouse=True)
def own_folders(homes: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home for the test alone: its user cache folder is empty, and the user's own is never touched."""
    home = Path(mkdtemp(dir=homes))
    monkeypatch.delenv("FIELDSCOPE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    return home
