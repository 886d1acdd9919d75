"""How much a body may hold, said before any of it is worked on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from fastapi import Request

from fieldscope.service.server.api.dependencies import EngineOf
from fieldscope.service.server.api.errors import ApiError

_MOST_FIELDS = 100  # of one object


async def require_bounded(request: Request, engine: EngineOf) -> None:
    """Refuse a body with too many documents in a call, or too many fields in an object, before each of them is checked
    for its shape. What is no JSON is refused by whoever reads it. Raises `ApiError`."""
    most, body = engine.limits.max_documents, await request.body()
    try:
        told = await request.json()
    except ValueError:
        return
    if b"\\ud" in body.lower():
        _require_whole_characters(told)
    for mapping in _mappings(told):
        if len(mapping) > _MOST_FIELDS:
            raise ApiError(422, "invalid_request", f"an object has {len(mapping)} fields; no object has so many")
        documents = mapping.get("documents")
        if isinstance(documents, dict):
            documents = documents.get("content")
        if isinstance(documents, list) and len(documents) > most:
            raise ApiError(
                422, "too_many_documents", f"{len(documents)} documents, over the limit of {most} a call; send fewer"
            )


def _require_whole_characters(told: Any) -> None:
    """JSON can spell half of a character, which nothing behind can write down."""
    try:
        json.dumps(told, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ApiError(
            422, "invalid_request", "the body has half of a character (a lone surrogate); send whole ones"
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
