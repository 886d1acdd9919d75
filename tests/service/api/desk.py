"""A service's desk without its kitchen: the endpoints over an engine that keeps the contract and asks no model."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
from fastapi import FastAPI
from PIL import Image as PILImage

from fieldscope.agent.types import Call, RankedCandidate, RerankResult
from fieldscope.core.errors import ImageError
from fieldscope.retrieval.collection import Collection, FolderCollection
from fieldscope.retrieval.images import ImageLimits
from fieldscope.service.server.api.calls import RerankCall, Reranked, Scored
from fieldscope.service.server.api.collections import ServedCollection
from fieldscope.service.server.api.engine import Engine
from fieldscope.service.server.api.errors import ApiError, add_handlers
from fieldscope.service.server.api.pictures import SCHEME, PictureStore, reference
from fieldscope.service.server.limits import Limits
from fieldscope.service.server.settings import ServerSettings

RED, GREEN, BLUE = "#d01010", "#10d010", "#1010d0"


class Desk:
    """An engine for tests: the last document is the best. It remembers its calls."""

    def __init__(self, folder: Path, limits: Limits | None = None, hosts: tuple[str, ...] = ()) -> None:
        self.limits = limits or Limits()
        self.settings = ServerSettings(image_hosts=hosts)
        self.pictures = PictureStore(
            folder / "kept", ImageLimits(self.limits.max_image_bytes, self.limits.max_pixels), 10_000_000
        )
        self.collections: dict[str, ServedCollection] = {}
        self.calls: list[RerankCall] = []
        self.seen: list[tuple[int, int, int]] = []

    def open(self, **folders: Path) -> Desk:
        """Register collections."""
        opened: Mapping[str, Collection] = {name: FolderCollection(folder) for name, folder in folders.items()}
        self.collections |= {name: ServedCollection(name, images) for name, images in opened.items()}
        return self

    def image(self, text: str) -> str:
        name, _, image_id = text.removeprefix(SCHEME).partition("/")
        try:
            self.collections[name].images.stamp(image_id)
        except (KeyError, ImageError) as error:
            raise ApiError(404, "no_such_image", f"there is no image {text!r}") from error
        return reference(name, image_id)

    def strategies(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="agent"), SimpleNamespace(name="yes-no")]

    async def rerank(self, call: RerankCall, watch: object = None) -> Reranked:
        self.calls.append(call)
        for document in call.documents:
            if image_id := getattr(document, "image_id", None):
                self.seen.append(cast(tuple[int, int, int], call.images.load(image_id).getpixel((0, 0))))
        count = len(call.documents)
        order = [Scored(index, (index + 1) / (count + 1), 0.5, f"reason {index}") for index in range(count)][::-1]
        ranking = RankedCandidate(image_id="x", rank=1, score=0.5, prior=0.0, prior_rank=1)
        result = RerankResult(
            query_id="trace-1",
            query_text=call.query,
            strategy="agent",
            ranking=(ranking,),
            calls=(Call(stage="verify", state="answered", prompt_tokens=40, completion_tokens=2),),
            flags=("a flag",),
        )
        return Reranked(result, "bundled", tuple(order[: call.top_n]))

    @property
    def engine(self) -> Engine:
        return cast(Engine, self)

    @contextmanager
    def app(self) -> Iterator[FastAPI]:
        """The routers over this engine."""
        from fieldscope.service.server.api import rerank

        app = FastAPI(routes=rerank.router.routes)
        app.state.engine = self
        add_handlers(app)
        yield app

    async def post(
        self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """One request."""
        with self.app() as app:
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://desk") as client:
                return await client.post(path, json=dict(body), headers=headers)


def picture(colour: str, kind: str = "PNG", size: tuple[int, int] = (8, 6)) -> bytes:
    """The bytes of a file."""
    buffer = io.BytesIO()
    PILImage.new("RGB", size, colour).save(buffer, kind)
    return buffer.getvalue()


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
