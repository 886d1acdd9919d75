"""What a server's failure is in our tree: by its status, and by what a body says that came with status 200."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from fieldscope.core.errors import (
    ContextLengthError,
    LMMConnectionError,
    LMMError,
    LMMRateLimitError,
    LMMRequestError,
    LMMResponseError,
    LMMServerError,
)

BUSY = frozenset({408, 409, 425, 429, 502, 503, 504})
"""Statuses that say nothing of whether there is such a page."""

KEY_REFUSED = frozenset({401, 403})
OVERLOADED = frozenset({408, 429, 503, 504})
"""Statuses of a server that has more calls than it can answer."""

_REQUEST_TIMEOUT = 408
_SLOW_DOWN = {409, 425, 429}
_SERVER_FAULT = 500
_TOO_LARGE = {400, 413, 422}
_SPELLED = {
    "rate_limit": 429, "ratelimit": 429, "too_many": 429, "throttl": 429, "overloaded": 503, "unavailable": 503,
    "server_error": 500, "servererror": 500, "internal": 500, "timeout": 504, "timed_out": 504, "bad_request": 400,
    "badrequest": 400, "invalid_request": 400, "notfound": 404, "not_found": 404,
}  # fmt: skip
"""What servers call a failure in place of a status."""


_TOO_LONG = re.compile(
    r"context.?(length|size|window|limit)|max(imum)?.?model.?len|prompt is too long|input is too long"
    r"|max_new_tokens`? must be",
    re.IGNORECASE,
)
"""How vLLM, SGLang, llama.cpp, LM Studio, TGI and OpenAI say that a prompt does not fit."""


def status_error(status: int, said: str, retry_after: float | None = None, body: str = "", words: str = "") -> LMMError:
    """The error of a status of 400 and more. `retry_after` is the pause that the server asks for, in seconds; `words`
    are the server's own in what is `said`, and `body` is all that it wrote, of which they may be the beginning only."""
    if status in _TOO_LARGE and is_too_long(body or said):
        return ContextLengthError(
            f"{said}; serve the model with a larger context (vLLM: --max-model-len), scale images further down with "
            "--max-side, or show fewer of them at once"
        )
    if status == _REQUEST_TIMEOUT:
        return LMMConnectionError(f"{said}; allow more time, or send it fewer requests at once", retry_after)
    if status in _SLOW_DOWN:
        return LMMRateLimitError(f"{said}; send it fewer requests at once", retry_after)
    if status >= _SERVER_FAULT:
        return LMMServerError(f"{said}; see the server's log", retry_after)
    advice = "check the server's address, the model's name and the strategy's settings"
    return LMMRequestError(f"{said}; {advice}", words, body)


def key_advice(key: str | None, variable: str = "FIELDSCOPE_API_KEY") -> str:
    """What to do where a server refuses the key that it was sent, or that it was sent none; `variable` holds the key of
    such servers."""
    if key is None:
        return f"put the server's API key in {variable}"
    return f"check that the API key in {variable} is this server's, and may use this model"


def read_retry_after(value: str) -> float | None:
    """Seconds that a server asks to wait in the header `Retry-After`: seconds or a date (RFC 9110, 10.2.3)."""
    value = value.strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = ((date if date.tzinfo else date.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def is_too_long(words: str) -> bool:
    """Whether a server's refusal says that the prompt is longer than the model's context."""
    return _TOO_LONG.search(words) is not None


def failure_in(document: Any) -> LMMError | None:
    """The error that a body with status 200 holds in place of an answer, or in its first choice; None where it holds
    none."""
    if not isinstance(document, dict):
        return None
    choices = document.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    fault = document.get("error") or choice.get("error")
    if not fault and not choice and (document.get("object") == "error" or "detail" in document):
        fault = document
    if not fault:
        return None
    status = _status(fault)
    words = _words(fault)
    said = f"the server answered 200, but with an error{f' ({status})' if status else ''}: {words}"
    if status is None:
        return LMMResponseError(f"{said}; see the server's log")
    return status_error(status, said, body=str(fault), words=words)


def _status(fault: Any) -> int | None:
    """The status that an error names as a number, or in words."""
    if not isinstance(fault, dict):
        return None
    named = [fault.get(key) for key in ("code", "status", "status_code", "type")]
    for name in named:
        try:
            number = float(name)  # type: ignore[arg-type]  # whatever is no number is refused
        except (TypeError, ValueError):
            continue
        if math.isfinite(number) and 400 <= number < 600:
            return int(number)
    spoken = " ".join(name for name in named if isinstance(name, str)).casefold().replace(" ", "_")
    return next((status for words, status in _SPELLED.items() if words in spoken), None)


def _words(fault: Any) -> str:
    """What an error says, in its own words where it has some."""
    if isinstance(fault, dict):
        fault = fault.get("message") or fault.get("detail") or fault.get("error") or fault
    return " ".join(str(fault).split())[:240]
