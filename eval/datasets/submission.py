"""A run as the files that the test servers of CIRR and CIRCO take, checked against their rules before they are written.

CIRR (https://cirr.cecs.anu.edu.au) takes two files of at most 5 MB: the best 50 images of each query, and the best 3 of
its small gallery; the reference image is in neither. CIRCO (https://circo.micc.unifi.it) takes one: the best 50 images
of each query, as numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fieldscope.core.errors import ConfigError
from fieldscope.core.files import replace_file
from fieldscope.eval.datasets import circo, cirr
from fieldscope.eval.runs.inputs import Inputs, read_inputs
from fieldscope.eval.runs.read import is_run, read_results, read_subsets

QUERIES = {(cirr.NAME, "test1"): 4148, (circo.NAME, "test"): 800}
"""How many queries the server of a benchmark expects for its split."""

_LONGEST = 5_000_000  # bytes of one of CIRR's files
_RANKED, _IN_SUBSET = 50, 3

Orders = Mapping[str, Sequence[str]]
"""Query id -> image ids, best first."""


def write_submission(run: Path, out: Path) -> list[Path]:
    """Write the files for a run's server into the folder `out`, and return their paths.

    Raises `ConfigError` for a run of another benchmark or split, one that is not over all queries, a ranking that is
    too short, and whatever else the server would refuse; nothing is written then.
    """
    if not is_run(run):
        raise ConfigError(
            f"{run} is not a run's folder. Name one strategy's folder in the output of `fieldscope eval`."
        )
    inputs = read_inputs(run)
    results = read_results(run)
    orders = {query: [ranked.image_id for ranked in result.ranking] for query, result in results.items()}
    _require_server(inputs, run)
    _require_all(inputs, orders, run)
    if inputs.benchmark.name == cirr.NAME:
        contents = cirr_files(orders, read_subsets(run), references(inputs))
    else:
        contents = {"circo.json": circo_file(orders)}
    texts = {name: json.dumps(content) for name, content in contents.items()}
    if inputs.benchmark.name == cirr.NAME and (long := [n for n, text in texts.items() if len(text) > _LONGEST]):
        raise ConfigError(f"{long[0]} would have more than 5 MB, which the server refuses. Check the images' names.")
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        replace_file(out / name, text)
    return [out / name for name in texts]


def cirr_files(orders: Orders, subsets: Orders, references: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """CIRR's two files by name. Raises `ConfigError` for a ranking that is too short once its reference is left out."""
    ranked, small = {}, {}
    for query, order in orders.items():
        reference = references.get(query)
        ranked[query] = _best(query, [image for image in order if image != reference], _RANKED)
        own = [image for image in subsets.get(query, ()) if image != reference]
        if len(own) < _IN_SUBSET:
            raise ConfigError(
                f"query {query}: the order of only {len(own)} images of its small gallery is known, and the server "
                f"needs {_IN_SUBSET}. Rerun the `fieldscope eval` command that made the run, which asks no model again."
            )
        small[query] = _best(query, own, _IN_SUBSET)
    named = (("recall", ranked), ("recall_subset", small))
    return {f"cirr-{metric}.json": {"version": "rc2", "metric": metric, **of} for metric, of in named}


def circo_file(orders: Orders) -> dict[str, list[int]]:
    """CIRCO's file. Raises `ConfigError` for queries that are not numbered from 0 on, and images without a number."""
    if set(orders) != set(map(str, range(len(orders)))):
        raise ConfigError(
            f"CIRCO's queries are numbered from 0 to {len(orders) - 1}, and these are not. Fetch them again."
        )
    found = {}
    for query in sorted(orders, key=int):
        best = _best(query, orders[query], _RANKED)
        if strange := [image for image in best if not image.isascii() or not image.isdigit()]:
            raise ConfigError(f"query {query}: the image {strange[0]!r} has no number. Use CIRCO's own images.")
        found[query] = [int(image) for image in best]
    return found


def references(inputs: Inputs) -> dict[str, str]:
    """Query id -> its reference image."""
    queries = (line.query for line in inputs.queries if line.query is not None)
    return {query.id: query.reference_image for query in queries if query.reference_image is not None}


def _best(query: str, order: Sequence[str], many: int) -> list[str]:
    best = list(order[:many])
    if len(best) < many:
        raise ConfigError(
            f"query {query}: {len(best)} images are ranked, and the server needs {many}. Use a strategy whose "
            f"retrieve.top_k is at least {many}."
        )
    if len(set(best)) < many:
        raise ConfigError(f"query {query}: an image is ranked twice. Make the run again.")
    return best


def _require_server(inputs: Inputs, run: Path) -> None:
    benchmark = inputs.benchmark
    if (benchmark.name, benchmark.split) not in QUERIES:
        served = " and ".join(f"{name} ({split})" for name, split in QUERIES)
        raise ConfigError(
            f"{run} is a run of {benchmark.name} ({benchmark.split}), which no server scores; only {served} have one. "
            "Name a run of one of them."
        )


def _require_all(inputs: Inputs, orders: Orders, run: Path) -> None:
    benchmark, wanted = inputs.benchmark, {line.id for line in inputs.queries}
    expected = QUERIES[benchmark.name, benchmark.split]
    if missing := [line.id for line in inputs.queries if line.id not in orders]:
        raise ConfigError(
            f"{run} has {len(orders):,} of {len(wanted):,} queries; {missing[0]} is not among them, and the server "
            "needs all. Run it without --limit, --only and --without."
        )
    if len(wanted) != expected:
        raise ConfigError(
            f"{run} has {len(wanted):,} queries, and the server of {benchmark.name} wants {expected:,}. Use the whole "
            f"split {benchmark.split}."
        )
