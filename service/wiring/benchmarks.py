"""Benchmarks by name or path, each with the retriever that finds its candidates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import BenchmarkError, ConfigError
from fieldscope.core.registry import Registry
from fieldscope.core.validation import unknown_name
from fieldscope.service.wiring.settings import BUNDLED, Settings

if TYPE_CHECKING:
    from fieldscope.agent.resources import Retriever
    from fieldscope.eval.queries import Selection
    from fieldscope.eval.runs.replay import Recording
    from fieldscope.eval.types import Benchmark
    from fieldscope.retrieval.encoder import Encoder

NAMES = (
    "fieldnotes",
    "fieldnotes-rerank",
    "fieldnotes-composed",
    "fieldnotes-dialogue",
    "fieldnotes-universal",
    "fieldnotes-unmatched",
    "fieldnotes-wild",
    "fieldnotes-wild-fullrank",
)
"""FieldNotes and its tasks; all but `fieldnotes-rerank`, `fieldnotes-unmatched` and `fieldnotes-wild` are full
retrieval."""

HUB = "evendrow/INQUIRE-Rerank"
"""The data set on the Hugging Face hub that is fetched by its name."""

FULLRANK = "inquire-fullrank"
_OF_FILES = ("inquire-rerank", FULLRANK)
"""Benchmarks whose argument is a path. Their files may be in a folder of the same name."""


@dataclass(frozen=True)
class Workload:
    """A benchmark and, for full retrieval, what finds its candidates.

    `encoder` is the fingerprint of the first stage's CLIP where this process ran it; `own` says whether the pictures
    are FieldNotes' by construction. `found` are the ids of all images where candidates are searched for in a user's
    collection, and `has_images` whether its image files are there: embeddings alone serve strategies that do not look.
    `prior_encoder` is to score the given candidates in place of the scores that they came with. A `recording` answers
    instead of models.
    """

    benchmark: Benchmark
    retriever: Retriever | None = None
    encoder: str | None = None
    own: bool = False
    found: Sequence[str] = ()
    has_images: bool = True
    recording: Recording | None = None
    prior_encoder: Encoder | None = None


@dataclass(frozen=True)
class BenchmarkRequest:
    """What is asked of a registered benchmark.

    `argument` stands behind its name, such as a path. `split` is None for the benchmark's default, which is test.
    Without `search` nothing needs to find candidates: the queries and their candidates are only counted. `choices` are
    settings of the benchmark's protocol, by name.
    """

    argument: str
    split: str | None
    settings: Settings
    search: bool = True
    choices: Mapping[str, str] = field(default_factory=dict)


BENCHMARKS: Registry[Callable[[BenchmarkRequest], Benchmark | Workload]] = Registry(
    "benchmark", "fieldscope.benchmarks"
)
"""Each opens a benchmark, as a `Workload` where something finds its candidates. Raises `BenchmarkError`."""


def open_workload(
    name: str,
    split: str | None,
    settings: Settings,
    *,
    search: bool = True,
    choices: Mapping[str, str] | None = None,
) -> Workload:
    """A registered benchmark by `name` or `name:argument`, or one by its path: Parquet files in INQUIRE-Rerank's shape,
    or a folder of INQUIRE-Fullrank. `choices` are settings of its protocol.

    Raises `BenchmarkError` where there is no such benchmark or split, and `ConfigError` for embeddings and choices that
    the benchmark does not use.
    """
    from fieldscope.eval.benchmarks.inquire_rerank import FILE_PRIOR

    kind, argument = resolve_benchmark(name)
    if settings.embeddings is not None and kind != FULLRANK:
        raise ConfigError(f"--embeddings is for {FULLRANK}, and {name!r} is another benchmark; leave it out")
    if argument and kind in NAMES:
        raise BenchmarkError(f"benchmark {kind!r} comes with Fieldscope and has no folder; leave {argument!r} out")
    opened = BENCHMARKS.load(kind)(BenchmarkRequest(argument, split, settings, search, choices or {}))
    workload = opened if isinstance(opened, Workload) else Workload(opened)
    if unused := [choice for choice in choices or {} if choice not in workload.benchmark.protocol.choices]:
        raise ConfigError(f"--set {unused[0]} is no choice of {kind}; leave it out")
    if workload.encoder is not None and workload.benchmark.prior in ("", FILE_PRIOR):
        prior = settings.encoder or BUNDLED
        workload = replace(workload, benchmark=replace(workload.benchmark, prior=prior))
    return workload


def resolve_benchmark(name: str) -> tuple[str, str]:
    """The registered name of a benchmark and its argument, from `name`, `name:argument` or a path. Raises
    `BenchmarkError` where there is none."""
    kind, argument = BENCHMARKS.split(name)
    if (kind in ("", HUB) or (kind in _OF_FILES and not argument)) and Path(name).exists():
        from fieldscope.eval.benchmarks.inquire_fullrank import is_fullrank

        kind, argument = _OF_FILES[is_fullrank(Path(name))], name
    if kind in _OF_FILES and not argument:
        raise BenchmarkError(f"benchmark {kind!r} needs the path of its files; give {kind}:PATH")
    if not kind:
        raise BenchmarkError(
            f"{unknown_name('benchmark', name, BENCHMARKS.names())}; or give the path of Parquet files in "
            "INQUIRE-Rerank's shape, or of a folder of INQUIRE-Fullrank"
        )
    return kind, argument


def selected(workload: Workload, selection: Selection) -> Workload:
    """The workload with the chosen queries only. Raises `ConfigError` for lists that name no query."""
    benchmark = workload.benchmark
    return replace(workload, benchmark=replace(benchmark, queries=selection.of(benchmark.queries)))


def measured(workload: Workload, names: Sequence[str]) -> Workload:
    """The workload with these metrics beside its own. Raises `ConfigError` for a name that is no metric's."""
    from fieldscope.eval.measures.named import canonical
    from fieldscope.eval.reported import mean_name

    protocol = workload.benchmark.protocol
    metrics = tuple(dict.fromkeys((*protocol.metrics, *(mean_name(canonical(name)) for name in names))))
    own = protocol.model_copy(update={"metrics": metrics})
    return replace(workload, benchmark=replace(workload.benchmark, protocol=own))
