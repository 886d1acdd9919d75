"""One run as the viewer reads it. What its folder lacks is None, with a sentence for the user where it matters."""

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
from fieldscope.eval.protocol import Protocol
from fieldscope.eval.reported import Reported, reported_as
from fieldscope.eval.runs.inputs import Inputs, StrategyLine, read_inputs, read_protocol
from fieldscope.eval.runs.notes import RunNotes, read_notes
from fieldscope.eval.runs.read import (
    COLLECTION,
    IMAGES,
    MANIFEST,
    METRICS,
    RESULTS,
    Manifest,
    Metrics,
    OtherVersionError,
    RunSetup,
    read_judgments,
    read_manifest,
    readable_hashes,
)
from fieldscope.eval.runs.runfolder import SERVED
from fieldscope.eval.runs.searches import SEARCH
from fieldscope.retrieval.collection import Collection
from fieldscope.retrieval.opening import open_collection, reopen_collection
from fieldscope.service.metadata.records import Records
from fieldscope.service.metadata.store import read_records
from fieldscope.service.viewer.runs.digest import QueryDigest, digests

NEWER = "was written by another version of Fieldscope and can't be read; open it with that version"


@dataclass
class Run:
    """A run's folder. `key` is its name in addresses, `name` its name on pages.

    `problem` is a sentence that says why the run can't be shown. If it is None, `manifest` is present and `digests` has
    every finished query. `metrics` is the content of `metrics.json`, None until the run is finished.
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
        """Whether all queries are ranked and scored."""
        return self.metrics is not None

    @property
    def is_search(self) -> bool:
        """Whether it is what people searched for, and not a benchmark: it has no judgments to be scored against."""
        return self.manifest is not None and self.configuration.benchmark.name in (SEARCH, SERVED)

    @property
    def took(self) -> float | None:
        """The seconds from the evaluation's begin to its end, without earlier parts of one that was resumed; None until
        the run is finished."""
        cost = (self.metrics or {}).get("cost")
        seconds = cost.get("seconds") if isinstance(cost, dict) else None
        return float(seconds) if isinstance(seconds, int | float) else None

    @property
    def reported(self) -> Reported:
        """The metrics in which the benchmark's results are reported; the usual ones until the run is finished."""
        return _reported(self.metrics)

    @property
    def strategy(self) -> str:
        """The strategy's name."""
        return self.configuration.strategy.name

    @cached_property
    def protocol(self) -> Protocol:
        """How the benchmark is scored."""
        return read_protocol(self.folder)

    @property
    def own_figures(self) -> dict[str, float]:
        """The figures that the benchmark's protocol averages otherwise than over queries, or over several metrics;
        empty for all others, and until the run is finished."""
        protocol, told = self.protocol, (self.metrics or {}).get("metrics")
        if not isinstance(told, dict) or not (protocol.by_group or protocol.averages):
            return {}
        names = dict.fromkeys((*self.reported.means, *protocol.metrics, *protocol.averages))
        values = {name: told.get(name) for name in names}
        return {name: float(value) for name, value in values.items() if isinstance(value, int | float)}

    def groups(self, query_id: str) -> Mapping[str, str]:
        """Kind of group -> the query's group; empty if the run does not say."""
        groups = (self.metrics or {}).get("groups", {}).get(query_id, {})
        return {kind: name for kind, name in groups.items() if name}

    def relevant(self, query_id: str) -> frozenset[str] | None:
        """The images that are judged a match; None without judgments."""
        if self.judgments is None or query_id not in self.judgments:
            return None
        return frozenset(image_id for image_id, judgment in self.judgments[query_id].items() if judgment > 0)

    def result(self, query_id: str) -> RerankResult:
        """A query's result. Raises `ConfigError` if it is of another version, or deleted."""
        digest = self.digests[query_id]
        return _read_result(self.folder / RESULTS, digest.start, digest.size, digest.sha256)

    @cached_property
    def inputs(self) -> Inputs | None:
        """The inputs of the run; None if its folder has none."""
        try:
            return read_inputs(self.folder)
        except ConfigError:
            return None

    @cached_property
    def strategy_line(self) -> StrategyLine | None:
        """The complete strategy with prompts and calibration, as the folder has it."""
        return self.inputs.strategy if self.inputs else None

    @cached_property
    def strategy_in_full(self) -> Strategy | None:
        """The strategy with its settings and prompts; None if the run does not have them in this version's format."""
        try:
            return self.strategy_line.strategy() if self.strategy_line else None
        except ConfigError:
            return None

    @cached_property
    def notes(self) -> RunNotes:
        """What people wrote about the run."""
        return read_notes(self.folder)

    @cached_property
    def records(self) -> Records:
        """The metadata of the run's images, where its folder has some."""
        try:
            return read_records(self.folder)
        except ConfigError:
            return Records()

    @cached_property
    def collection(self) -> Collection | str:
        """The images, or a sentence that says why they are not available."""
        try:
            if self.images is not None:
                return open_collection([self.images])
            return reopen_collection(load_json((self.folder / COLLECTION).read_bytes()))
        except (OSError, ValueError, AttributeError):
            return "this run does not say where its images are; give their folder with --images"
        except FieldscopeError as error:
            reason = without_folders(str(error))
            return f"the images are not where the run says ({reason}); give their folder with --images"

    @cached_property
    def collection_key(self) -> str:
        """The key of its images' collection in addresses."""
        found = self.collection
        return "none" if isinstance(found, str) else fingerprint(found.locator())[:12]

    @property
    def pictures(self) -> str | None:
        """The key of its images; None if they are not available."""
        return None if isinstance(self.collection, str) else self.collection_key

    @property
    def no_pictures(self) -> str | None:
        """A sentence that says why the images are not available; None if they are."""
        return self.collection if isinstance(self.collection, str) else None

    @cached_property
    def hashes(self) -> Mapping[str, str]:
        """Image id -> hash of its pixels, for images that the model was asked about; unreadable lines are left out."""
        try:
            return readable_hashes((self.folder / IMAGES).read_bytes().splitlines())
        except OSError:
            return {}

    def calls(self, request_keys: Iterable[str | None]) -> dict[str, Call]:
        """The calls that the response cache has, by their keys."""
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
            pass  # the cache is damaged, or of another program; pages say which answers are missing
        return found


