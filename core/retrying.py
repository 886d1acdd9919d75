"""Which failures of a server are worth another attempt, and when it is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tenacity import RetryCallState, retry_if_exception_type, wait_random_exponential

from fieldscope.core.errors import LMMConnectionError, LMMError, LMMRateLimitError, LMMServerError

LONGEST_WAIT = 120.0
"""Seconds. A server that asks for a longer pause than this (Retry-After) is taken at its word: the call fails."""

_LONGEST_BACKOFF = 30.0


def retry_policy(attempts: int, backoff: float, given_up: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """The settings of tenacity's `Retrying` and `AsyncRetrying`: up to `attempts` in all, only after a failure that can
    pass (no connection, no answer in time, status 408, 409, 425, 429 or 5xx). A pause is as long as the server says in
    `Retry-After`, plus a random time below `backoff` seconds, doubled each time. The last error is raised; so is the
    next one once the caller has `given_up`."""
    backing_off = wait_random_exponential(backoff, max=_LONGEST_BACKOFF)
    return {
        "retry": retry_if_exception_type((LMMConnectionError, LMMRateLimitError, LMMServerError)),
        "stop": lambda state: state.attempt_number >= attempts or _pause_asked(state) > LONGEST_WAIT or given_up(),
        "wait": lambda state: _pause_asked(state) + backing_off(state),
        "reraise": True,
    }


def _pause_asked(state: RetryCallState) -> float:
    """Seconds that the server asks to wait; 0 where it asks for none."""
    error = state.outcome.exception() if state.outcome else None
    return (error.retry_after or 0.0) if isinstance(error, LMMError) else 0.0
