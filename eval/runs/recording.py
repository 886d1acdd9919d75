"""Runs as a recording: every answer that they rest on, and whatever else replaying them needs, but no pixels.

A recording is a stream of lines. `recorded_lines` gathers it from the folders of finished runs and a response cache,
`write_recording` and `read_recording` keep it in one portable file, and `fieldscope.eval.runs.replay` answers from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fieldscope.agent.json_answer import unreadable_answer
from fieldscope.agent.lmm.cached import require_unaltered
from fieldscope.agent.roles import ROLES, ModelIdentity, Role, joined, model_text, read_identity
from fieldscope.agent.score_entries import stored_fault
from fieldscope.agent.types import (
    Asked,
    Call,
    Comparison,
    ImageScore,
    RankedCandidate,
    Reason,
    RerankResult,
    TraceEvent,
    Verdict,
)
from fieldscope.cache.archive import Archive, ArchiveHeader, write_archive
from fieldscope.cache.store import CacheStore, Entry
from fieldscope.core.errors import CacheError, ConfigError
from fieldscope.eval.runs.inputs import Inputs, QueryLine, StrategyLine, read_inputs
from fieldscope.eval.runs.read import read_hashes, read_manifest, read_results, run_folders
from fieldscope.eval.runs.recording_lines import (
    LINE,
    FailureLine,
    ImageLine,
    RecordedLine,
    RegionsLine,
    ResponseLine,
    RunLine,
    ScoresLine,
    SearchLine,
)


@dataclass(frozen=True)
class _Run:
    """One run's folder, read back."""

    folder: Path
    inputs: Inputs
    configuration: Mapping[str, Any]
    results: Mapping[str, RerankResult]
    hashes: Mapping[str, str]

    @cached_property
    def events(self) -> Mapping[str, Sequence[tuple[RerankResult, TraceEvent]]]:
        """The events of all its traces, each with the result that it belongs to, by their kind."""
        found: dict[str, list[tuple[RerankResult, TraceEvent]]] = {}
        for result in self.results.values():
            for event in result.trace:
                found.setdefault(event.kind, []).append((result, event))
        return found

    @property
    def models(self) -> dict[Role, str]:
        """The identity of the model that had each role."""
        return models_by_role(self.configuration, self.inputs.strategy)

    @property
    def weighs_captions(self) -> bool:
        """Whether its searches would read captions of the images, where there are any."""
        retrieve = self.inputs.strategy.definition.get("retrieve")
        return isinstance(retrieve, dict) and bool(retrieve.get("caption_weight"))


def recorded_lines(
    paths: Sequence[Path], store: CacheStore | None, known: Mapping[Path, Mapping[str, RerankResult]] | None = None
) -> Iterator[RecordedLine]:
    """Everything that replaying these runs needs; without a store all but the answers. Paths are folders of runs, or
    output folders of `fieldscope eval`; `known` are the results of those that were read before.

    A call that failed when a run was made, and was answered since, counts as answered. Raises `ConfigError` for runs of
    different benchmarks, models or encoders and for folders without finished queries, `CacheError` where a response is
    no longer in the store, or was altered there.
    """
    runs = [_read_run(folder, (known or {}).get(folder)) for folder in run_folders(paths)]
    _require_one_setting(runs)
    yield runs[0].inputs.benchmark
    yield from _queries(runs)
    for run in runs:
        flags = set.intersection(*(set(result.flags) for result in run.results.values()))
        yield RunLine(
            strategy=run.inputs.strategy,
            configuration=dict(run.configuration),
            finished=tuple(run.results),
            flags=tuple(sorted(flags)),
        )
    yield from _images(runs)
    yield from _searches(runs)
    yield from _scores(runs)
    yield from _regions(runs)
    if store is not None:
        yield from _calls(runs, store)


def models_by_role(configuration: Mapping[str, Any], strategy: StrategyLine) -> dict[Role, str]:
    """The identity of the model that had each role in a run; where one model is recorded, it had all that the strategy
    asks. Raises `ConfigError` for a strategy that can't be read."""
    model = read_identity(configuration.get("lmm"))
    if not isinstance(model, str):
        return {role: model[role] for role in ROLES if model and role in model}
    return dict.fromkeys(strategy.strategy().roles(), model)


def model_of(paths: Sequence[Path]) -> ModelIdentity | None:
    """The identity of the model that answered in these runs, or of that of each role; None where none was asked."""
    models: dict[Role, str] = {}
    for folder in run_folders(paths):
        models = models_by_role(read_manifest(folder).configuration, read_inputs(folder).strategy) | models
    return joined(models)


