"""Limits on what a body holds, checked before it is validated."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from fastapi import Request

from fieldscope.service.server.api.dependencies import EngineOf
from fieldscope.service.server.api.errors import ApiError

_MOST_FIELDS = 100  # of one object


async def require_bounded(request: Request, engine: EngineOf) -> None:
    """Refuse a body with too many documents in a call, or too many fields in an object, before each of them is
    validated. FastAPI refuses a body that is not JSON. Raises `ApiError`."""
    most, body = engine.limits.max_documents, await request.body()
    try:
        parsed = await request.json()
    except ValueError:
        return
    if b"\\ud" in body.lower():
        _require_whole_characters(parsed)
    for mapping in _mappings(parsed):
        if len(mapping) > _MOST_FIELDS:
            raise ApiError(
                422,
                "invalid_request",
                f"an object has {len(mapping)} fields, over the limit of {_MOST_FIELDS}; send fewer",
            )
        documents = mapping.get("documents")
        if isinstance(documents, dict):
            documents = documents.get("content")
        if isinstance(documents, list) and len(documents) > most:
            raise ApiError(
                422, "too_many_documents", f"{len(documents)} documents, over the limit of {most} a call; send fewer"
            )


def _require_whole_characters(parsed: Any) -> None:
    """JSON can spell half of a character, which UTF-8 can't encode."""
    try:
        json.dumps(parsed, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ApiError(
            422, "invalid_request", "the body has half of a character (a lone surrogate); send whole characters"
        ) from error


def _mappings(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a body, outer ones first."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            value = value.values()
        elif not isinstance(value, list):
            continue
        waiting += [inner for inner in value if isinstance(inner, dict | list)]
