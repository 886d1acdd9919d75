"""M-BEIR (arXiv 2311.17136): sixteen tasks over documents of any kind, in pools of their own or in the union of all.

Figures of its CIRR and FashionIQ do not compare with those of the two data sets' own protocols: M-BEIR has their
validation queries, merged, in one pool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fieldscope.core.documents import QUERY_PICTURE
from fieldscope.core.errors import BenchmarkError
from fieldscope.core.types import Query
from fieldscope.eval.benchmarks.splits import canonical
from fieldscope.eval.datasets.choices import chosen
from fieldscope.eval.datasets.dataset import Dataset, file_split
from fieldscope.eval.datasets.files import base_folder, find_pictures, first_file
from fieldscope.eval.datasets.mbeir_files import INSTRUCTIONS, MbeirQuery, read_instructions, read_qrels, read_queries
from fieldscope.eval.datasets.mbeir_tasks import TASKS, MbeirTask
from fieldscope.eval.protocol import Protocol
from fieldscope.eval.reported import MBEIR
from fieldscope.eval.types import Benchmark, QueryMeta
from fieldscope.retrieval.collection import FilesCollection
from fieldscope.retrieval.document_lines import DocumentLines
from fieldscope.retrieval.documents import DocumentsCollection
from fieldscope.retrieval.index import DEFAULT_INDEX, MAPPED_INDEX
from fieldscope.retrieval.union import UnionCollection

NAME = "mbeir"
ALL = "all"
UNION = "union"
NO_INSTRUCTION = "none"
CHOICES = {
    "task": (ALL, *TASKS),
    "pool": ("local", UNION),
    "instruction": ("1", "2", "3", "4", NO_INSTRUCTION),
}

ROOTS = ("M-BEIR", "mbeir", "m-beir")


@dataclass(frozen=True)
class _Part:
    """A task's files, read."""

    task: MbeirTask
    queries: Mapping[str, MbeirQuery]
    qrels: Mapping[str, Mapping[str, int]]
    qrels_file: Path


def load_mbeir(root: Path, split: str | None, given: Mapping[str, str]) -> Dataset:
    """A split (test by default) of one task, or of all whose files are below `root`.

    A query's own picture is an image beside the pool, so it is never found, and nothing is left out of a ranking.
    Raises `BenchmarkError` for a folder without its files, and for a wrong line, by file, line and field.
    """
    choices = chosen(NAME, given, CHOICES)
    wanted = file_split(split, "test")
    if wanted not in ("test", "val"):
        raise BenchmarkError(f"mbeir has no split {wanted!r} to be scored on. Use test or validation.")
    folder = base_folder(root, ROOTS, ("query",))
    parts, absent = _parts(folder, wanted, choices["task"])
    instructions = _instructions(folder, parts, choices["instruction"])
    pools = {part.task.name: _pool_file(folder, part.task, wanted, choices["pool"]) for part in parts}
    lines = DocumentLines(*dict.fromkeys(pools.values()), error=BenchmarkError)
    documents = DocumentsCollection(lines, folder, normalised=True)
    ids_of = {name: lines.ids_of(path) for name, path in pools.items()}
    for part in parts:
        _require_positives(part, frozenset(ids_of[part.task.name]), pools[part.task.name])
    pictures, oddities = _pictures(folder, parts, lines)
    queries = tuple(
        _query(query, part.task, instructions.get(part.task.name)) for part in parts for query in part.queries.values()
    )
    task_of = {qid: part.task for part in parts for qid in part.queries}
    images = UnionCollection({"": documents, QUERY_PICTURE: pictures})
    benchmark = Benchmark(
        name=NAME,
        split=canonical(wanted),
        queries=queries,
        qrels={qid: dict(judged) for part in parts for qid, judged in part.qrels.items()},
        images=images,
        meta={qid: QueryMeta(conditions={"type": task.type_name}) for qid, task in task_of.items()},
        oddities=(*absent, *oddities),
        reported=MBEIR,
        protocol=universal_protocol(task_of, choices),
    )
    galleries = {name: ids_of[name] for name in pools} if choices["pool"] != UNION else {UNION: tuple(lines)}
    gallery_of = {qid: task.name if choices["pool"] != UNION else UNION for qid, task in task_of.items()}
    kind = MAPPED_INDEX if choices["pool"] == UNION else DEFAULT_INDEX
    return Dataset(benchmark, images, galleries, gallery_of, documents, kind)


