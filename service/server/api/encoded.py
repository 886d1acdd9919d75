"""Pictures that are spelled in a request: data URLs and base64."""

from __future__ import annotations

import base64
import re
from urllib.parse import unquote_to_bytes

from fieldscope.core.errors import ImageTooLargeError
from fieldscope.service.server.api.errors import ApiError

_LONGEST_ID = 512
_SHOWN = 60
_UNTYPED = frozenset({"", "application/octet-stream", "binary/octet-stream"})
"""Types of data URLs that say nothing: what is in them decides."""

_OTHER_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]{1,20}://", re.IGNORECASE)
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def decoded(given: str, max_bytes: int) -> bytes:
    """The bytes of a picture's file that a data URL or base64 spells. Raises `ApiError`, and before anything is decoded
    `ImageTooLargeError`."""
    head, comma, body = given.partition(",")
    is_url = bool(comma) and head[:5].lower() == "data:"
    kind, *parameters = head[5:].split(";")
    kind = kind.strip().lower()
    if is_url and kind not in _UNTYPED and not kind.startswith("image/"):
        raise ApiError(422, "unreadable_image", f"a data URL of {kind[:_SHOWN]!r} is no picture")
    if not is_url and _OTHER_ADDRESS.match(given):
        raise ApiError(
            404,
            "no_such_image",
            f"{given[:_SHOWN]!r} leads to nothing that is fetched; send the picture itself, or its id in a collection",
        )
    spelled = body if is_url else given
    _require_small(len(spelled), max_bytes)
    if is_url and not (parameters and parameters[-1].strip().lower() == "base64"):
        return unquote_to_bytes(spelled)
    try:
        packed = unquote_to_bytes(spelled) if is_url else spelled.encode("ascii")
        return base64.b64decode(packed.translate(_URL_SAFE, b" \t\r\n"), validate=True)
    except ValueError as error:
        if is_url or len(given) > _LONGEST_ID:
            raise ApiError(422, "unreadable_image", f"its base64 can't be read ({error})") from error
        raise ApiError(
            404,
            "no_such_image",
            f"{given[:_SHOWN]!r} is no image of a registered collection, and no data URL, base64 or address either",
        ) from error


def _require_small(characters: int, max_bytes: int) -> None:
    """Base64 takes four characters for three bytes, and a data URL may spell a byte with three."""
    if characters > 4 * max_bytes:
        raise ImageTooLargeError(
            f"it has {characters / 1e6:.1f} million characters, too many for a picture of at most"
            f" {max_bytes / 1e6:g} MB; make it smaller"
        )
