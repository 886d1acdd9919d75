"""Connections of the service, with limits on their number and on the bytes and seconds of a request's head.

uvicorn's own protocols wait for a head forever, and the one over httptools accepts a head of any size: a client without
a key could fill the memory or hold every connection.
"""

from __future__ import annotations

import asyncio
import resource
from operator import itemgetter

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

LARGEST_HEAD = 65_536
"""Bytes of a request's line and headers."""

HEAD_SECONDS = 15.0
"""Seconds for a request's head, from the connection or from its first byte."""

READ_SECONDS = 60.0
"""Seconds that a reply waits for its client to read on."""

_MOST_CONNECTIONS = 1000


class BoundedConnection(H11Protocol):
    """A connection that is closed where a request's head does not arrive, or its reply is not read. Where there are too
    many connections, the one that has waited longest for a head is closed."""

    _waiting: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._await_head()
        if len(self.connections) > most_connections():
            idle = [(other._waiting.when(), other) for other in self.connections
                    if isinstance(other, BoundedConnection) and other._waiting]  # fmt: skip
            min(idle, key=itemgetter(0))[1].transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head_timer()
        self._end_reply_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._waiting is None and not self._at_work():
            self._await_head()
        super().data_received(data)

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._end_head_timer()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        self._end_reply_timer()
        super().resume_writing()

    def _at_work(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request, despite its type
        return cycle is not None and not cycle.response_complete

    def _await_head(self) -> None:
        self._waiting = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _end_head_timer(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _end_reply_timer(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None


def most_connections() -> int:
    """Half of the number of files that this process may open, and at most 1,000."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(_MOST_CONNECTIONS, soft // 2) if soft > 0 else _MOST_CONNECTIONS
