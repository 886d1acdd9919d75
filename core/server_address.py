"""The addresses of servers, as users write them."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from fieldscope.core.errors import ConfigError
from fieldscope.core.private import shown_address


def read_address(url: str) -> SplitResult:
    """The parts of a server's address. Raises `ConfigError` for anything else, and where a user, a password or a query,
    which may be a key, is part of it."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        usable = usable and not (parts.username or parts.password or parts.query)
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(
            f"{shown_address(url)!r} is not the address of a server; write it like http://localhost:8000 (a key goes "
            "in FIELDSCOPE_API_KEY)"
        )
    return parts
