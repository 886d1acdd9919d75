"""One run as the viewer sees it. What its folder lacks is None here, with a sentence where somebody would miss it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fieldscope.agent.strategies.strategy import Strategy
from fieldscope.agent.types import RerankResult
from fieldscope.core.errors import CacheError, ConfigError, FieldscopeError
from fieldscope.core.fingerprint import fingerprint
from fieldscope.core.paths import without_folders
from fieldscope.core.reading import load_json
from fieldscope.eval.runs.inputs import Inputs, StrategyLine, read_inputs
from fieldscope.eval.runs.read import (
    COLLECTION,
    IMAGES,
    MANIFEST,
    METRICS,
    RESULTS,
    Manifest,
    OtherVersionError,
    RunSetup,
    read_judgments,
    read_manifest,
    readable_hashes,
)
from fieldscope.retrieval.collection import Collection
from fieldscope.retrieval.opening import open_collection, reopen_collection
from fieldscope.service.viewer.runs.digest import QueryDigest, digests

NEWER = "was written by another version of Fieldscope, which this one can't read; open it with that version"


@dataclass
class Run:
    """A run's folder. `key` names it in addresses, `name` for people.

    `problem` says in a sentence why it can't be shown as a whole; None where it can. Then `manifest` is there, and
    `digests` has every finished query. `metrics` are what `metrics.json` holds, None before the run is finished.
    """

    key: str
    name: str
    folder: Path
    problem: str | None
    manifest: Manifest | None
    metrics: Mapping[str, Any] | None
    judgments: Mapping[str, Mapping[str, int]] | None
    digests: Mapping[str, QueryDigest]
    images: Path | None
    store: Path | None

    @cached_property
    def configuration(self) -> RunSetup:
        """Raises `ConfigError` for a run that can't be read."""
        if self.manifest is None:
            raise ConfigError(self.problem or f"{self.folder} can't be read")
        return self.manifest.setup

    @property
    def finished(self) -> bool:
        """Whether all its queries were ranked and scored."""
        return self.metrics is not None

    @property
    def strategy(self) -> str:
        """The strategy's name."""
        return self.configuration.strategy.name

    def groups(self, query_id: str) -> Mapping[str, str]:
        """Kind of group -> the query's own; empty where the run does not say."""
        groups = (self.metrics or {}).get("groups", {}).get(query_id, {})
        return {kind: name for kind, name in groups.items() if name}

    def relevant(self, query_id: str) -> frozenset[str] | None:
        """The images that were judged to be matches; None where the truth is not known."""
        if self.judgments is None or query_id not in self.judgments:
            return None
        return frozenset(image_id for image_id, judgment in self.judgments[query_id].items() if judgment > 0)

    def result(self, query_id: str) -> RerankResult:
        """A query's result. Raises `ConfigError` where it is of another version, or gone."""
        digest = self.digests[query_id]
        return _read_result(self.folder / RESULTS, digest.start, digest.size, digest.sha256)

    @cached_property
    def inputs(self) -> Inputs | None:
        """What the run is made from; None where its folder does not say."""
        try:
            return read_inputs(self.folder)
        except ConfigError:
            return None

    @cached_property
    def strategy_line(self) -> StrategyLine | None:
        """The strategy in full, with its prompts and its calibration."""
        return self.inputs.strategy if self.inputs else None

    @cached_property
    def strategy_in_full(self) -> Strategy | None:
        """The strategy with its settings and prompts; None where the run does not say, or not in this version's
        words."""
        try:
            return self.strategy_line.strategy() if self.strategy_line else None
        except ConfigError:
            return None

    @cached_property
    def collection(self) -> Collection | str:
        """The images, or a sentence that says why they are not to be had."""
        try:
            if self.images is not None:
                return open_collection([self.images])
            return reopen_collection(load_json((self.folder / COLLECTION).read_bytes()))
        except (OSError, ValueError, AttributeError):
            return "this run does not say where its images lie; name their folder with --images"
        except FieldscopeError as error:
            reason = without_folders(str(error))
            return f"its images are not where the run says ({reason}); name their folder with --images"

    @cached_property
    def collection_key(self) -> str:
        """What tells its images from another collection's in addresses."""
        found = self.collection
        return "none" if isinstance(found, str) else fingerprint(found.locator())[:12]

    @property
    def pictures(self) -> str | None:
        """The key of its images; None where they are not to be had."""
        return None if isinstance(self.collection, str) else self.collection_key

    @property
    def no_pictures(self) -> str | None:
        """A sentence that says why the images are not to be had; None where they are."""
        return self.collection if isinstance(self.collection, str) else None

    @cached_property
    def hashes(self) -> Mapping[str, str]:
        """Image id -> hash of its pixels, of the images that the model was asked about; what can't be read is left
        out."""
        try:
            return readable_hashes((self.folder / IMAGES).read_bytes().splitlines())
        except OSError:
            return {}

    def calls(self, request_keys: Iterable[str | None]) -> dict[str, Call]:
        """Request and response of each call that the response cache has, by its key."""
        if self.store is None or not self.store.is_file():
            return {}
        from fieldscope.agent.lmm.cached import entry_fault
        from fieldscope.cache.sqlite import SqliteStore

        found = {}
        try:
            with closing(SqliteStore(self.store)) as store:
                for key in dict.fromkeys(request_keys):
                    if key is not None and (entry := store.get(key)) is not None and entry_fault(entry) is None:
                        found[key] = Call(*map(json.loads, (entry.request, entry.response, entry.provenance)))
        except (CacheError, ValueError):
            pass  # a cache that is damaged, or another program's: the pages say which answers it does not have
        return found


