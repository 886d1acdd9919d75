"""Every error of the service: JSON with a code for programs and a sentence for people."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from fieldscope.core.errors import (
    CacheMissError,
    ConfigError,
    ContextLengthError,
    FieldscopeError,
    ImageError,
    IndexMismatchError,
    LMMError,
    LMMRequestError,
    VocabularyError,
)
from fieldscope.core.paths import without_folders

LOG = logging.getLogger("fieldscope.service")

NOT_FOUND = "there is nothing at this address; /docs lists the endpoints"
UNEXPECTED = "an unexpected error happened; see the service's log"

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""The methods of HTTP that an endpoint may accept."""

_CODES = {
    400: "bad_request",
    401: "no_key",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "body_too_large",
    415: "unsupported_media_type",
    422: "invalid_request",
}
_SENTENCES = {
    400: "the body can't be read as JSON; correct it",
    404: NOT_FOUND,
    405: "this address does not accept this method; /docs lists the methods",
}
_STATUS_AND_CODE: tuple[tuple[type[FieldscopeError], int, str], ...] = (
    (VocabularyError, 422, "unknown_words"),
    (ImageError, 422, "unreadable_image"),
    (CacheMissError, 409, "never_recorded"),
    (IndexMismatchError, 409, "wrong_index"),
    (ConfigError, 422, "invalid_request"),
    (ContextLengthError, 422, "prompt_too_long"),
    (LMMRequestError, 502, "lmm_refused"),
    (LMMError, 503, "lmm_failed"),
)
_PATH = re.compile(r" \(/[^()]*\)")  # of this machine, which clients need not know
_SHOWN_FAULTS = 3
_SHOWN_NAME = 64  # characters of a field's name
_SHOWN_VALUE = 200  # characters of a sentence of pydantic's


class ApiError(FieldscopeError):
    """An error reply. `code` is for programs; `retry_after` is in seconds, if trying again helps."""

    def __init__(self, status: int, code: str, sentence: str, retry_after: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.code = code
        self.retry_after = retry_after


class Fault(BaseModel):
    """What went wrong."""

    code: str = Field(description="For programs.", examples=["unknown_strategy"])
    message: str = Field(description="For people.", examples=["unknown strategy 'agnet' (did you mean 'agent'?)"])


class ErrorBody(BaseModel):
    """Every error reply."""

    error: Fault
    message: str = Field(description="The same sentence, for Cohere's and vLLM's clients.")
    detail: str = Field(description="The same sentence, for Jina's clients.")


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These error replies, for the OpenAPI document."""
    described = {
        429: "The queue is full; Retry-After says when to try again.",
        502: "The LMM's server refuses every question.",
        504: "Time ran out before there was a ranking.",
    }
    headers = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    return {
        status: {
            "model": ErrorBody,
            "description": described.get(status, HTTPStatus(status).phrase),
            **({"headers": headers} if status in (429, 503) else {}),
        }
        for status in statuses
    }


RESPONSES = responses(400, 401, 403, 408, 413, 415, 422, 500)
"""The error replies of every endpoint."""

WORK_RESPONSES = RESPONSES | responses(404, 409, 429, 502, 503, 504)
"""The error replies of endpoints that ask models."""


def error_response(status: int, code: str, sentence: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error reply."""
    body = {"error": {"code": code, "message": sentence}, "message": sentence, "detail": sentence}
    return JSONResponse(body, status, headers)


def add_handlers(app: FastAPI) -> None:
    """Reply with JSON to every error of the application; `Access` handles unexpected exceptions."""
    app.add_exception_handler(FieldscopeError, _ours)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)


def unexpected_response(error: Exception, method: str, path: str) -> JSONResponse:
    """The reply to an unexpected exception, whose traceback goes to the log only."""
    LOG.error("%s %s failed", method, path, exc_info=error)
    return error_response(500, "internal_error", UNEXPECTED)


def as_api_error(error: FieldscopeError) -> ApiError:
    """Any Fieldscope error with its status and code."""
    if isinstance(error, ApiError):
        return error
    sentence = without_folders(_PATH.sub("", " ".join(str(error).split())))
    for kind, status, code in _STATUS_AND_CODE:
        if isinstance(error, kind):
            return ApiError(status, code, sentence)
    return ApiError(500, "internal_error", sentence)


async def _ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, FieldscopeError)
    known = as_api_error(error)
    if known.status >= 500:
        LOG.error("%s %s: %s", request.method, request.url.path, known)
    headers = {"Retry-After": str(known.retry_after)} if known.retry_after is not None else None
    return error_response(known.status, known.code, str(known), headers)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    specific = error.detail != HTTPStatus(error.status_code).phrase and error.status_code != 400
    sentence = str(error.detail) if specific else _SENTENCES.get(error.status_code, str(error.detail))
    code = _CODES.get(error.status_code, "http_error")
    headers = error.headers
    if error.status_code == 405:
        headers = {**(headers or {}), "Allow": ", ".join(_methods(request))}
    return error_response(error.status_code, code, sentence, headers)


def _methods(request: Request) -> list[str]:
    """The methods that a request's address accepts, over all routes of its very path, where there are any: in
    `/v1/searches/estimate` the last word is no search's id."""
    scopes = [(method, {**request.scope, "method": method}) for method in METHODS]
    every = request.app.routes
    routes = [route for route in every if getattr(route, "path", None) == request.scope["path"]] or every
    return [method for method, scope in scopes if any(route.matches(scope)[0] is Match.FULL for route in routes)]


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = list(dict.fromkeys(_fault(fault) for fault in error.errors()))
    more = [f"and {len(faults) - _SHOWN_FAULTS} more"] if len(faults) > _SHOWN_FAULTS else []
    return error_response(422, "invalid_request", "; ".join([*faults[:_SHOWN_FAULTS], *more]))


def _fault(fault: Mapping[str, Any]) -> str:
    """One line that names the field: pydantic's own dump repeats the whole input."""
    if fault["type"] == "json_invalid":
        return f"the body is not valid JSON ({fault.get('ctx', {}).get('error', 'unreadable')}); correct it"
    key = _dotted(fault["loc"])
    if fault["type"] == "union_tag_invalid":
        context = fault["ctx"]
        name = str(context["discriminator"]).strip("'")
        return f"{key}.{name}: {str(context['tag'])[:_SHOWN_VALUE]!r} is not one of {context['expected_tags']}"
    if fault["type"] == "union_tag_not_found":
        key = ".".join((key, str(fault["ctx"]["discriminator"]).strip("'")))
    if fault["type"] in ("missing", "union_tag_not_found"):
        return f"missing field {key!r}" if key else "the body is missing; send a JSON object"
    if fault["type"] == "extra_forbidden":
        return f"unknown field {key!r}"
    message = " ".join(str(fault["msg"]).removeprefix("Value error, ").split())[:_SHOWN_VALUE]
    return f"{key}: {message}" if key else message


def _dotted(location: Sequence[int | str]) -> str:
    """`("body", "documents", 3, "text")` is `documents.3.text`. The members of a union that pydantic tried are left
    out: they are names of classes, not of fields."""
    steps = [str(step) for step in location[1:]] if location else []
    return ".".join(
        step[:_SHOWN_NAME] for step in steps if step.isdigit() or (step.isidentifier() and not step[:1].isupper())
    )
