"""Fetching an image from an allowed host, and from no other.

The settings must name the host, all of its addresses must be public, and the connection goes to an address that was
checked, so that a name which resolves differently a moment later has no effect.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any
from urllib.parse import urljoin

import httpcore
import httpx

from fieldscope.core.errors import ImageTooLargeError
from fieldscope.service.server.api.errors import ApiError

SECONDS = 10.0
"""Seconds for one image, redirects included."""

MOST_REDIRECTS = 3

_PORTS = {"http": 80, "https": 443}
_NAT64 = IPv6Network("64:ff9b::/96")
_SHOWN = 100

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Awaitable[Collection[Address]]]


def is_public(address: Address) -> bool:
    """Whether an address is public. IPv6 addresses that contain an IPv4 one never are."""
    if isinstance(address, IPv6Address) and (
        address.ipv4_mapped or address.sixtofour or address.teredo or address in _NAT64
    ):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


async def resolve(host: str, port: int) -> Collection[Address]:
    """The addresses behind a name, or the address itself. Raises `OSError` for an unknown name."""
    entries = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ip_address(entry[4][0]) for entry in entries]


class Fetcher:
    """Fetches images from `hosts`: names, perhaps with a port after a colon (by default 80 and 443).

    An image has at most `max_bytes`. `resolve` turns a name into addresses, and `allowed` says which of them may be
    connected to.
    """

    def __init__(
        self,
        hosts: Iterable[str],
        max_bytes: int,
        *,
        seconds: float = SECONDS,
        resolve: Resolve = resolve,
        allowed: Callable[[Address], bool] = is_public,
    ) -> None:
        self._hosts = frozenset(host.strip().rstrip(".").lower() for host in hosts)
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._backend = _Checked(resolve, allowed)

    async def fetch(self, address: str) -> bytes:
        """The content of an http or https address. At most three redirects are followed, if they stay with its host.

        Raises `ApiError` for an address that may not be fetched or can't be, and `ImageTooLargeError`.
        """
        try:
            async with asyncio.timeout(self._seconds):
                return await self._follow(address)
        except TimeoutError as error:
            raise _failed(address, f"took more than {self._seconds:g} s") from error
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError) as error:
            raise _failed(address, str(error) or type(error).__name__) from error

    async def _follow(self, address: str) -> bytes:
        url = self._allowed(address)
        encryption = httpx.create_ssl_context(trust_env=False) if url.scheme == "https" else None
        async with httpcore.AsyncConnectionPool(ssl_context=encryption, network_backend=self._backend) as pool:
            for _ in range(MOST_REDIRECTS + 1):
                target = await self._get(pool, url)
                if isinstance(target, bytes):
                    return target
                onward = self._allowed(urljoin(str(url), target))
                if (onward.scheme, onward.netloc) != (url.scheme, url.netloc):
                    raise _refused(address, "redirects to another host; send the image's own address")
                url = onward
        raise _failed(address, f"redirects more than {MOST_REDIRECTS} times")

    async def _get(self, pool: httpcore.AsyncConnectionPool, url: httpx.URL) -> bytes | str:
        """The body, or the target of a redirect."""
        headers = [(b"Host", url.netloc), (b"Accept", b"image/*"), (b"User-Agent", b"fieldscope")]
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        async with pool.stream("GET", target, headers=headers) as response:
            received = {name.lower(): value.decode("latin-1") for name, value in response.headers}
            if response.status in (301, 302, 303, 307, 308) and b"location" in received:
                return received[b"location"]
            if response.status != httpx.codes.OK:
                raise _failed(str(url), f"answers with status {response.status}")
            length = received.get(b"content-length", "")
            body = bytearray()
            self._require_small(str(url), int(length) if length.isdecimal() else 0)
            async for chunk in response.aiter_stream():
                body += chunk
                self._require_small(str(url), len(body))
            return bytes(body)

    def _allowed(self, address: str) -> httpx.URL:
        try:
            url = httpx.URL(address)
        except (httpx.InvalidURL, UnicodeError) as error:
            raise ApiError(
                422, "bad_url", f"{address[:_SHOWN]!r} is not an address; correct it, or send the image itself"
            ) from error
        name = url.raw_host.decode("ascii").rstrip(".").lower()
        default = _PORTS.get(url.scheme)
        if default is None or not name or url.userinfo:
            raise ApiError(
                422,
                "bad_url",
                f"{address[:_SHOWN]!r} is not a plain http or https address; correct it, or send the image itself",
            )
        port = url.port or default
        if f"{name}:{port}" not in self._hosts and not (port == default and name in self._hosts):
            at = name if port == default else f"{name}:{port}"
            raise ApiError(
                400,
                "host_not_allowed",
                f"images are not fetched from {at!r}; send the image, or start the service with --image-host {at}",
            )
        return url

    def _require_small(self, address: str, size: int) -> None:
        if size > self._max_bytes:
            raise ImageTooLargeError(
                f"{address[:_SHOWN]!r} has more than the limit of {self._max_bytes / 1e6:g} MB; make it smaller"
            )


class _Checked(httpcore.AsyncNetworkBackend):
    """Connects to checked addresses; TLS still verifies the name."""

    def __init__(self, resolve: Resolve, allowed: Callable[[Address], bool]) -> None:
        self._resolve = resolve
        self._allowed = allowed
        self._tcp = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to the first address of `host`. Raises `ApiError` if one of its addresses is not allowed."""
        addresses = await self._resolve(host, port)
        if not addresses or not all(map(self._allowed, addresses)):
            raise _refused(
                host, "has an address in a private network, from which images are not fetched; send the image itself"
            )
        chosen = str(next(iter(addresses)))
        return await self._tcp.connect_tcp(chosen, port, timeout, local_address, socket_options)


def _refused(address: str, why: str) -> ApiError:
    return ApiError(400, "address_not_allowed", f"{address[:_SHOWN]!r} {why}")


def _failed(address: str, why: str) -> ApiError:
    return ApiError(422, "not_fetched", f"{address[:_SHOWN]!r} {why}; send the image itself")