def write_recording(path: Path, paths: Sequence[Path], store: CacheStore) -> ArchiveHeader:
    """Write runs into one portable file, whole or not at all. Raises what `recorded_lines` raises."""
    lines = ((line.kind, line.model_dump_json(exclude_none=True)) for line in recorded_lines(paths, store))
    return write_archive(path, model_text(model_of(paths)), lines)


def read_recording(archive: Archive) -> Iterator[RecordedLine]:
    """The lines of a portable file, which is checked as a whole before and then line by line. Raises `CacheError`."""
    archive.check()
    for number, line in enumerate(archive.lines(), start=2):
        try:
            yield LINE.validate_json(line)
        except ValidationError as error:
            raise CacheError(f"{archive.path}, line {number}: not a line of a recording. Export it again.") from error


def read_entries(archive: Archive) -> Iterator[Entry]:
    """The calls of a portable file as entries of a response cache. Raises `CacheError`, for an entry that is not what
    it says it is, too: under another call's key it would answer a question that it was not the answer to."""
    for line in read_recording(archive):
        if isinstance(line, ResponseLine):
            entry = line.entry()
            if fault := stored_fault(entry):
                raise CacheError(
                    f"{archive.path}: response {entry.key[:12]} was altered ({fault}). Export the recording again."
                )
            yield entry


def _read_run(folder: Path, known: Mapping[str, RerankResult] | None) -> _Run:
    results = read_results(folder) if known is None else known
    if not results:
        raise ConfigError(f"{folder} has no finished query. Finish the run with the command that began it.")
    return _Run(folder, read_inputs(folder), read_manifest(folder).configuration, results, read_hashes(folder))


def _require_one_setting(runs: Sequence[_Run]) -> None:
    """A replay has one benchmark, one model and one first stage."""
    first = runs[0]
    scored = next((run for run in runs if run.configuration.get("scorer") is not None), None)
    captioned = next((run for run in runs if run.weighs_captions), None)
    asking: dict[Role, _Run] = {}
    for run in runs:
        for role in run.models:
            asking.setdefault(role, run)
    for run in runs:
        other = next((asking[role] for role, model in run.models.items() if asking[role].models[role] != model), None)
        for name, before, same in (
            ("benchmark", first, run.configuration.get("benchmark") == first.configuration.get("benchmark")),
            ("benchmark", first, run.inputs.benchmark == first.inputs.benchmark),
            ("encoder", first, run.configuration.get("encoder") == first.configuration.get("encoder")),
            (
                "scorer",
                scored or run,
                run.configuration.get("scorer") in (None, scored and scored.configuration["scorer"]),
            ),
            (
                "caption",
                captioned or run,
                not run.weighs_captions
                or run.configuration.get("captions") == (captioned or run).configuration.get("captions"),
            ),
            ("querie", first, _unscored(run) == _unscored(first)),
            ("model", other or first, other is None),
        ):
            if not same:
                raise ConfigError(
                    f"{before.folder} and {run.folder} were made with different {name}s. Export them separately."
                )


def _queries(runs: Sequence[_Run]) -> Iterator[QueryLine]:
    """The queries of the benchmark. An encoder has scored the candidates of those that a run has gone through."""
    scored = {
        line.id: line
        for run in runs
        for line in run.inputs.queries
        if line.priors is not None or line.background is not None
    }
    for line in runs[0].inputs.queries:
        yield scored.get(line.id, line)


def _unscored(run: _Run) -> list[QueryLine]:
    """A run's queries without an encoder's scores."""
    return [line.model_copy(update={"priors": None, "background": None}) for line in run.inputs.queries]


def _images(runs: Sequence[_Run]) -> Iterator[ImageLine]:
    hashes: dict[str, str] = {}
    errors: dict[str, str] = {}
    documents: dict[str, RankedCandidate] = {}
    for run in runs:
        for image_id, sha256 in run.hashes.items():
            if hashes.setdefault(image_id, sha256) != sha256:
                raise ConfigError(
                    f"image {image_id} is not the same in {run.folder} as in other runs. Export them separately."
                )
        for result in run.results.values():
            documents |= {ranked.image_id: ranked for ranked in result.ranking if ranked.modality != "image"}
            for image_id, question in _failed(result):
                pictured = image_id not in documents or documents[image_id].modality != "text"
                if image_id not in run.hashes and pictured:
                    errors.setdefault(image_id, question.error or "it could not be read")
    for image_id in sorted({*hashes, *errors, *documents}):
        document = documents.get(image_id)
        yield ImageLine(
            image_id=image_id,
            sha256=hashes.get(image_id),
            error=errors.get(image_id),
            modality=document.modality if document else "image",
            text=document.text if document else None,
        )


