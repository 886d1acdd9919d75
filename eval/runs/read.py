"""The one reader of a run folder: its manifest, results, judgments, metrics and image hashes.

`fieldscope.eval.runs.runfolder` writes the folder and describes its files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote
from uuid import uuid4

from pydantic import BaseModel, Field, FiniteFloat, TypeAdapter, ValidationError, model_validator

from fieldscope.agent.roles import ModelIdentity
from fieldscope.agent.types import RerankResult
from fieldscope.core.errors import ConfigError
from fieldscope.core.reading import file_bytes, load_json
from fieldscope.eval.dialogues import DIALOGUES, HITS
from fieldscope.eval.reported import GENERAL
from fieldscope.eval.runs.inputs import NAME as INPUTS
from fieldscope.eval.types import Qrels

MANIFEST = "manifest.json"
RESULTS = "results.jsonl"
IMAGES = "images.jsonl"
COLLECTION = "collection.json"
QRELS = "qrels.trec"
METRICS = "metrics.json"
SUBSETS = "subsets.json"
"""Query id -> the images of its small gallery in their order, of benchmarks that have such galleries."""

FILES = (MANIFEST, RESULTS, METRICS, QRELS, INPUTS, COLLECTION, IMAGES)
"""The files of a run folder that readers open."""

FORMAT = 1


class Named(BaseModel):
    """A benchmark or a strategy as a manifest names it. `choices` are the settings of a benchmark's protocol. A
    strategy's `prompts` are names with fingerprints, worded by
    the `prompt_set`, which is None in runs from before there were sets."""

    name: str
    split: str = ""
    fingerprint: str = ""
    prompts: dict[str, str] = Field(default_factory=dict)
    prompt_set: str | None = None
    choices: dict[str, str] = Field(default_factory=dict)


class RunSetup(BaseModel):
    """What readers use of a manifest's configuration. `lmm` is the identity of the model that was asked, or of that of
    each role, `encoder` and `calibration` are fingerprints; None where there was none. `prior` says whose the
    first-stage scores are."""

    benchmark: Named
    strategy: Named
    lmm: str | dict[str, str] | None = None
    scorer: str | None = None
    encoder: str | None = None
    prior: str | None = None
    calibration: str | None = None
    seed: int | None = None
    budget: dict[str, Any] = Field(default_factory=dict)


class Manifest(BaseModel):
    """`manifest.json`. `configuration` is everything that decides the results, as it was written; `run` identifies the
    run wherever its folder is moved."""

    format: int = FORMAT
    run: str = Field(default_factory=lambda: uuid4().hex)
    began: str
    scored_on_test: int = 0
    configuration: dict[str, Any]
    environments: tuple[dict[str, Any], ...] = ()

    @property
    def setup(self) -> RunSetup:
        """The configuration as readers use it. Raises `ValidationError` where it is not a run's."""
        return RunSetup.model_validate(self.configuration)


class HashedImage(BaseModel):
    """A line of `images.jsonl`: an image that the model was asked about, and the hash of its pixels."""

    image_id: str
    sha256: str


class Metrics(BaseModel):
    """What is read of `metrics.json`. `groups` are the kinds of groups with each query's own one, `reported` names the
    metrics in which the benchmark's results are reported (`fieldscope.eval.reported`). `scoring` is `official` where
    equal numbers count as ties, as in INQUIRE's scripts, and `file_order` has AP@50 in the order of the scores that
    came with the candidates (`fieldscope.eval.measures.file_order`)."""

    benchmark: str = ""
    split: str = ""
    strategy: str = ""
    cost: dict[str, FiniteFloat] = Field(default_factory=dict)
    by_role: dict[str, dict[str, FiniteFloat]] = Field(default_factory=dict)
    asked: int = 0
    unknown: int = 0
    ended: dict[str, int] = Field(default_factory=dict)
    groups: dict[str, dict[str, str]] = Field(default_factory=dict)
    reported: str = GENERAL.name
    scoring: str = "fieldscope"
    file_order: dict[str, FiniteFloat] = Field(default_factory=dict)
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


@dataclass(frozen=True)
class FinishedRun:
    """A run read back. `name` distinguishes it from those beside it. `results` are those of the scored queries,
    `judgments` what they were scored against."""

    name: str
    folder: Path
    manifest: Manifest
    setup: RunSetup
    metrics: Metrics
    results: Mapping[str, RerankResult]
    judgments: Qrels

    @property
    def benchmark(self) -> str:
        return self.setup.benchmark.name

    @property
    def split(self) -> str:
        return self.setup.benchmark.split

    @property
    def strategy(self) -> str:
        return self.setup.strategy.name

    @property
    def lmm(self) -> ModelIdentity | None:
        """The identity of the model that was asked, or of that of each role."""
        return self.setup.lmm

    @property
    def calibration(self) -> str | None:
        """The fingerprint of the calibration that the run used."""
        return self.setup.calibration


class OtherVersionError(ConfigError):
    """A run folder in a format that this version does not know."""


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's."""
    return (folder / MANIFEST).is_file()


def runs_in(path: Path) -> list[Path]:
    """A run's folder itself, or the runs directly below it, in the order of their names."""
    return [path] if is_run(path) else sorted(manifest.parent for manifest in path.glob(f"*/{MANIFEST}"))