def universal_protocol(task_of: Mapping[str, MbeirTask], choices: Mapping[str, str]) -> Protocol:
    """M-BEIR's scoring of queries by their tasks: recall is whether any positive is found, at the depth of the query's
    own data set, and a mean is that of the tasks' means."""
    families = {
        family: names
        for family in dict.fromkeys(task.family for task in task_of.values())
        if (names := tuple(dict.fromkeys(task.name for task in task_of.values() if task.family == family)))
    }
    return Protocol(
        choices=choices,
        keeps_reference=True,
        groups={qid: (task.name,) for qid, task in task_of.items()},
        group_kind="task",
        by_group=True,
        families=families,
        cutoffs={qid: task.cutoff for qid, task in task_of.items()},
    )


def _parts(folder: Path, split: str, wanted: str) -> tuple[list[_Part], tuple[str, ...]]:
    """The wanted tasks whose query files are there, and a sentence about those that are not."""
    tasks = TASKS.values() if wanted == ALL else (TASKS[wanted],)
    parts: list[_Part] = []
    absent = []
    for task in tasks:
        path = folder / "query" / split / f"mbeir_{task.name}_{split}.jsonl"
        if wanted == ALL and not path.is_file():
            absent.append(task.name)
            continue
        queries = read_queries(path, task)
        qrels_file = first_file(folder, (f"qrels/{split}/mbeir_{task.name}_{split}_qrels.txt",))
        parts.append(_Part(task, queries, read_qrels(qrels_file, task, queries), qrels_file))
    if not parts:
        raise BenchmarkError(f"{folder / 'query' / split} has no query file of M-BEIR. Fetch one, or name its split.")
    if not absent:
        return parts, ()
    return parts, (
        f"{len(absent)} of M-BEIR's {len(TASKS)} tasks have no file in {folder / 'query' / split}: "
        f"{', '.join(absent)}; the averages are those of the others",
    )


def _pool_file(folder: Path, task: MbeirTask, split: str, pool: str) -> Path:
    """The file of a task's candidates. MSCOCO has one for each split."""
    if pool == UNION:
        return first_file(folder, (f"cand_pool/global/mbeir_union_{split}_cand_pool.jsonl",))
    names = (f"{task.name}_{split}_cand_pool", f"{task.name}_cand_pool")
    return first_file(folder, [f"cand_pool/local/mbeir_{name}.jsonl" for name in names])


def _instructions(folder: Path, parts: Sequence[_Part], number: str) -> dict[str, str]:
    """Each task's instruction of this number; none where that is what was chosen."""
    if number == NO_INSTRUCTION:
        return {}
    path = first_file(folder, (INSTRUCTIONS,))
    listed = read_instructions(path)
    found = {}
    for task in (part.task for part in parts):
        prompts = listed.get((str(task.dataset_id), task.query, task.candidate), ())
        if len(prompts) < int(number):
            raise BenchmarkError(
                f"{path}: prompt_{number}: {task.name} ({task.dataset_id}, {task.query}, {task.candidate}) has "
                f"{len(prompts)} instructions. Choose another with --set instruction, or fetch the file again."
            )
        found[task.name] = prompts[int(number) - 1]
    return found


def _query(query: MbeirQuery, task: MbeirTask, instruction: str | None) -> Query:
    picture = f"{QUERY_PICTURE}{query.query_img_path}" if query.query_img_path else None
    return Query(id=query.qid, text=query.text, reference_image=picture, instruction=instruction, wanted=task.candidate)


def _pictures(
    folder: Path, parts: Sequence[_Part], documents: DocumentLines
) -> tuple[FilesCollection, tuple[str, ...]]:
    """The queries' own pictures, and sentences about those of candidates that are missing. Raises `BenchmarkError` for
    a query's that is."""
    paths = dict.fromkeys(q.query_img_path for part in parts for q in part.queries.values() if q.query_img_path)
    of_queries = find_pictures(folder, paths, lambda path: (path,))
    if paths:
        of_queries.require(folder, paths, next(iter(paths)))
    pictured = {document_id: image for document_id in documents if (image := documents[document_id].image)}
    of_documents = find_pictures(folder, pictured, lambda document_id: (pictured[document_id],))
    oddities = of_documents.require(folder, (), next(iter(pictured.values()))) if pictured else ()
    return FilesCollection(of_queries.files), oddities


def _require_positives(part: _Part, pool: frozenset[str], path: Path) -> None:
    """Raise `BenchmarkError` for a positive that is in no line of the task's pool."""
    for qid, judged in part.qrels.items():
        if lost := next((did for did, judgment in judged.items() if judgment and did not in pool), None):
            raise BenchmarkError(
                f"{part.qrels_file}: did: {lost!r}, a positive of {qid}, is not in {path.name}. Fetch both files again."
            )
