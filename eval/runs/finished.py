"""Finished runs, read back from their folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar
from urllib.parse import unquote

from pydantic import BaseModel, Field, FiniteFloat, ValidationError, model_validator

from fieldscope.agent.types import RerankResult
from fieldscope.core.errors import ConfigError
from fieldscope.core.reading import file_bytes
from fieldscope.eval.dialogues import DIALOGUES, HITS
from fieldscope.eval.types import Qrels


@dataclass(frozen=True)
class FinishedRun:
    """A run read back. `name` tells it from those beside it. `lmm` is the identity of the model that was asked and
    `calibration` the fingerprint of what was fitted for it, None where there was none. `results` are those of the
    queries that were scored, `judgments` what they were scored against."""

    name: str
    folder: Path
    benchmark: str
    split: str
    strategy: str
    lmm: str | None
    calibration: str | None
    results: Mapping[str, RerankResult]
    judgments: Qrels


class _Named(BaseModel):
    name: str
    split: str = ""


class _Configuration(BaseModel):
    benchmark: _Named
    strategy: _Named
    lmm: str | None = None
    calibration: str | None = None


class _Manifest(BaseModel):
    """What is read of `manifest.json`."""

    configuration: _Configuration


class Metrics(BaseModel):
    """What is read of `metrics.json`."""

    per_query: dict[str, dict[str, FiniteFloat | None]]
    by_round: dict[str, dict[str, FiniteFloat | None]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _hits_of_dialogues(self) -> Self:
        """Leave out what earlier versions called `hits@k` of a dialogue: those of each round alone."""
        if any(DIALOGUES not in means for means in self.by_round.values()):
            for values in self.per_query.values():
                for name in HITS:
                    values.pop(name, None)
        return self


_M = TypeVar("_M", bound=Metrics)


def read_finished(folder: Path, name: str | None = None) -> FinishedRun:
    """A run's folder, under this name or the strategy's. Raises `ConfigError` where it holds no finished run."""
    path = folder / "manifest.json"
    try:
        configuration = _Manifest.model_validate_json(file_bytes(path)).configuration
    except (OSError, ValueError) as error:
        raise no_run(folder, path) from error
    scored = read_metrics(folder, Metrics).per_query
    judgments = read_judgments(folder)
    if not judgments.keys() <= scored.keys():
        raise no_run(folder, folder / "qrels.trec")
    results = read_results(folder)
    if not scored.keys() <= results.keys():
        raise no_run(folder, folder / "results.jsonl")
    return FinishedRun(
        name=name or configuration.strategy.name,
        folder=folder,
        benchmark=configuration.benchmark.name,
        split=configuration.benchmark.split,
        strategy=configuration.strategy.name,
        lmm=configuration.lmm,
        calibration=configuration.calibration,
        results={query: results[query] for query in scored},
        judgments={query: judgments.get(query, {}) for query in scored},
    )


def read_results(folder: Path) -> dict[str, RerankResult]:
    """Query id -> result, the last one where a query was asked again. Raises `ConfigError`."""
    path = folder / "results.jsonl"
    try:
        results = [RerankResult.model_validate_json(line) for line in file_bytes(path).splitlines()]
    except (OSError, ValidationError) as error:
        raise no_run(folder, path) from error
    return {result.query_id: result for result in results}


def read_judgments(folder: Path) -> dict[str, dict[str, int]]:
    """Query id -> image id -> judgment, of the queries that have any. Raises `ConfigError`."""
    path = folder / "qrels.trec"
    found: dict[str, dict[str, int]] = {}
    try:
        for line in file_bytes(path).decode().splitlines():
            query, _, image, judgment = line.split()
            found.setdefault(unquote(query), {})[unquote(image)] = int(judgment)
    except (OSError, ValueError) as error:
        raise no_run(folder, path) from error
    return found


def read_metrics(folder: Path, kind: type[_M]) -> _M:
    """What a run was scored, with what else `kind` reads of it. Raises `ConfigError`."""
    path = folder / "metrics.json"
    try:
        return kind.model_validate_json(file_bytes(path))
    except (OSError, ValidationError) as error:
        raise no_run(folder, path) from error


def read_metric(folder: Path, metric: str) -> dict[str, float]:
    """Query id -> value of a metric such as `AP@50`, without the queries that have nothing to find.

    Raises `ConfigError` where the folder holds no finished run, or a run without that metric.
    """
    per_query = read_metrics(folder, Metrics).per_query
    known = sorted({name for values in per_query.values() for name in values} - {"positives"})
    if metric not in known:
        raise ConfigError(f"{folder} has no metric {metric!r}; it has {', '.join(known)}")
    found = {query: value for query, values in per_query.items() if (value := values.get(metric)) is not None}
    if not found:
        raise ConfigError(f"{folder}: no query could be scored, so there is nothing to compare")
    return found


def no_run(folder: Path, path: Path) -> ConfigError:
    """What to raise where `path`, a file of a run's folder, can't be read."""
    reason = f"{path.name} is missing or damaged"
    return ConfigError(f"{folder} holds no finished run ({reason}); finish it with the command that began it")
