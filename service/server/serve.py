"""One process that serves the application until a signal stops it, and then finishes the calls in flight."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging.config
import math
import os
import signal
import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from fieldscope.core.errors import ConfigError
from fieldscope.service.server.connections import LARGEST_HEAD, BoundedConnection
from fieldscope.service.wiring.feedback import note
from fieldscope.service.wiring.interruption import INTERRUPTED

if TYPE_CHECKING:
    from fastapi import FastAPI

    from fieldscope.service.server.settings import ServerSettings

_TRIM_EVERY = 3.0  # seconds
_WORK = 0.5  # seconds of processor time, after which there may be memory to give back

_KEEP_ALIVE = 75
"""Seconds for which an idle connection stays: longer than clients and proxies keep theirs, so that none of them sends a
request into a connection that is just being closed."""

_LOGS = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "%(message)s"},
        "message": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"},
    },
    "handlers": {
        "access": {"class": "logging.StreamHandler", "formatter": "line"},
        "message": {"class": "logging.StreamHandler", "formatter": "message"},
    },
    "root": {"level": "WARNING", "handlers": ["message"]},
    "loggers": {"fieldscope.access": {"level": "INFO", "handlers": ["access"], "propagate": False}},
}


def bind(settings: ServerSettings) -> socket.socket:
    """A socket bound to the settings' address, which accepts no connection yet. Raises `ConfigError` where it can't be
    bound."""
    where = f"{settings.host} port {settings.port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"can't listen at {where} ({error.strerror}); choose another address with --host") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise ConfigError(f"can't listen at {where} ({error.strerror}); choose another port with --port") from error
    return listener


def address_of(listener: socket.socket) -> str:
    """The URL of a socket."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def serve_until_stopped(app: FastAPI, listener: socket.socket, grace: float, ready: Callable[[], None]) -> None:
    """Open the application's models and stores, call `ready`, and serve until SIGINT or SIGTERM.

    Then no new call is accepted, calls in flight have `grace` seconds to end, and everything is closed. A second SIGINT
    ends the process at once. Raises the errors of opening.
    """
    logging.config.dictConfig(_LOGS)
    config = uvicorn.Config(
        app,
        http=BoundedConnection,
        h11_max_incomplete_event_size=LARGEST_HEAD,
        ws="none",
        lifespan="off",  # opened here, so that an error is one line
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=math.ceil(grace),
    )
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:  # uvloop's, where that is installed
        runner.run(_serve(app, config, listener, grace, ready))


async def _serve(
    app: FastAPI, config: uvicorn.Config, listener: socket.socket, grace: float, ready: Callable[[], None]
) -> None:
    async with app.router.lifespan_context(app):
        gc.collect()
        gc.freeze()  # the collector need not visit models and libraries again and again
        trimming = asyncio.create_task(_trim_memory())

        def stopping() -> None:
            note(f"stopping: calls in flight have up to {grace:g} s. Press Ctrl-C again to end now")
            app.state.engine.stop(grace)

        await _Server(config, ready, stopping).serve(sockets=[listener])
        trimming.cancel()


async def _trim_memory() -> None:
    """Give freed memory back to the system every few seconds, if there was work. glibc keeps the gaps between live
    objects, in a heap for each thread, and images and tensors leave many: a busy process would grow by a third over
    hours. Other C libraries have no such call."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    worked = time.process_time()
    while trim is not None:
        await asyncio.sleep(_TRIM_EVERY)
        if time.process_time() - worked > _WORK:
            await asyncio.to_thread(trim, 0)
            worked = time.process_time()


class _Server(uvicorn.Server):
    """uvicorn's server, which calls `ready` once it listens and `stopping` before it waits for calls in flight. It does
    not raise its signals again, because they would end the process before everything is closed."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None], stopping: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready
        self._stopping = stopping

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit and sig == signal.SIGINT:
            os._exit(INTERRUPTED)  # the files on disk survive a kill
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stopping()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        loop, signals = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM)
        for number in signals:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)
