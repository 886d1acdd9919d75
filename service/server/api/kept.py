"""A search whose ranking is kept in a folder of its own, and what such a search looks like over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from fieldscope.core.errors import ConfigError
from fieldscope.eval.runs.searches import LONGEST_NAME, Searches, SearchFolder
from fieldscope.service.metadata.store import write_records
from fieldscope.service.server.api.engine import Engine, Watch
from fieldscope.service.server.api.errors import ApiError
from fieldscope.service.server.api.search import SearchBody, prepare, reply_of
from fieldscope.service.server.settings import ServerSettings

URL = "/v1/searches"
"""The `url` of the call of a job that makes a kept search."""


class KeptSearchBody(SearchBody):
    """A search to keep: the body of `/v1/search` with a name. `stream` is not used."""

    name: str | None = Field(
        default=None, min_length=1, max_length=LONGEST_NAME, pattern=r"\S", description="Default: the query."
    )


class _StoredBody(KeptSearchBody):
    """The body as a job keeps it, with the folder that it was given."""

    search: str


def searches_of(settings: ServerSettings) -> Searches:
    """The kept searches in the data folder of a service."""
    return Searches(settings.data_folder / "searches")


def stored_body(body: KeptSearchBody, search_id: str) -> str:
    """What a job keeps of a search."""
    fields = body.model_dump(mode="json", exclude_unset=True) | {"search": search_id}
    return _StoredBody.model_validate(fields).model_dump_json(exclude_unset=True)


async def answer_kept(engine: Engine, body: Mapping[str, Any], watch: Watch) -> tuple[str, dict[str, Any]]:
    """Search, keep the ranking in the search's folder, and reply as `/v1/search` does, with the trace's id. Raises
    `ApiError` (404) where the search was deleted meanwhile."""
    stored = _StoredBody.model_validate(body)
    folder = find_search(engine, stored.search)
    call = await prepare(engine, stored)
    reranked = await engine.search(call, watch)
    setting = reranked.setting
    assert setting is not None

    def keep() -> None:
        _ = find_search(engine, stored.search)
        provenance = {"lmm": setting.lmm, "encoder": setting.encoder}
        folder.keep([reranked.result], setting.strategy, setting.calibration, provenance, engine.images.locator())
        served = engine.collection(call.collection)
        ids = {ranked.image_id for ranked in reranked.result.ranking}
        inner = {image_id: image_id.removeprefix(served.reference("")) for image_id in ids}
        if records := served.records.renamed(inner):
            write_records(folder.path, records)

    await asyncio.to_thread(keep)
    return reranked.result.query_id, reply_of(engine, stored, call, reranked).model_dump(mode="json")


def find_search(engine: Engine, search_id: str) -> SearchFolder:
    """The search of this id. Raises `ApiError` (404)."""
    folder = searches_of(engine.settings).find(search_id)
    if folder is None:
        raise ApiError(404, "unknown_search", f"there is no search {search_id[:64]!r}; /v1/searches lists them")
    return folder


SearchState = Literal["waiting", "running", "done", "failed", "cancelled", "stopped"]
"""`stopped`: its job is gone and there is no ranking; it can be repeated."""


def require_finished(folder: SearchFolder) -> None:
    """Raise `ApiError` (409) for a search without a ranking."""
    if not folder.finished:
        raise ApiError(409, "not_finished", f"search {folder.id} has no ranking yet; wait for it, or repeat it")


def readable(error: ConfigError) -> ApiError:
    """An error of a search's files as the reply to a call."""
    return ApiError(409, "unreadable_search", str(error))