def _failed(result: RerankResult) -> Iterator[tuple[str, Asked]]:
    """Every image about which a question failed, with the question."""
    for question in (*result.verdicts, *result.reasons, *result.comparisons):
        if question.state != "unknown":
            continue
        if isinstance(question, Verdict):
            yield question.shown, question
        elif isinstance(question, Reason):
            yield question.image_id, question
        elif isinstance(question, Comparison):
            yield from ((image_id, question) for image_id in question.shown)
    if result.reference_image is not None:
        captions = (call for call in result.calls if call.stage == "caption" and call.state == "unknown")
        yield from ((result.reference_image, call) for call in captions)


def _searches(runs: Sequence[_Run]) -> Iterator[SearchLine]:
    seen: set[tuple[str, int]] = set()
    for run in runs:
        for _, event in run.events.get("retrieved", ()):
            if event.data.get("given") is not False:
                continue
            if "search" not in event.data:
                raise ConfigError(f"{run.folder} is of an earlier version that kept no candidates. Make the run again.")
            key, k = event.data["search"], event.data["k"]
            if (key, k) not in seen:
                seen.add((key, k))
                standings = event.data.get("standings", ())
                yield SearchLine(key=key, k=k, found=event.data["found"], standings=standings)


def _scores(runs: Sequence[_Run]) -> Iterator[ScoresLine]:
    """What the scoring model said, by what it was asked; where runs differ, a score before a failure."""
    said: dict[str, dict[str, ImageScore]] = {}
    for run in runs:
        for result, event in run.events.get("scored", ()):
            of_image = {(score.predicate, score.image_id): score for score in result.scores}
            own = said.setdefault(event.data["key"], {})
            for image_id, _ in event.data["scores"]:
                score = of_image[event.data.get("predicate"), image_id]
                if score.state != "not_asked" and (image_id not in own or own[image_id].value is None):
                    own[image_id] = score
    for key, scores in said.items():
        yield ScoresLine(key=key, scores=tuple(scores.values()))


def _regions(runs: Sequence[_Run]) -> Iterator[RegionsLine]:
    """What was proposed of images, by what was asked of the proposer."""
    proposed: dict[str, dict[str, dict[str, Any]]] = {}
    for run in runs:
        for _, event in run.events.get("inspected", ()):
            of_key = proposed.setdefault(event.data["proposals"], {"regions": {}, "named": {}})
            of_key["regions"].update(event.data["regions"])
            of_key["named"].update(event.data.get("named", {}))
    for key, of_key in proposed.items():
        yield RegionsLine(key=key, regions=of_key["regions"], named=of_key["named"])


def _calls(runs: Sequence[_Run], store: CacheStore) -> Iterator[ResponseLine | FailureLine]:
    """Each call once: its answer, or why there is none."""
    seen: set[str] = set()
    missing: list[str] = []
    for run in runs:
        for result in run.results.values():
            verified = (asked for verdict in result.verdicts for asked in verdict.draws or (verdict,))
            for score in result.scores:  # without an entry, too, its value is in the line of scores
                if score.request_key and score.request_key not in seen and (entry := store.get(score.request_key)):
                    seen.add(entry.key)
                    yield _response(entry)
            for question in (*result.calls, *verified, *result.comparisons, *result.reasons):
                key = question.request_key
                if key is None or key in seen:
                    continue
                seen.add(key)
                if (entry := store.get(key)) is not None:
                    require_unaltered(entry)
                    yield _response(entry)
                elif question.state == "unknown":
                    answer = unreadable_answer(question) if isinstance(question, Call) else None
                    yield FailureLine(
                        key=key,
                        error=question.error or "no reason given",
                        response=answer and answer.model_dump_json(exclude={"cached"}),
                    )
                else:
                    missing.append(f"{key[:12]} of query {result.query_id} in {run.folder}")
    if missing:
        raise CacheError(
            f"{len(missing):,} of {len(seen):,} responses are no longer in the response cache, the first is "
            f"{missing[0]}. "
            "Name the cache of these runs in FIELDSCOPE_CACHE, or make them again."
        )


def _response(entry: Entry) -> ResponseLine:
    return ResponseLine(key=entry.key, request=entry.request, response=entry.response, provenance=entry.provenance)
