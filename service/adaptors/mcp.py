"""A server of the Model Context Protocol (the extra `mcp`): an assistant searches and ranks the registered collections,
and asks why an image is where it is. Nothing that it can call changes a collection."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Annotated, Any

from mcp.server.mcpserver import Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import BaseModel, Field

from fieldscope.agent.trace_why import Part, Why, why
from fieldscope.core.errors import FieldscopeError
from fieldscope.service.adaptors.library import EngineLibrary, Library, ServiceLibrary
from fieldscope.service.adaptors.served import Service
from fieldscope.service.server.api.calls import HowJudged
from fieldscope.service.server.api.errors import as_api_error
from fieldscope.service.server.api.opening import open_engine, prepare
from fieldscope.service.server.api.pictures import SCHEME
from fieldscope.service.server.settings import ServerSettings

_READ_ONLY = ToolAnnotations(read_only_hint=True, open_world_hint=False)
_REASONS = 3

Query = Annotated[str, Field(pattern=r"\S", description="What the images should show, in words.")]
Strategy = Annotated[str | None, Field(description="How to rank. Default: the server's own choice.")]
MaxCalls = Annotated[int | None, Field(ge=0, description="The most questions to the vision model. Default: no limit.")]
Reasons = Annotated[int, Field(ge=0, le=20, description="How many of the best images get a reason in words.")]
Images = Annotated[
    list[str], Field(min_length=1, max_length=1000, description="Ids as in `fieldscope://photos/12.jpg`.")
]


class RankedPicture(BaseModel):
    """An image at its rank. `p_match` is the probability that it matches; null if the strategy claims none."""

    rank: int
    image: str = Field(description="Its id, which `rerank` and `explain` take.")
    p_match: float | None
    judged: HowJudged
    reason: str | None


class RankedPictures(BaseModel):
    """A ranking, best first. `explain` takes its `trace_id`."""

    trace_id: str
    strategy: str
    results: list[RankedPicture]
    warnings: list[str]


def make_server(library: Library, instructions: str) -> MCPServer:
    """The server with its three tools over a library."""
    server = MCPServer("fieldscope", version=version("fieldscope"), instructions=instructions, log_level="WARNING")

    @server.tool(annotations=_READ_ONLY)
    async def search(
        query: Query,
        collection: Annotated[str | None, Field(description="Its name. Optional if there is only one.")] = None,
        top_n: Annotated[int, Field(ge=1, le=100, description="How many images to return.")] = 10,
        strategy: Strategy = None,
        max_calls: MaxCalls = None,
        reasons: Reasons = _REASONS,
    ) -> RankedPictures:
        """Find images in a collection: a vision model looks at each candidate. The best come first, with reasons."""
        body = {"query": query, "collection": collection, "top_n": top_n, **_options(strategy, max_calls, reasons)}
        with _said_to_the_assistant():
            reply = await library.search(body)
        nothing = reply["nothing"] or {}
        return RankedPictures(
            trace_id=reply["trace_id"],
            strategy=reply["strategy"],
            results=[_picture(n, found["url"], found) for n, found in enumerate(reply["results"], start=1)],
            warnings=[*nothing.get("sentences", ()), *reply["flags"]],
        )

    @server.tool(annotations=_READ_ONLY)
    async def rerank(
        query: Query, images: Images, strategy: Strategy = None, max_calls: MaxCalls = None, reasons: Reasons = _REASONS
    ) -> RankedPictures:
        """Rank images of the collections for a query: a vision model looks at each of them. Best first."""
        if unknown := next((image for image in images if not image.startswith(SCHEME)), None):
            raise ToolError(f"{unknown[:100]!r} is not an id of a registered image; write it as {SCHEME}COLLECTION/ID")
        documents = [{"image": image} for image in images]
        with _said_to_the_assistant():
            reply = await library.rerank(
                {"query": query, "documents": documents, **_options(strategy, max_calls, reasons)}
            )
        return RankedPictures(
            trace_id=reply["id"],
            strategy=reply["strategy"],
            results=[_picture(n, images[one["index"]], one) for n, one in enumerate(reply["results"], start=1)],
            warnings=reply["meta"].get("warnings") or [],
        )

    @server.tool(annotations=_READ_ONLY, structured_output=False)
    async def explain(
        trace_id: Annotated[str, Field(description="The `trace_id` of a ranking.")],
        image: Annotated[str, Field(description="An image of that ranking.")],
    ) -> list[Any]:
        """Why an image is at its rank: every question that the vision model was asked about it, with its answer, and a
        small picture of it."""
        collection, _, image_id = image.removeprefix(SCHEME).partition("/")
        with _said_to_the_assistant():
            explained = why(await library.trace(trace_id), image)
            picture = await library.thumbnail(collection, image_id)
        return [json.dumps(_explanation(explained), indent=1), Image(data=picture, format="webp")]

    return server


async def serve_settings(settings: ServerSettings) -> None:
    """Open models and collections, and speak MCP on standard input and output until the client leaves. Raises
    `ConfigError`."""
    async with open_engine(settings, prepared=prepare(settings)) as engine:
        await _serve(EngineLibrary(engine))


async def serve_url(url: str) -> None:
    """The same over a running service. Raises `FieldscopeError` where it can't be reached."""
    await _serve(ServiceLibrary(Service(url)))


async def _serve(library: Library) -> None:
    collections = [f"{each['name']} ({each['images']} images)" for each in await library.collections()]
    instructions = f"Search and rank pictures by what they show. Collections: {', '.join(collections)}."
    await make_server(library, instructions).run_stdio_async()


@contextmanager
def _said_to_the_assistant() -> Iterator[None]:
    """An error of ours reaches the assistant in its own words, without folders of this machine."""
    try:
        yield
    except FieldscopeError as error:
        raise ToolError(str(as_api_error(error))) from error


def _options(strategy: str | None, max_calls: int | None, reasons: int) -> dict[str, Any]:
    budget = {"max_calls": max_calls} if max_calls is not None else None
    return {"strategy": strategy, "budget": budget, "explain": reasons}


def _picture(rank: int, image: str, result: Mapping[str, Any]) -> RankedPicture:
    return RankedPicture(
        rank=rank, image=image, p_match=result.get("p_match"), judged=result["judged"], reason=result.get("reason")
    )


def _explanation(explained: Why) -> dict[str, Any]:
    ranked = explained.ranked
    return {
        "image": ranked.image_id,
        "rank": ranked.rank,
        "of": explained.of,
        "first_stage_rank": ranked.prior_rank,
        "p_match": ranked.p_match,
        "why": explained.sentence,
        "reason": explained.reason.text if explained.reason is not None else None,
        "questions": _questions(explained.parts),
    }


def _questions(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """What was asked about the image: the question, the answer that a match must give, its probability (null: no
    answer), and the model's own words."""
    return [
        {
            "question": part.predicate.question if part.predicate is not None else part.verdict.predicate,
            "expected": part.predicate.expected if part.predicate is not None else None,
            "p_expected": part.verdict.p_expected,
            "answer": part.verdict.answer or part.verdict.state,
        }
        for part in parts
        if part.verdict is not None
    ]
