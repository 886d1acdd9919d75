"""Finished runs in metrics that were not computed when they ran: any kind, at any cut-off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fieldscope.eval.measures.named import canonical, is_metric
from fieldscope.eval.measures.scoring import score
from fieldscope.eval.reported import value_name
from fieldscope.eval.runs.inputs import make_benchmark, read_inputs
from fieldscope.eval.runs.read import read_results
from fieldscope.eval.runs.scored import ScoredRun
from fieldscope.retrieval.collection import FilesCollection


def with_metrics(run: ScoredRun, names: Sequence[str]) -> ScoredRun:
    """The run with the values of these metrics, under the names that they are asked for by; as it is where it has them
    all. A name that is no metric's is left to whoever reads the values.

    Raises `ConfigError` where the run does not say what it was made from.
    """
    known = set.intersection(*(set(values) for values in run.values.values())) if run.values else set()
    missing = {value_name(name): canonical(name) for name in names if value_name(name) not in known and is_metric(name)}
    if not missing:
        return run
    inputs = read_inputs(run.folder)
    benchmark = make_benchmark(inputs.benchmark, inputs.queries, FilesCollection({}))
    own = benchmark.protocol
    further = own.model_copy(update={"metrics": (*own.metrics, *missing.values())})
    results = {query: result for query, result in read_results(run.folder).items() if query in run.values}
    found = score(replace(benchmark, protocol=further), results).per_query()
    return replace(
        run, values={query: {**values, **_named(found[query], missing)} for query, values in run.values.items()}
    )


def _named(values: Mapping[str, float | None], names: Mapping[str, str]) -> dict[str, float]:
    """The values that are there, by the names that they are asked for by."""
    return {name: value for name, metric in names.items() if (value := values[metric]) is not None}
