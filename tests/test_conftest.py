"""The network block itself."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import httpx
import pytest

FOREIGN = "192.0.2.1"  # reserved for documentation (RFC 5737): no machine has it


def test_a_foreign_address_is_blocked() -> None:
    with socket.socket() as client, pytest.raises(RuntimeError, match="loopback only"):
        client.connect((FOREIGN, 80))
    with socket.socket() as client, pytest.raises(RuntimeError, match="loopback only"):
        client.connect_ex((FOREIGN, 80))


def test_a_name_is_not_looked_up() -> None:
    with pytest.raises(RuntimeError, match=r"example\.org"):
        httpx.get("http://example.org")


async def test_asyncio_is_blocked_too() -> None:
    with pytest.raises(RuntimeError, match="loopback only"):
        await asyncio.open_connection(FOREIGN, 80)


def test_loopback_works() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(("localhost", server.getsockname()[1])).close()


def test_the_users_cache_folder_is_not_the_users(own_folders: Path) -> None:
    assert list(own_folders.iterdir()) == []