def run_folders(paths: Sequence[Path]) -> list[Path]:
    """The folders of single runs, each once: those given, and those below a given output folder of `fieldscope eval`.

    Raises `ConfigError` for a folder that is neither.
    """
    folders: dict[Path, Path] = {}
    for path in paths:
        runs = runs_in(path)
        if not runs:
            raise ConfigError(
                f"{path} holds no run. Name the folder that `fieldscope eval` wrote, or a strategy's folder in it."
            )
        for folder in runs:
            folders.setdefault(folder.resolve(), folder)
    return list(folders.values())


def names_of(folders: Sequence[Path]) -> list[str]:
    """A short name for each folder: its last part, and as many of those before it as distinguish it from the others."""
    parts = [folder.resolve().parts for folder in folders]
    names = []
    for own in parts:
        others = [other for other in parts if other != own]
        length = next(n for n in range(1, len(own) + 1) if all(other[-n:] != own[-n:] for other in others))
        names.append("/".join(own[-length:]))
    return names


def read_manifest(folder: Path) -> Manifest:
    """Raises `OtherVersionError` for another format, `ConfigError` where the file is missing or damaged."""
    with _reading(folder, MANIFEST) as content:
        fields = load_json(content)
        if isinstance(fields, dict) and fields.get("format", FORMAT) != FORMAT:
            raise OtherVersionError(
                f"{folder} was written by another version of Fieldscope. Open it with that version."
            )
        manifest = Manifest.model_validate(fields)
        RunSetup.model_validate(manifest.configuration)
    return manifest


def read_finished(folder: Path, name: str | None = None) -> FinishedRun:
    """A run folder, under this name or the strategy's. Raises `ConfigError` where it holds no finished run."""
    manifest = read_manifest(folder)
    metrics = read_metrics(folder)
    scored = metrics.per_query
    judgments = read_judgments(folder)
    if not judgments.keys() <= scored.keys():
        raise no_run(folder, folder / QRELS)
    results = read_results(folder)
    if not scored.keys() <= results.keys():
        raise no_run(folder, folder / RESULTS)
    return FinishedRun(
        name=name or manifest.setup.strategy.name,
        folder=folder,
        manifest=manifest,
        setup=manifest.setup,
        metrics=metrics,
        results={query: results[query] for query in scored},
        judgments={query: judgments.get(query, {}) for query in scored},
    )


def read_results(folder: Path) -> dict[str, RerankResult]:
    """Query id -> result, the last one where a query was asked again. Raises `ConfigError`."""
    with _reading(folder, RESULTS) as content:
        results = [RerankResult.model_validate_json(line) for line in content.splitlines()]
    return {result.query_id: result for result in results}


def read_hashes(folder: Path) -> dict[str, str]:
    """Image id -> pixel hash, of the images that the model was asked about. Raises `ConfigError`."""
    with _reading(folder, IMAGES) as content:
        images = [HashedImage.model_validate_json(line) for line in content.splitlines()]
    return {image.image_id: image.sha256 for image in images}


def readable_hashes(lines: Iterable[bytes]) -> dict[str, str]:
    """As `read_hashes`, without the lines that are damaged."""
    hashes = {}
    for line in lines:
        with suppress(ValidationError):
            image = HashedImage.model_validate_json(line)
            hashes[image.image_id] = image.sha256
    return hashes


def read_judgments(folder: Path) -> dict[str, dict[str, int]]:
    """Query id -> image id -> judgment, of the queries that have any. Raises `ConfigError`."""
    qrels: dict[str, dict[str, int]] = {}
    with _reading(folder, QRELS) as content:
        for line in content.decode().splitlines():
            query, _, image, judgment = line.split()
            qrels.setdefault(unquote(query), {})[unquote(image)] = int(judgment)
    return qrels


def read_metrics(folder: Path) -> Metrics:
    """How a run was scored. Raises `ConfigError`."""
    with _reading(folder, METRICS) as content:
        return Metrics.model_validate_json(content)


def read_subsets(folder: Path) -> dict[str, list[str]]:
    """Query id -> its small gallery in the order of the ranking. Raises `ConfigError`."""
    with _reading(folder, SUBSETS) as content:
        return TypeAdapter(dict[str, list[str]]).validate_json(content)


def read_metric(folder: Path, metric: str) -> dict[str, float]:
    """Query id -> value of a metric such as `AP@50`, without the queries that have nothing to find.

    Raises `ConfigError` where the folder holds no finished run, or a run without that metric.
    """
    per_query = read_metrics(folder).per_query
    known = sorted({name for values in per_query.values() for name in values} - {"positives"})
    if metric not in known:
        raise ConfigError(f"{folder} has no metric {metric!r}. Use one of {', '.join(known)}.")
    scores = {query: value for query, values in per_query.items() if (value := values.get(metric)) is not None}
    if not scores:
        raise ConfigError(
            f"{folder}: no query has anything to find, so there is nothing to compare. Use a split with judgments."
        )
    return scores


@contextmanager
def _reading(folder: Path, name: str) -> Iterator[bytes]:
    """The content of a file of a run folder. Raises `ConfigError` where the file or its content can't be read."""
    try:
        yield file_bytes(folder / name)
    except (OSError, ValueError) as error:
        raise no_run(folder, folder / name) from error


def no_run(folder: Path, path: Path) -> ConfigError:
    """What to raise where `path`, a file of a run folder, can't be read."""
    return ConfigError(
        f"{folder} holds no finished run ({path.name} is missing or damaged). Finish it with the command that began it."
    )
