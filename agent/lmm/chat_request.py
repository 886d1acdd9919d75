"""A request as the body of an OpenAI-compatible chat completion."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fieldscope.agent.lmm.base import ImagePart, LMMRequest, Message, TextPart

WriteImage = Callable[[ImagePart], Awaitable[dict[str, Any]]]
"""Writes an image as a content part."""


async def chat_request(request: LMMRequest, model: str, write_image: WriteImage) -> dict[str, Any]:
    """The arguments of the openai library's `create`. Raises what `write_image` raises."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [await _message(message, write_image) for message in request.messages],
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "seed": request.draw,
    }
    if request.top_logprobs:
        body |= {"logprobs": True, "top_logprobs": request.top_logprobs}
    if request.json_schema is not None:
        schema = {"name": "answer", "schema": request.json_schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if request.extra_body:
        body["extra_body"] = request.extra_body
    return body


async def _message(message: Message, write_image: WriteImage) -> dict[str, Any]:
    match message.content:
        case (TextPart(text=text),):  # plain, for servers whose templates know no parts
            return {"role": message.role, "content": text}
    return {"role": message.role, "content": [await _part(part, write_image) for part in message.content]}


async def _part(part: TextPart | ImagePart, write_image: WriteImage) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    return await write_image(part)
