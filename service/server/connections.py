"""Connections of the service: bounded in number, in the bytes of a request's head, and in the seconds it may take.

uvicorn's own protocols wait for a head forever, and the one over httptools takes a head of any size: before a key can
be asked for, whoever reaches the port could fill the memory or hold every connection.
"""

from __future__ import annotations

import asyncio
import resource

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

LARGEST_HEAD = 65_536
"""Bytes of a request's line and headers."""

HEAD_SECONDS = 15.0
"""How long a request's head may take, from the connection or from its first byte."""

READ_SECONDS = 60.0
"""How long a reply may wait for its client to read on."""

_MOST = 1000


class BoundedConnection(H11Protocol):
    """A connection that is closed where a request's head does not come, or its reply is not read. Where there are too
    many connections, the one that has waited longest for a head goes first."""

    _waiting: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._await_head()
        if len(self.connections) > most_connections():
            idle = (each for each in self.connections if isinstance(each, BoundedConnection) and each._waiting)
            min(idle, key=lambda each: each._waiting.when() if each._waiting else 0.0).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_here()
        self._reply_is_read()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._waiting is None and not self._at_work():
            self._await_head()
        super().data_received(data)

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._head_is_here()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        self._reply_is_read()
        super().resume_writing()

    def _at_work(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # none before the first request, whatever its type says
        return cycle is not None and not cycle.response_complete

    def _await_head(self) -> None:
        self._waiting = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _head_is_here(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _reply_is_read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None


def most_connections() -> int:
    """As many as half of the files that this process may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(_MOST, soft // 2) if soft > 0 else _MOST
