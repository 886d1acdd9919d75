"""A request as the body of an OpenAI-compatible chat completion."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fieldscope.agent.lmm.base import ImagePart, LMMRequest, Message, TextPart
from fieldscope.agent.lmm.server_profile import ServerProfile

WriteImage = Callable[[ImagePart], Awaitable[dict[str, Any]]]
"""Writes an image as a content part."""


_PLAIN = ServerProfile()


async def chat_request(
    request: LMMRequest, model: str, write_image: WriteImage, profile: ServerProfile = _PLAIN
) -> dict[str, Any]:
    """The arguments of the openai library's `create`, as a server of this profile takes them. Raises what `write_image`
    raises."""
    body = {
        "model": model,
        "messages": [await _message(message, write_image) for message in request.messages],
        **chat_parameters(request, profile),
    }
    if extra := {name: value for name, value in request.extra_body.items() if value is not None}:
        body["extra_body"] = extra
    return body


def chat_parameters(request: LMMRequest, profile: ServerProfile = _PLAIN) -> dict[str, Any]:
    """What a body has beside model, messages and the request's `extra_body`: a field that is null there is left out."""
    parameters: dict[str, Any] = {
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "seed": request.draw,
    }
    if request.top_logprobs:
        parameters |= {"logprobs": True, "top_logprobs": request.top_logprobs}
    if request.json_schema is not None:
        schema = {"name": "answer", "schema": request.json_schema, "strict": True}
        parameters["response_format"] = {"type": "json_schema", "json_schema": schema}
    fitted = profile.fit(parameters)
    return {name: value for name, value in fitted.items() if request.extra_body.get(name, value) is not None}


async def _message(message: Message, write_image: WriteImage) -> dict[str, Any]:
    match message.content:
        case (TextPart(text=text),):  # plain, for servers whose templates know no parts
            return {"role": message.role, "content": text}
    return {"role": message.role, "content": [await _part(part, write_image) for part in message.content]}


async def _part(part: TextPart | ImagePart, write_image: WriteImage) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    return await write_image(part)
