"""Images inside of a request: data URLs and base64."""

from __future__ import annotations

import base64
import re
from urllib.parse import unquote_to_bytes

from fieldscope.core.errors import ImageTooLargeError
from fieldscope.service.server.api.errors import ApiError

_LONGEST_ID = 512
_SHOWN = 60
_UNTYPED = frozenset({"", "application/octet-stream", "binary/octet-stream"})
"""Types of data URLs that say nothing about the content."""

_OTHER_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]{1,20}://", re.IGNORECASE)
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def decoded(given: str, max_bytes: int) -> bytes:
    """The bytes of an image file in a data URL or base64. Raises `ApiError`, and `ImageTooLargeError` before anything
    is decoded."""
    head, comma, body = given.partition(",")
    is_url = bool(comma) and head[:5].lower() == "data:"
    kind, *parameters = head[5:].split(";")
    kind = kind.strip().lower()
    if is_url and kind not in _UNTYPED and not kind.startswith("image/"):
        raise ApiError(422, "unreadable_image", f"a data URL of type {kind[:_SHOWN]!r} is not an image; send an image")
    if not is_url and _OTHER_ADDRESS.match(given):
        raise ApiError(
            404,
            "no_such_image",
            f"{given[:_SHOWN]!r} can't be fetched; send the image itself, or its id in a collection",
        )
    encoded = body if is_url else given
    _require_small(len(encoded), max_bytes)
    if is_url and not (parameters and parameters[-1].strip().lower() == "base64"):
        return unquote_to_bytes(encoded)
    try:
        packed = unquote_to_bytes(encoded) if is_url else encoded.encode("ascii")
        return base64.b64decode(packed.translate(_URL_SAFE, b" \t\r\n"), validate=True)
    except ValueError as error:
        if is_url or len(given) > _LONGEST_ID:
            raise ApiError(422, "unreadable_image", f"its base64 can't be decoded ({error}); send it again") from error
        raise ApiError(
            404,
            "no_such_image",
            f"{given[:_SHOWN]!r} is not an image of a registered collection, a data URL, base64 or an http address; "
            "send one of these",
        ) from error


def _require_small(characters: int, max_bytes: int) -> None:
    """Base64 uses four characters for three bytes, and a data URL at most three for one."""
    if characters > 4 * max_bytes:
        raise ImageTooLargeError(
            f"it has {characters / 1e6:.1f} million characters, too many for an image of at most"
            f" {max_bytes / 1e6:g} MB; make it smaller"
        )
