"""Finished runs, read back from their folders."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from agent.types import RerankResult
from core.errors import ConfigError


def read_results(folder: Path) -> dict[str, RerankResult]:
    """Query id -> result, the last one where a query was asked again. Raises `ConfigError`."""
    path = folder / "results.jsonl"
    try:
        results = [RerankResult.model_validate_json(line) for line in path.read_bytes().splitlines()]
    except (OSError, ValidationError) as error:
        raise _no_run(folder, path) from error
    return {result.query_id: result for result in results}


def read_metric(folder: Path, metric: str) -> dict[str, float]:
    """Query id -> value of a metric such as `AP@50`, without the queries that have nothing to find.

    Raises `ConfigError` where the folder holds no finished run, or a run without that metric.
    """
    path = folder / "metrics.json"
    try:
        per_query = json.loads(path.read_bytes())["per_query"]
        known = sorted({name for values in per_query.values() for name in values} - {"positives"})
        if metric not in known:
            raise ConfigError(f"{folder} has no metric {metric!r}; it has {', '.join(known)}")
        found = {query: values[metric] for query, values in per_query.items() if values[metric] is not None}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _no_run(folder, path) from error
    if not found:
        raise ConfigError(f"{folder}: no query could be scored, so there is nothing to compare")
    return found


def _no_run(folder: Path, path: Path) -> ConfigError:
    reason = f"{path.name} is missing or damaged"
    return ConfigError(f"{folder} holds no finished run ({reason}); finish it with the command that began it")
