"""M-BEIR's training queries: files of one data set each, over the union of all pools, with their positives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from fieldscope.core.documents import QUERY_PICTURE, Modality
from fieldscope.core.errors import BenchmarkError
from fieldscope.eval.benchmarks.tables import read_rows
from fieldscope.eval.datasets.dataset import Dataset
from fieldscope.eval.datasets.files import base_folder, fault, find_pictures, first_file, relative_path
from fieldscope.eval.datasets.mbeir import ROOTS, UNION, load_mbeir
from fieldscope.eval.datasets.mbeir_files import INSTRUCTIONS, MbeirQuery, Positive, read_instructions
from fieldscope.eval.datasets.mbeir_tasks import TASKS, MbeirTask
from fieldscope.retrieval.collection import FilesCollection
from fieldscope.retrieval.document_lines import DocumentLines
from fieldscope.retrieval.documents import DocumentsCollection
from fieldscope.retrieval.training.queries import TrainingQuery, TrainingSet
from fieldscope.retrieval.union import UnionCollection

TRAINING_QUERIES = "query/train/mbeir_*_train.jsonl"
TRAINING_POOL = "cand_pool/global/mbeir_union_train_cand_pool.jsonl"

_QUERY: TypeAdapter[MbeirQuery] = TypeAdapter(MbeirQuery)
_TASK_OF = {(task.dataset_id, task.query, task.candidate): task for task in TASKS.values()}

Instructions = Mapping[tuple[str, Modality, Modality], tuple[str, ...]]


def load_mbeir_training(root: Path, name: str) -> TrainingSet:
    """The training queries below `root`, each with the instructions of its data set and modalities.

    What a query wants is the modality of its positives. Raises `BenchmarkError` for a folder without the files, and for
    a wrong line, by file, line and field.
    """
    folder = base_folder(root, ROOTS, ("query",))
    files = sorted(folder.glob(TRAINING_QUERIES))
    if not files:
        raise BenchmarkError(f"{folder} has no {TRAINING_QUERIES}. Give the folder of M-BEIR's training files.")
    lines = DocumentLines(first_file(folder, (TRAINING_POOL,)), error=BenchmarkError)
    instructions = read_instructions(folder / INSTRUCTIONS) if (folder / INSTRUCTIONS).is_file() else {}
    queries: dict[str, TrainingQuery] = {}
    for path in files:
        for number, query in _queries(path):
            if query.qid in queries:
                raise _wrong(path, number, "qid", f"{query.qid!r} occurs twice")
            queries[query.qid] = _training_query(path, number, query, lines, instructions)
    asked = {query.picture: query.picture.removeprefix(QUERY_PICTURE) for query in queries.values() if query.picture}
    pictures = find_pictures(folder, asked.values(), lambda path: (path,))
    if asked:
        pictures.require(folder, asked.values(), next(iter(asked.values())))
    documents = DocumentsCollection(lines, folder, normalised=True)
    images = UnionCollection({"": documents, QUERY_PICTURE: FilesCollection(pictures.files)})
    return TrainingSet(name, tuple(queries.values()), tuple(lines), images)


def load_mbeir_validation(root: Path, name: str) -> TrainingSet | None:
    """The validation queries below `root` over the union of all pools; None where there are none."""
    folder = base_folder(root, ROOTS, ("query",))
    if not any((folder / "query" / "val").glob("mbeir_*_val.jsonl")):
        return None
    return scored_set(load_mbeir(root, "validation", {"pool": UNION}), name)


def scored_set(dataset: Dataset, name: str) -> TrainingSet:
    """The queries of a data set over its union pool, as training looks at them between its stages."""
    protocol, benchmark = dataset.benchmark.protocol, dataset.benchmark
    queries = tuple(
        TrainingQuery(
            query.id,
            protocol.groups[query.id][0],
            query.text,
            query.reference_image,
            query.wanted or "image",
            tuple(did for did, judged in benchmark.qrels[query.id].items() if judged),
            (query.instruction,) if query.instruction else (),
            protocol.cutoffs[query.id],
        )
        for query in benchmark.queries
    )
    return TrainingSet(name, queries, dataset.galleries[UNION], dataset.images)


def _queries(path: Path) -> Iterator[tuple[int, MbeirQuery]]:
    for number, (line,) in read_rows(path, delimiter=None):
        try:
            query = _QUERY.validate_json(line)
        except ValidationError as error:
            raise fault(path, error, f"line {number}") from error
        if bool(query.text) != ("text" in query.query_modality):
            raise _wrong(path, number, "query_txt", f"it does not go with the modality {query.query_modality!r}")
        if bool(query.query_img_path) != ("image" in query.query_modality):
            raise _wrong(path, number, "query_img_path", f"it does not go with the modality {query.query_modality!r}")
        yield number, query


def _training_query(
    path: Path, number: int, query: MbeirQuery, pool: DocumentLines, instructions: Instructions
) -> TrainingQuery:
    positives = tuple(each.did if isinstance(each, Positive) else each for each in query.pos_cand_list)
    if not positives:
        raise _wrong(path, number, "pos_cand_list", f"{query.qid} has no positive")
    if lost := next((did for did in positives if did not in pool), None):
        raise _wrong(path, number, "pos_cand_list", f"{lost!r} is not in {TRAINING_POOL}")
    wanted = pool[positives[0]].parts
    if other := next((did for did in positives if pool[did].parts != wanted), None):
        raise _wrong(path, number, "pos_cand_list", f"{other!r} is not {wanted!r}, as {positives[0]!r} is")
    dataset = query.qid.partition(":")[0]
    task = _task(path, number, int(dataset), query.query_modality, wanted)
    picture = f"{QUERY_PICTURE}{relative_path(path, query.query_img_path)}" if query.query_img_path else None
    said = instructions.get((dataset, query.query_modality, wanted), ())
    return TrainingQuery(query.qid, task.name, query.text, picture, wanted, positives, said, task.cutoff)


def _task(path: Path, number: int, dataset: int, asked: Modality, wanted: Modality) -> MbeirTask:
    task = _TASK_OF.get((dataset, asked, wanted))
    if task is None:
        raise _wrong(path, number, "pos_cand_list", f"data set {dataset} has no task {asked} -> {wanted}")
    return task


def _wrong(path: Path, line: int, field: str, what: str) -> BenchmarkError:
    return BenchmarkError(f"{path}, line {line}: {field}: {what}. Correct the file.")
