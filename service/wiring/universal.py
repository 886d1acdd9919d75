"""FieldNotes-Universal: documents of any kind under the eight types of M-BEIR's tasks, and the same in its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import BenchmarkError
from fieldscope.service.wiring.benchmarks import BenchmarkRequest, Workload
from fieldscope.service.wiring.datasets import searched
from fieldscope.service.wiring.fieldnotes import drawn_pictures

if TYPE_CHECKING:
    from fieldscope.eval.datasets.dataset import Dataset
    from fieldscope.eval.datasets.mbeir_writer import WrittenTask
    from fieldscope.fieldnotes.universal_records import UniversalSplit

NAME = "fieldnotes-universal"


def open_universal(request: BenchmarkRequest) -> Workload:
    """The benchmark "fieldnotes-universal"."""
    dataset = universal_dataset(request.split or "test", request.choices)
    return replace(searched(dataset, request.settings, search=request.search), own=True)


def universal_dataset(split: str, given: Mapping[str, str]) -> Dataset:
    """A split of the set, its pictures rendered on first use. Raises `BenchmarkError` for an unknown split, and where
    tasks shall have pools of their own in one that has a single pool."""
    from fieldscope.core.documents import QUERY_PICTURE, normalised_text
    from fieldscope.core.types import Query
    from fieldscope.eval.benchmarks.splits import canonical
    from fieldscope.eval.datasets.choices import chosen
    from fieldscope.eval.datasets.dataset import Dataset
    from fieldscope.eval.datasets.mbeir import CHOICES, NO_INSTRUCTION, UNION, universal_protocol
    from fieldscope.eval.datasets.mbeir_tasks import TASKS
    from fieldscope.eval.reported import MBEIR
    from fieldscope.eval.types import Benchmark, QueryMeta
    from fieldscope.fieldnotes.universal import load_universal
    from fieldscope.fieldnotes.universal_tasks import TASKS as OWN
    from fieldscope.retrieval.collection import FilesCollection
    from fieldscope.retrieval.document_lines import Document
    from fieldscope.retrieval.documents import DocumentsCollection
    from fieldscope.retrieval.index import DEFAULT_INDEX, MAPPED_INDEX
    from fieldscope.retrieval.union import UnionCollection

    known = {**CHOICES, "task": (CHOICES["task"][0], *(task.name for task in OWN))}
    choices = chosen(NAME, given, known)
    data, number = load_universal(canonical(split)), choices["instruction"]
    wanted = [task for task in OWN if choices["task"] in (known["task"][0], task.name)]
    if choices["pool"] != UNION and any(task.name not in data.pools for task in wanted):
        raise BenchmarkError(
            f"the split {split!r} of {NAME} is for training, and its tasks share one pool; add `--set pool={UNION}`, "
            "or evaluate the split validation or test"
        )
    files = _files(canonical(split), data)
    queries = [query for query in data.queries if query.task in wanted]
    pooled = data.documents if choices["pool"] == UNION else {d for task in wanted for d in data.pools[task.name]}
    folder = next(iter(files.values())).parent
    documents = DocumentsCollection(
        {
            did: Document(
                id=did, text=each.text or None, image=files[each.picture.key()].name if each.picture else None
            )
            for did, each in data.documents.items()
            if did in pooled
        },
        folder,
        normalised=True,
    )
    shown = {query.id: files[query.picture.key()] for query in queries if query.picture is not None}
    task_of = {query.id: TASKS[query.task.name] for query in queries}
    images = UnionCollection({"": documents, QUERY_PICTURE: FilesCollection({p.name: p for p in shown.values()})})
    benchmark = Benchmark(
        name=NAME,
        split=canonical(split),
        queries=tuple(
            Query(
                id=query.id,
                text=normalised_text(query.text),
                reference_image=f"{QUERY_PICTURE}{shown[query.id].name}" if query.id in shown else None,
                instruction=None if number == NO_INSTRUCTION else query.task.instructions[int(number) - 1],
                wanted=query.task.candidate,
            )
            for query in queries
        ),
        qrels={query.id: dict.fromkeys(sorted(query.relevant), 1) for query in queries},
        images=images,
        meta={qid: QueryMeta(conditions={"type": task.type_name}) for qid, task in task_of.items()},
        reported=MBEIR,
        protocol=universal_protocol(task_of, choices),
    )
    if choices["pool"] == UNION:
        galleries, gallery_of, kind = {UNION: tuple(documents.ids())}, dict.fromkeys(task_of, UNION), MAPPED_INDEX
    else:
        galleries = {task.name: data.pools[task.name] for task in wanted}
        gallery_of, kind = {qid: task.name for qid, task in task_of.items()}, DEFAULT_INDEX
    return Dataset(benchmark, images, galleries, gallery_of, documents, kind)


def write_universal(split: str, folder: Path) -> None:
    """Write a split of the set into M-BEIR's files below `folder`, as its split of the same name; those to train on
    (`MADE`) as training queries over one pool."""
    from fieldscope.eval.benchmarks.splits import canonical
    from fieldscope.eval.datasets.dataset import file_split
    from fieldscope.eval.datasets.mbeir_writer import write_mbeir, write_mbeir_training
    from fieldscope.fieldnotes.universal import MADE, load_universal

    name = canonical(split)
    data = load_universal(name)
    if name in MADE:
        kinds = {did: document.modality for did, document in data.documents.items()}
        write_mbeir_training(folder, _written(data, _files(name, data)), kinds)
    else:
        write_mbeir(folder, file_split(split, "test"), _written(data, _files(name, data)))


def _written(data: UniversalSplit, files: Mapping[str, Path]) -> list[WrittenTask]:
    """The tasks of a split that have queries; the first has the pool, where all share one."""
    from fieldscope.eval.datasets.mbeir_tasks import TASKS
    from fieldscope.eval.datasets.mbeir_writer import WrittenDocument, WrittenQuery, WrittenTask
    from fieldscope.fieldnotes.universal_tasks import TASKS as OWN

    tasks = [task for task in OWN if any(query.task is task for query in data.queries)]
    pools = data.pools if "union" not in data.pools else {tasks[0].name: data.pools["union"]}
    return [
        WrittenTask(
            TASKS[task.name],
            [
                WrittenQuery(q.id, q.text, files[q.picture.key()] if q.picture else None, sorted(q.relevant))
                for q in data.queries
                if q.task is task
            ],
            [
                WrittenDocument(did, each.text, files[each.picture.key()] if each.picture else None)
                for did in pools.get(task.name, ())
                for each in (data.documents[did],)
            ],
            task.instructions,
        )
        for task in tasks
    ]


def _files(split: str, data: UniversalSplit) -> dict[str, Path]:
    """The file of each drawn scene, by the scene's key."""
    if not data.scenes:
        return {}
    pictures = drawn_pictures(split, "universal")
    return dict(zip(data.scenes, pictures.files.values(), strict=True))
