"""M-BEIR's files: queries, judgments in five columns, and instructions, each line checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, TypeAdapter, ValidationError

from fieldscope.core.documents import Modality, normalised_text
from fieldscope.core.errors import BenchmarkError
from fieldscope.eval.benchmarks.tables import read_rows
from fieldscope.eval.datasets.files import Entry, fault, relative_path
from fieldscope.eval.datasets.mbeir_tasks import MbeirTask

INSTRUCTIONS = "instructions/query_instructions.tsv"
PROMPTS = ("prompt_1", "prompt_2", "prompt_3", "prompt_4")
_HEADER = ("query_modality", "cand_modality", "dataset_name", "dataset_id", *PROMPTS)

Id = Annotated[str, StringConstraints(pattern=r"^\d+:\d+$")]


class Positive(Entry):
    """A positive as the data set's card shows it."""

    did: str


class MbeirQuery(Entry):
    """A line of a query file. Its `query_src_content` is part of the answer key and is never read; neither are its
    candidates, since the judgments are in a file of their own."""

    qid: Id
    query_txt: str | None = None
    query_img_path: str | None = None
    query_modality: Modality
    pos_cand_list: tuple[str | Positive, ...] = ()
    neg_cand_list: tuple[str | Positive, ...] = ()
    task_id: int | None = None

    @property
    def text(self) -> str:
        """Normalised; empty where it has none."""
        return normalised_text(self.query_txt)


_QUERY: TypeAdapter[MbeirQuery] = TypeAdapter(MbeirQuery)


class _Judgment(Entry):
    qid: Id
    iteration: str
    did: Id
    relevance: Annotated[int, Field(ge=0, strict=False)]
    task_id: Annotated[int, Field(strict=False)]


def read_queries(path: Path, task: MbeirTask) -> dict[str, MbeirQuery]:
    """A task's queries by id. Raises `BenchmarkError` with the file, the line and the field."""
    queries: dict[str, MbeirQuery] = {}
    for number, (line,) in read_rows(path, delimiter=None):
        where = f"line {number}"
        try:
            query = _QUERY.validate_json(line)
        except ValidationError as error:
            raise fault(path, error, where) from error
        if wrong := _query_fault(query, task):
            raise _wrong(path, number, *wrong)
        if query.qid in queries:
            raise _wrong(path, number, "qid", f"{query.qid!r} occurs twice")
        if query.query_img_path:
            relative_path(path, query.query_img_path)
        queries[query.qid] = query
    if not queries:
        raise BenchmarkError(f"{path} has no query. Fetch the file again.")
    return queries


def _query_fault(query: MbeirQuery, task: MbeirTask) -> tuple[str, str] | None:
    """The field of a query that does not go with its task or with the others, and why; None for a sound query."""
    if query.qid.partition(":")[0] != str(task.dataset_id):
        return "qid", f"{query.qid!r} is not of {task.dataset}, whose ids begin with {task.dataset_id}"
    if query.query_modality != task.query:
        return "query_modality", f"{query.query_modality!r}, where {task.name} has {task.query!r}"
    if bool(query.text) != ("text" in query.query_modality):
        return "query_txt", f"it does not go with the query_modality {query.query_modality!r}"
    if bool(query.query_img_path) != ("image" in query.query_modality):
        return "query_img_path", f"it does not go with the query_modality {query.query_modality!r}"
    if query.task_id not in (None, task.number):
        return "task_id", f"{query.task_id}, where the file is of task {task.number}"
    return None


def read_qrels(path: Path, task: MbeirTask, queries: Mapping[str, MbeirQuery]) -> dict[str, dict[str, int]]:
    """A task's judgments: five columns, the last of them the number of the task. A query without any has none.

    Raises `BenchmarkError` with the file, the line and the field, for TREC's four columns, too.
    """
    qrels: dict[str, dict[str, int]] = {qid: {} for qid in queries}
    for number, (line,) in read_rows(path, delimiter=None):
        values = line.split()
        if len(values) != len(_Judgment.model_fields):
            raise _wrong(
                path,
                number,
                "task_id",
                f"{len(values)} columns; M-BEIR's judgments have five, of which the last is the number of the task",
            )
        try:
            judgment = _Judgment.model_validate(dict(zip(_Judgment.model_fields, values, strict=True)))
        except ValidationError as error:
            raise fault(path, error, f"line {number}") from error
        if judgment.qid not in queries:
            raise _wrong(path, number, "qid", f"{judgment.qid!r} is no query of {task.name}")
        if judgment.task_id != task.number:
            raise _wrong(path, number, "task_id", f"{judgment.task_id}, where the file is of task {task.number}")
        qrels[judgment.qid][judgment.did] = judgment.relevance
    return qrels


def read_instructions(path: Path) -> dict[tuple[str, Modality, Modality], tuple[str, ...]]:
    """The instructions by data set id, query modality and candidate modality, normalised, in order, without empty ones.

    Raises `BenchmarkError` with the file, the line and the column.
    """
    rows = ((number, line.split("\t")) for number, line in _lines(path))
    _, names = next(rows, (1, [""]))
    if missing := [name for name in _HEADER if name not in names]:
        raise _wrong(path, 1, missing[0], "the column is missing; columns are separated by tabs")
    instructions: dict[tuple[str, Modality, Modality], tuple[str, ...]] = {}
    kinds: TypeAdapter[Modality] = TypeAdapter(Modality)
    for number, values in rows:
        if len(values) > len(names):
            raise _wrong(path, number, names[-1], f"{len(values)} values under {len(names)} headings")
        row = dict(zip(names, values + [""] * (len(names) - len(values)), strict=True))
        found: list[Modality] = []
        for name in ("query_modality", "cand_modality"):
            try:
                found.append(kinds.validate_python(row[name].strip()))
            except ValidationError as error:
                raise _wrong(path, number, name, f"{row[name]!r} is none of text, image and image,text") from error
        prompts = tuple(text for name in PROMPTS if (text := normalised_text(row[name])))
        if not prompts:
            raise _wrong(path, number, PROMPTS[0], "the line has no instruction")
        instructions[row["dataset_id"].strip(), found[0], found[1]] = prompts
    return instructions


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines by number, whose tabs count."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise BenchmarkError(f"{path} can't be read ({reason}). Check the file.") from error
    return ((number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip())


def _wrong(path: Path, line: int, field: str, what: str) -> BenchmarkError:
    return BenchmarkError(f"{path}, line {line}: {field}: {what}. Fetch the file again.")
