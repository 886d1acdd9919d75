"""Finished runs, and what is known to be true of their images: FieldNotes' scene graph, else relevance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldscope.core.errors import BenchmarkError, ConfigError
from fieldscope.core.fingerprint import fingerprint
from fieldscope.service.wiring.calibrations import all_calibrations
from fieldscope.service.wiring.feedback import progress, warn

if TYPE_CHECKING:
    from fieldscope.agent.calibration import Calibration
    from fieldscope.agent.types import Predicate, RerankResult
    from fieldscope.eval.measures.agreement import Agreement, Sides
    from fieldscope.eval.measures.truth import AnswerKey
    from fieldscope.eval.runs.annotations import Annotation
    from fieldscope.eval.runs.read import FinishedRun
    from fieldscope.fieldnotes.queries import BenchmarkQuery, Split
    from fieldscope.fieldnotes.scene import Scene


_TASKS = {
    "fieldnotes": "",
    "fieldnotes-rerank": "",
    "fieldnotes-composed": "composed",
    "fieldnotes-dialogue": "dialogue",
}
"""FieldNotes' benchmarks, and the task under which each one's scenes are kept."""


@dataclass(frozen=True)
class SceneGraph:
    """What FieldNotes knows of its images: the answer to every question that its grammar can write."""

    scenes: Mapping[str, Scene]
    source: str = "scene graph"

    def holds(self, predicate: Predicate, image_id: str) -> bool | None:
        """Whether the image's scene is as the predicate says; None for other questions and other images."""
        from fieldscope.fieldnotes.truth import answer

        scene = self.scenes.get(image_id)
        said = None if scene is None else answer(predicate.question, scene)
        return None if said is None else said == (predicate.expected == "yes")


def open_runs(paths: Sequence[Path]) -> Iterator[FinishedRun]:
    """The runs in these folders, or in the output folders of `fieldscope eval`, one after the other, since they are
    large. Raises `ConfigError` for a folder without a finished run."""
    from fieldscope.eval.runs.read import names_of, read_finished, run_folders

    folders = run_folders(paths)
    with progress("reading runs") as report:
        for done, (folder, name) in enumerate(zip(folders, names_of(folders), strict=True)):
            report(done, len(folders))
            yield read_finished(folder, name)
        report(len(folders), len(folders))


def identity(run: FinishedRun) -> dict[str, Any]:
    """What a run is, for programs."""
    return {
        "run": run.name,
        "folder": str(run.folder),
        "benchmark": run.benchmark,
        "split": run.split,
        "strategy": run.strategy,
        "lmm": run.lmm,
        "queries": len(run.results),
    }


def answer_key(run: FinishedRun, annotations: Sequence[Annotation] = ()) -> AnswerKey:
    """What is true of a run's images: what people marked of its verdicts, the scene graph for FieldNotes, else the
    judgments alone."""
    from fieldscope.eval.measures.truth import AnswerKey
    from fieldscope.eval.runs.annotations import marked_truth

    scenes = _scenes(run)
    truth = SceneGraph(scenes) if scenes is not None else None
    return AnswerKey(run.judgments, truth, marked_truth(annotations))


def calibration_of(run: FinishedRun) -> Calibration | None:
    """What the run was calibrated with; None where it was not, and, with a warning, where that is not at hand."""
    if run.calibration is None:
        return None
    for found in all_calibrations():
        if fingerprint(found.model_dump(mode="json")) == run.calibration:
            return found
    warn(f"the calibration of {run.name} is not kept here, so its verdicts are shown before calibration only")
    return None


def agreement_of(paths: Sequence[Path]) -> tuple[list[str], list[Agreement]]:
    """The names of the runs, and how far every two of them agree.

    Raises `ConfigError` unless there are two or more with verdicts, of one benchmark and split, whose queries ask for
    the same.
    """
    from fieldscope.eval.measures.agreement import agreements, sides

    said: dict[str, Sides] = {}
    asked: dict[str, tuple[Any, ...]] = {}
    folder, task = None, None
    for run in open_runs(paths):
        folder, task = folder or run.folder, task or (run.benchmark, run.split)
        requests = {q: (r.query_text, r.reference_image, r.dialogue) for q, r in run.results.items()}
        shared = requests.keys() & asked.keys()
        alike = (run.benchmark, run.split) == task and all(requests[query] == asked[query] for query in shared)
        if not alike or (asked and not shared):
            raise ConfigError(
                f"{folder} and {run.folder} are runs over different queries; name runs of one benchmark and split"
            )
        asked |= requests
        if answered := sides(run.results):
            said[run.name] = answered
        else:
            warn(f"{run.name} has no verdict about any image; it is left out")
    if len(said) < 2:
        raise ConfigError("agreement is between runs; name two or more")
    return list(said), agreements(said)


def _scenes(run: FinishedRun) -> Mapping[str, Scene] | None:
    """The scenes of a run's images by id, where it is a run on FieldNotes: its name says so, and its queries and
    judgments are FieldNotes' own."""
    from fieldscope.fieldnotes.collection import read_split

    if run.benchmark not in _TASKS:
        return None
    try:
        data = read_split(run.split, _TASKS[run.benchmark])
    except BenchmarkError:
        data = None
    if data is None or not _same_task(run, data):
        warn(
            f"{run.name} is named {run.benchmark}, but its queries or judgments are not FieldNotes'; its truth is "
            "relevance"
        )
        return None
    return data.scenes


def _same_task(run: FinishedRun, data: Split) -> bool:
    by_id = {query.id: query for query in data.queries}
    by_text = {query.text: query for query in data.queries}  # in INQUIRE's shape queries are numbered anew

    def same(query_id: str, result: RerankResult) -> bool:
        query: BenchmarkQuery | None = by_id.get(query_id)
        if query is None or query.text != result.query_text:
            query = by_text.get(result.query_text)
        judged = run.judgments.get(query_id, {})
        return query is not None and all((j > 0) == (i in data.relevant[query.id]) for i, j in judged.items())

    return all(same(query_id, result) for query_id, result in run.results.items())
