"""A run that is repeated with its prompts in other words: the body of such a call, and the work of its job."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from fieldscope.agent.types import TraceEvent
from fieldscope.agent.usage import Usage
from fieldscope.service.server.api.engine import Engine, Watch
from fieldscope.service.server.api.errors import ApiError
from fieldscope.service.viewer.addresses import slug
from fieldscope.service.viewer.runs.run_list import RunList
from fieldscope.service.wiring import feedback
from fieldscope.service.workflows.prompt_edits import OpenEdit, PromptEdit, Wording, open_edit, run_edit

URL = "/v1/runs/reworded"
"""The `url` of the call of a job that repeats a run."""

FOLDER = "reworded"
"""Where such runs lie below the runs folder."""

_LONGEST = 20_000
_EXAMPLES: list[Any] = [
    {"prompts": {"match_yes_no": {"template": 'Does the photograph show "{{ query }}"? Answer yes or no.'}}}
]


class WordingBody(BaseModel):
    """What a prompt says in place of its own words."""

    model_config = ConfigDict(extra="forbid")

    system: str = Field(default="", max_length=_LONGEST)
    template: str = Field(min_length=1, max_length=_LONGEST)


class RewordedBody(BaseModel):
    """Prompts of the run, by name, in other words; the others stay. `queries` is how many of the run's queries are
    asked, from the first on. `name` is that of the new run."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": _EXAMPLES})

    prompts: dict[str, WordingBody] = Field(min_length=1, max_length=50)
    queries: int | None = Field(default=None, ge=1)
    name: str | None = Field(default=None, min_length=1, max_length=100)


class StoredRewording(RewordedBody):
    """The body as a job keeps it, with the key of the run that is repeated."""

    run: str


async def answer_reworded(engine: Engine, body: Mapping[str, Any], watch: Watch) -> dict[str, Any]:
    """Repeat the run of a job's call. `watch` hears of each finished query."""
    stored = StoredRewording.model_validate(body)
    opened = await asyncio.to_thread(opened_edit, engine, stored.run, stored)
    with feedback.listening(_Watched(watch)):
        await run_edit(opened, engine.settings.runs_folder / FOLDER, engine.settings.models)
    return {"run": key_of(opened), "queries": len(opened.asked)}


def opened_edit(engine: Engine, key: str, body: RewordedBody) -> OpenEdit:
    """What a body asks for of the run with this key. Raises `ApiError` (404) for an unknown one, and as `open_edit`."""
    folder = engine.settings.runs_folder
    run = RunList(folder).folders().get(key) if folder.is_dir() else None
    if run is None:
        raise ApiError(404, "unknown_run", f"there is no run {key[:100]!r}; /v1/runs lists them")
    wordings = {name: Wording(own.system, own.template) for name, own in body.prompts.items()}
    return open_edit(PromptEdit(run, wordings, body.queries, body.name))


def key_of(opened: OpenEdit) -> str:
    """The key of the new run."""
    benchmark = opened.inputs.benchmark
    return slug(f"{FOLDER}/{benchmark.name}-{benchmark.split}/{opened.strategy.name}")


class _Watched(feedback.Silent):
    """Sends the progress of a run to the followers of its job."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._done, self._total = 0, 0

    @contextmanager
    def run_progress(self) -> Iterator[_Watched]:
        yield self

    def begin(self, strategy: str, queries: int, finished: int, cost: Usage) -> None:
        self._done, self._total = finished, queries
        self._tell()

    def advance(self, cost: Usage) -> None:
        self._done += 1
        self._tell()

    def end(self) -> None:
        pass

    def _tell(self) -> None:
        self._watch(TraceEvent(kind="advanced", at=0.0, data={"done": self._done, "total": self._total}))
