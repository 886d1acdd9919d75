"""Clients that send a head without an end, or none, or do not read, over real sockets."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
import uvicorn

import fieldscope.service.server.connections
from fieldscope.service.server.connections import LARGEST_HEAD, BoundedConnection

PATIENCE = 30.0  # of a test whose connection is never closed
HELLO = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
Connect = Callable[[], socket.socket]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Replies with ten megabytes at /large, else with one word."""
    body = b"x" * 10_000_000 if scope["path"] == "/large" else b"hello"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def connect() -> Iterator[Connect]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, http=BoundedConnection, h11_max_incomplete_event_size=LARGEST_HEAD, ws="none", lifespan="off",
        log_config=None,
    )  # fmt: skip
    ready = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready.set()

    server = Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    assert ready.wait(PATIENCE)

    def connection() -> socket.socket:
        return socket.create_connection(listener.getsockname(), PATIENCE)

    yield connection
    server.should_exit = True
    thread.join()


def reply(connection: socket.socket) -> bytes:
    """Everything until the service closes."""
    told = b""
    try:
        while chunk := connection.recv(65_536):
            told += chunk
    except ConnectionResetError:
        pass
    return told


def wait_for_hellos(connection: socket.socket, count: int) -> None:
    told = b""
    while told.count(b"hello") < count:
        chunk = connection.recv(65_536)
        assert chunk, "closed before its time"
        told += chunk


@pytest.mark.parametrize("begun", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: "])
def test_a_head_that_does_not_come_closes_its_connection(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(fieldscope.service.server.connections, "HEAD_SECONDS", 0.05)
    with closing(connect()) as connection:
        connection.sendall(begun)
        assert reply(connection) == b""


def test_a_second_head_that_does_not_come_closes_its_connection(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(connect()) as connection:
        connection.sendall(HELLO)
        wait_for_hellos(connection, 1)
        monkeypatch.setattr(fieldscope.service.server.connections, "HEAD_SECONDS", 0.05)
        connection.sendall(HELLO[:20])
        assert reply(connection) == b""


def test_a_connection_serves_many_requests_in_turn(connect: Connect) -> None:
    with closing(connect()) as connection:
        for _ in range(3):
            connection.sendall(HELLO)
            wait_for_hellos(connection, 1)
        connection.sendall(HELLO + HELLO)
        wait_for_hellos(connection, 2)


@pytest.mark.parametrize("line", [b"X-A: " + b"a" * 1000 + b"\r\n", b"x" * 1000])
def test_a_head_without_an_end_is_refused_while_it_comes(connect: Connect, line: bytes) -> None:
    sent = 0
    with closing(connect()) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        try:
            while sent < 50_000_000:
                connection.sendall(line * 100)
                sent += 100 * len(line)
        except OSError:  # it has closed
            pass
    assert sent < 50_000_000
    with closing(connect()) as connection:
        connection.sendall(HELLO)
        wait_for_hellos(connection, 1)


def test_of_too_many_connections_the_one_that_waits_longest_goes(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fieldscope.service.server.connections, "most_connections", lambda: 3)
    held = [connect() for _ in range(3)]
    try:
        with closing(connect()) as newest:
            assert reply(held[0]) == b""
            newest.sendall(HELLO)
            wait_for_hellos(newest, 1)
    finally:
        for connection in held:
            connection.close()


def test_a_reply_that_is_not_read_closes_its_connection(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    aborted = threading.Event()
    lost = BoundedConnection.connection_lost

    def noted(self: BoundedConnection, exc: Exception | None) -> None:
        lost(self, exc)
        aborted.set()

    monkeypatch.setattr(BoundedConnection, "connection_lost", noted)
    monkeypatch.setattr(fieldscope.service.server.connections, "READ_SECONDS", 0.05)
    with closing(connect()) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert aborted.wait(PATIENCE)