@dataclass(frozen=True)
class Call:
    """A call in the response cache: `LMMRequest` and `LMMResponse` as JSON, and their provenance."""

    request: Mapping[str, Any]
    response: Mapping[str, Any]
    provenance: Mapping[str, Any]


def open_run(key: str, name: str, folder: Path, images: Path | None, store: Path | None) -> Run:
    """Read a run's folder. Faults become the run's `problem`, never an error."""
    manifest, problem = _manifest(folder)
    metrics = _metrics(folder)
    judgments = _judgments(folder) if manifest else None
    found: Mapping[str, QueryDigest] = {}
    if manifest is not None:
        try:
            found = _as_measured(digests(folder, judgments, _reported(metrics), read_protocol(folder)), metrics)
        except OSError:
            problem = f"{name} has no results yet: no query is finished"
        else:
            if not found:
                problem = _nothing(folder, name)
    return Run(key, name, folder, problem, manifest, metrics, judgments, found, images, store)


def _reported(metrics: Mapping[str, Any] | None) -> Reported:
    return reported_as(str((metrics or {}).get("reported")))


def _as_measured(found: Mapping[str, QueryDigest], metrics: Mapping[str, Any] | None) -> Mapping[str, QueryDigest]:
    """The digests with the values in `metrics.json` where a ranking alone does not give them: INQUIRE's own scoring has
    ties, and a ranking has none."""
    if metrics is None or metrics.get("scoring") != "official":
        return found
    try:
        per_query = Metrics.model_validate(metrics).per_query
    except ValidationError:
        return found
    return {
        query_id: digest.model_copy(update={"scores": _measured(digest.scores, per_query.get(query_id, {}))})
        for query_id, digest in found.items()
    }


def _measured(own: Mapping[str, float], values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: score if (value := values.get(name)) is None else value for name, score in own.items()}


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
    """The judgments of the scores, or of the run's inputs before it is scored."""
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
            raise ConfigError("this query's result changed while the page was made; reload the page")
        return RerankResult.model_validate_json(line)
    except (OSError, ValidationError) as error:
        raise ConfigError(f"this query {NEWER}") from error
