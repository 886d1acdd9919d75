"""One run on disk. It survives `kill -9` at any point, and never mixes two configurations.

- `manifest.json`: what was run, by fingerprints, and with which versions; the run's own id, and how often its strategy
  was scored on this benchmark's test split.
- `inputs.jsonl`: the things themselves: strategy, calibration, queries, candidates, judgments (see `inputs.py`).
- `results.jsonl`: one `RerankResult` a line, written query by query; the last line of a query counts.
- `collection.json`: where the images are, for the viewer; of a long list of files those that the run shows.
- `images.jsonl`: id and pixel hash of every image that the model was asked about, so that replay needs no pixels.
- `run.trec`, `qrels.trec`, `metrics.json`: written when all queries are finished.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from fieldscope.agent.calibration import Calibration
from fieldscope.agent.roles import Role, model_text, models_may_be, read_identity
from fieldscope.agent.strategies.strategy import Strategy
from fieldscope.agent.types import RerankResult
from fieldscope.core.errors import ConfigError
from fieldscope.core.files import replace_file
from fieldscope.core.fingerprint import canonical_json, fingerprint
from fieldscope.eval.runs.inputs import NAME as INPUTS
from fieldscope.eval.runs.inputs import BenchmarkLine, strategy_line
from fieldscope.eval.runs.jsonlines import JsonLines
from fieldscope.eval.runs.read import (
    COLLECTION,
    IMAGES,
    MANIFEST,
    RESULTS,
    HashedImage,
    Manifest,
    is_run,
    read_manifest,
    readable_hashes,
)

_LIBRARIES = (
    "fieldscope", "torch", "transformers", "open_clip_torch", "langgraph", "openai", "faiss-cpu", "numpy", "pillow",
    "pyarrow", "pydantic",
)  # fmt: skip

SERVED = "served"
"""The name of the benchmark that results of served calls are a run of."""


class Fingerprinted(Protocol):
    """What a manifest records of a prompt."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...


class FingerprintedStrategy(Fingerprinted, Protocol):
    """What a manifest records of a strategy."""

    @property
    def prompts(self) -> Sequence[Fingerprinted]: ...

    @property
    def prompt_set(self) -> str | None: ...

    @property
    def roles_by_call(self) -> Mapping[str, Role]: ...


class RunFolder:
    """Opens or creates a run's folder and takes up what is finished in it.

    `configuration` (JSON-able) is everything that decides the results. Raises `ConfigError`, with nothing overwritten,
    where the folder holds a run of another configuration, of another version, or something else.
    """

    def __init__(self, path: Path, configuration: Mapping[str, Any]) -> None:
        self.path = path
        self.results: dict[str, RerankResult] = {}
        self._hashes: dict[str, str] = {}
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"can't make the folder {path}: {error.strerror}. Choose another one.") from error
        self._results = JsonLines(path / RESULTS)
        try:
            self._images = JsonLines(path / IMAGES)
            self._manifest = self._with_versions(self._accepted_manifest(configuration))
            self._write_manifest()
            self._recover()
        except BaseException:
            self.close()
            raise

    @property
    def run_id(self) -> str:
        """What tells this run from every other, wherever its folder is moved and however often it is taken up."""
        return self._manifest.run

    @property
    def encoder(self) -> str | None:
        """The fingerprint of the first stage's encoder; None where the benchmark gave the priors."""
        encoder = self._manifest.configuration.get("encoder")
        return None if encoder is None else str(encoder)

    def note_scored(self, times: int) -> None:
        """Put on record how often the strategy was scored on test."""
        self._manifest = self._manifest.model_copy(update={"scored_on_test": times})
        self._write_manifest()

    def commit(self, result: RerankResult, hashes: Mapping[str, str], durable: bool = True) -> None:
        """Put a finished query on the disk, with the pixel hashes of the images that the model was asked about; one
        that costs nothing to make again need not be `durable` (`JsonLines.append`).

        Raises `ConfigError` where an image is not the one that the run began with.
        """
        for image_id, sha256 in hashes.items():
            if self._hashes.get(image_id, sha256) != sha256:
                raise ConfigError(
                    f"image {image_id} changed since the run in {self.path} began. Choose another folder."
                )
        fresh = {image_id: sha256 for image_id, sha256 in hashes.items() if image_id not in self._hashes}
        # Images first: a query that counts as finished has its hashes on the disk.
        images = (HashedImage(image_id=i, sha256=sha).model_dump_json() for i, sha in fresh.items())
        self._images.append(images, durable)
        self._results.append([result.model_dump_json()], durable)
        self._hashes |= fresh
        self.results[result.query_id] = result

    def write(self, name: str, lines: Iterable[str]) -> None:
        """Write a whole file, or leave the old one as it was."""
        _replace(self.path / name, "".join(lines))

    def keep(self, name: str, lines: Iterable[str]) -> None:
        """Write a whole file unless it is there."""
        if not (self.path / name).exists():
            self.write(name, lines)

    def close(self) -> None:
        """Let other processes use the folder."""
        self._results.close()
        if hasattr(self, "_images"):
            self._images.close()

    def _accepted_manifest(self, configuration: Mapping[str, Any]) -> Manifest:
        """The manifest to go on with, which is the folder's own where it has one."""
        wanted = json.loads(canonical_json(configuration))
        path = self.path / MANIFEST
        if not path.exists():
            self._require_empty()
            return Manifest(began=_now(), configuration=wanted)
        try:
            manifest = read_manifest(self.path)
        except ConfigError as error:
            raise ConfigError(
                f"{path} is damaged or of another version of Fieldscope. Choose another folder."
            ) from error
        own = manifest.configuration
        if own.get("lmm") != wanted.get("lmm") and models_may_be(own.get("lmm"), wanted.get("lmm")):
            # It began before servers were asked to identify their model. From now on it is of this model only.
            own = {**own, "lmm": wanted["lmm"]}
        if own.get("strategy") == _without_set(wanted.get("strategy")):
            # It began before prompts lay in sets. The fingerprints say that the wordings are the same.
            own = {**own, "strategy": wanted["strategy"]}
        if "prior" in wanted:
            # It is what people call the first stage; the encoder's fingerprint decides whether it is the same.
            own = {**own, "prior": wanted["prior"]}
        if different := sorted(key for key in own.keys() | wanted.keys() if own.get(key) != wanted.get(key)):
            models = f": it asked {_lmm_text(own)}, this is {_lmm_text(wanted)}" if "lmm" in different else ""
            raise ConfigError(
                f"{self.path} holds a run of another configuration (other {', '.join(different)}){models}. "
                "Choose another folder, or remove that one."
            )
        return manifest.model_copy(update={"configuration": own})

    def _with_versions(self, manifest: Manifest) -> Manifest:
        """The manifest with this process' versions on record."""
        here = {"python": platform.python_version(), "platform": platform.platform(), "libraries": _versions()}
        if here in manifest.environments:
            return manifest
        return manifest.model_copy(update={"environments": (*manifest.environments, here)})

    def _write_manifest(self) -> None:
        """Write the manifest, where the disk does not say the same already."""
        path = self.path / MANIFEST
        text = f"{self._manifest.model_dump_json(indent=2)}\n"
        if not path.exists() or path.read_bytes() != text.encode():
            self.write(path.name, [text])

    def _require_empty(self) -> None:
        """A killed start leaves only empty files and half of a manifest; any other file is not ours."""
        foreign = [p.name for p in self.path.iterdir() if not (p.name.startswith(".manifest") or p.stat().st_size == 0)]
        if foreign:
            raise ConfigError(f"{self.path} holds {foreign[0]} but no {MANIFEST}. Choose another folder.")

    def _recover(self) -> None:
        # A damaged line is left out: its query is not finished, and is asked again.
        for line in self._results.recover():
            with suppress(ValidationError):
                result = RerankResult.model_validate_json(line)
                self.results[result.query_id] = result
        self._hashes |= readable_hashes(self._images.recover())


