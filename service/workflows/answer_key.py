"""What is known to be true of a run's images: FieldNotes' scene graph, else relevance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fieldscope.core.errors import BenchmarkError
from fieldscope.service.wiring.feedback import warn

if TYPE_CHECKING:
    from fieldscope.agent.types import Predicate, RerankResult
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
    "fieldnotes-unmatched": "unmatched",
    "fieldnotes-wild": "wild",
    "fieldnotes-wild-fullrank": "wild",
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
        true = None if scene is None else answer(predicate.question, scene)
        return None if true is None else true == (predicate.expected == "yes")


def answer_key(run: FinishedRun, annotations: Sequence[Annotation] = ()) -> AnswerKey:
    """What is true of a run's images: people's marks on its verdicts, the scene graph for FieldNotes, else the
    judgments."""
    from fieldscope.eval.measures.truth import AnswerKey
    from fieldscope.eval.runs.annotations import marked_truth

    scenes = _scenes(run)
    truth = SceneGraph(scenes) if scenes is not None else None
    return AnswerKey(run.judgments, truth, marked_truth(annotations))


def scenes_of(benchmark: str, split: str) -> Mapping[str, Scene] | None:
    """The scenes of a FieldNotes benchmark's images by id; None for another benchmark."""
    from fieldscope.fieldnotes.collection import read_split

    return read_split(split, _TASKS[benchmark]).scenes if benchmark in _TASKS else None


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
            f"{run.name} is named {run.benchmark}, but its queries or judgments are not FieldNotes'. Its verdicts are "
            "checked against relevance."
        )
        return None
    return data.scenes


def _same_task(run: FinishedRun, data: Split) -> bool:
    by_id = {query.id: query for query in data.queries}
    by_text = {query.text: query for query in data.queries}  # in INQUIRE's format queries have other ids

    def same(query_id: str, result: RerankResult) -> bool:
        query: BenchmarkQuery | None = by_id.get(query_id)
        if query is None or query.text != result.query_text:
            query = by_text.get(result.query_text)
        judgments = run.judgments.get(query_id, {})
        return query is not None and all((j > 0) == (i in data.relevant[query.id]) for i, j in judgments.items())

    return all(same(query_id, result) for query_id, result in run.results.items())