@dataclass(frozen=True)
class Call:
    """A call as the response cache keeps it: `LMMRequest` and `LMMResponse` as JSON, and where they came from."""

    request: Mapping[str, Any]
    response: Mapping[str, Any]
    provenance: Mapping[str, Any]


def open_run(key: str, name: str, folder: Path, images: Path | None, store: Path | None) -> Run:
    """A run's folder, read without writing to it. What is wrong with it is the run's `problem`, never an error."""
    manifest, problem = _manifest(folder)
    metrics = _metrics(folder)
    judgments = _judgments(folder) if manifest else None
    found: Mapping[str, QueryDigest] = {}
    if manifest is not None:
        try:
            found = digests(folder, judgments)
        except OSError:
            problem = f"{name} has no results yet: no query is finished"
        else:
            if not found:
                problem = _nothing(folder, name)
    return Run(key, name, folder, problem, manifest, metrics, judgments, found, images, store)


def _manifest(folder: Path) -> tuple[Manifest | None, str | None]:
    try:
        return read_manifest(folder), None
    except OtherVersionError:
        return None, f"{folder.name} {NEWER}"
    except ConfigError:
        return None, f"{folder.name} can't be read: its {MANIFEST} is damaged"


def _nothing(folder: Path, name: str) -> str:
    """Why a run has no query to show."""
    if (folder / RESULTS).stat().st_size:
        return f"{name} {NEWER}"
    return f"{name} has no results yet: no query is finished"


def _metrics(folder: Path) -> Mapping[str, Any] | None:
    try:
        told = load_json((folder / METRICS).read_bytes())
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) and isinstance(told.get("per_query"), dict) else None


def _judgments(folder: Path) -> Mapping[str, Mapping[str, int]] | None:
    """As they were scored against, or before that as the run's inputs have them."""
    try:
        return read_judgments(folder)
    except ConfigError:
        pass
    try:
        return read_inputs(folder).judgments or None
    except ConfigError:
        return None


@lru_cache(maxsize=32)
def _read_result(path: Path, start: int, size: int, sha256: str) -> RerankResult:
    try:
        with path.open("rb") as stream:
            stream.seek(start)
            line = stream.read(size)
        if hashlib.sha256(line).hexdigest() != sha256:
            raise ConfigError("this query's results changed while the page was made; load it again")
        return RerankResult.model_validate_json(line)
    except (OSError, ValidationError) as error:
        raise ConfigError(f"this query {NEWER}") from error