def _lmm_text(configuration: Mapping[str, Any]) -> str | None:
    return model_text(read_identity(configuration.get("lmm")))


def _without_set(strategy: Any) -> Any:
    """A strategy in a manifest's configuration as earlier versions wrote it."""
    return {key: value for key, value in (strategy or {}).items() if key != "prompt_set"}


def strategy_entry(strategy: FingerprintedStrategy) -> dict[str, Any]:
    """A strategy in the configuration of a manifest."""
    return {
        "name": strategy.name,
        "fingerprint": strategy.fingerprint,
        "prompts": {prompt.name: prompt.fingerprint for prompt in strategy.prompts},
        **({"prompt_set": strategy.prompt_set} if strategy.prompt_set else {}),
    }


def describe_served_run(
    folder: Path,
    strategy: Strategy,
    calibration: Calibration | None,
    provenance: Mapping[str, Any],
    locator: Mapping[str, Any] | None,
    benchmark: BenchmarkLine | None = None,
) -> None:
    """Describe a folder of served results, unless it is described: the strategy, what it ran with, and where the images
    are (`Collection.locator`).

    `provenance` has the model (`lmm`) and the first stage (`encoder`). Without a `benchmark` no two such folders are
    runs of one task, so each is a benchmark of its own, and its split is the folder above. Raises `ConfigError` where
    the disk refuses.
    """
    if is_run(folder):
        return
    manifest = Manifest(began=_now(), configuration={})
    benchmark = benchmark or BenchmarkLine(name=SERVED, split=folder.parent.name, rerank=True, fingerprint=manifest.run)
    configuration = {
        **provenance,
        **({"calibration": fingerprint(calibration.model_dump(mode="json"))} if calibration else {}),
        "benchmark": {"name": benchmark.name, "split": benchmark.split, "fingerprint": benchmark.fingerprint},
        "strategy": strategy_entry(strategy),
    }
    lines = [strategy_line(strategy, calibration), benchmark]
    _replace(folder / INPUTS, "".join(f"{line.model_dump_json(exclude_none=True)}\n" for line in lines))
    if locator is not None:
        _replace(folder / COLLECTION, json.dumps(locator))
    # The manifest last: with it the folder counts as a run.
    described = manifest.model_copy(update={"configuration": configuration})
    _replace(folder / MANIFEST, described.model_dump_json(indent=2))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def _versions() -> Mapping[str, str]:
    installed = {}
    for name in _LIBRARIES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def _replace(path: Path, text: str) -> None:
    try:
        replace_file(path, text, durable=True)
    except OSError as error:
        raise ConfigError(
            f"can't write {path}: {error.strerror}; free some disk space, then rerun this command."
        ) from error
