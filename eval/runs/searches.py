"""Searches that were kept: each is a run folder of its own, with its name and its request in `search.json`.

The folder is created when a search begins, and becomes a run when its ranking is there. People's marks lie beside it
(`fieldscope.eval.runs.marks`).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fieldscope.agent.calibration import Calibration
from fieldscope.agent.strategies.strategy import Strategy
from fieldscope.agent.trace import result_to_json
from fieldscope.agent.types import RerankResult
from fieldscope.core.errors import ConfigError
from fieldscope.core.files import replace_file
from fieldscope.core.fingerprint import fingerprint
from fieldscope.core.paths import cache_folder
from fieldscope.core.private import private_folder
from fieldscope.core.reading import file_bytes
from fieldscope.eval.runs.inputs import BenchmarkLine
from fieldscope.eval.runs.read import RESULTS, is_run
from fieldscope.eval.runs.runfolder import describe_served_run

NAME = "search.json"
SEARCH = "search"
"""The name of the benchmark that a kept search is a run of."""

LONGEST_NAME = 200
_LONGEST_SLUG = 40
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class SearchRecord(BaseModel):
    """`search.json`: the search's `name`, when it was `created` (ISO 8601, UTC), the `collection` that was searched (a
    registered name, a folder, or None for single files), the `request` that repeats it (the body of `POST
    /v1/searches`), and the `job` that works on it, None for a search of the command line."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str = Field(min_length=1, max_length=LONGEST_NAME)
    created: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    collection: str | None = None
    request: dict[str, Any] = Field(default_factory=dict)
    job: str | None = None


class SearchFolder:
    """One kept search at `path`; its id is the folder's name."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def finished(self) -> bool:
        """Whether its ranking is there."""
        return is_run(self.path)

    @property
    def record(self) -> SearchRecord:
        """Raises `ConfigError` where `search.json` is missing or damaged."""
        try:
            return SearchRecord.model_validate_json(file_bytes(self.path / NAME))
        except (OSError, ValidationError) as error:
            raise ConfigError(f"{self.path} holds no kept search. Name the folder of one.") from error

    def write(self, record: SearchRecord) -> None:
        """Put the record on the disk. Raises `ConfigError`."""
        try:
            replace_file(self.path / NAME, record.model_dump_json(indent=2), durable=True)
        except OSError as error:
            raise ConfigError(f"can't write {self.path / NAME}: {error.strerror}. Choose another folder.") from error

    def keep(
        self,
        results: Sequence[RerankResult],
        strategy: Strategy,
        calibration: Calibration | None,
        provenance: Mapping[str, Any],
        locator: Mapping[str, Any] | None,
    ) -> None:
        """Make the folder a run: `results` with what they were made with (`describe_served_run` says more).

        Searches for the same queries in the same collection are runs of one benchmark, so they can be compared; each
        query gets an id that is its own in every search (`search_query_id`). Raises `ConfigError`.
        """
        named = [result.model_copy(update={"query_id": search_query_id(result)}) for result in results]
        lines = "".join(f"{result_to_json(result)}\n" for result in named)
        try:
            replace_file(self.path / RESULTS, lines, durable=True)
        except OSError as error:
            raise ConfigError(f"can't write {self.path / RESULTS}: {error.strerror}. Free some disk space.") from error
        task = {"collection": self.record.collection, "queries": {each.query_id: each.query_text for each in named}}
        benchmark = BenchmarkLine(name=SEARCH, split="", rerank=True, fingerprint=fingerprint(task))
        describe_served_run(self.path, strategy, calibration, provenance, locator, benchmark)

    def delete(self) -> None:
        """Remove the folder with its marks. Raises `ConfigError` where the disk refuses."""
        _ = self.record  # never a folder of something else
        try:
            shutil.rmtree(self.path)
        except OSError as error:
            raise ConfigError(f"can't delete {self.path}: {error.strerror}. Check its permissions.") from error


class Searches:
    """The kept searches below `root`, which need not exist yet."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def begin(self, record: SearchRecord) -> SearchFolder:
        """A new folder for a search, which only the user can read. Raises `ConfigError`."""
        try:
            private_folder(self.root)
            private_folder(self.root / (new := new_id(record.name)))
        except OSError as error:
            raise ConfigError(f"can't write {self.root}: {error.strerror}. Check its permissions.") from error
        folder = SearchFolder(self.root / new)
        folder.write(record)
        return folder

    def find(self, search_id: str) -> SearchFolder | None:
        """The search of this id; None if there is none."""
        folder = SearchFolder(self.root / search_id)
        return folder if _ID.fullmatch(search_id) and (folder.path / NAME).is_file() else None

    def all(self) -> list[SearchFolder]:
        """Every search, the newest first; damaged ones are left out."""
        found = []
        for path in self.root.iterdir() if self.root.is_dir() else ():
            folder = SearchFolder(path)
            try:
                found.append((folder.record.created, folder.id, folder))
            except ConfigError:
                continue
        return [folder for *_, folder in sorted(found, key=lambda each: each[:2], reverse=True)]


def default_searches() -> Searches:
    """Where the command line keeps searches: below the data folder of a service with default settings."""
    data = os.environ.get("FIELDSCOPE_DATA")
    return Searches((Path(data) if data else cache_folder() / "service") / "searches")


def new_id(name: str) -> str:
    """The name of a new search's folder: the time, some of its words, and what makes it its own."""
    words = re.sub(r"[^a-z0-9]+", "-", name.lower())[:_LONGEST_SLUG].strip("-")
    return "-".join(filter(None, (f"{datetime.now(UTC):%Y%m%d-%H%M%S}", words, uuid4().hex[:4])))


def search_query_id(result: RerankResult) -> str:
    """The id of a result's query in a kept search: its own where it has one, and for a single search one that the same
    request has in every search."""
    if not re.fullmatch(r"query|[0-9a-f]{32}", result.query_id):
        return result.query_id
    request = {
        "text": result.query_text,
        "reference": result.reference_image,
        "dialogue": [turn.model_dump() for turn in result.dialogue],
    }
    return f"q-{fingerprint(request)[:10]}"
