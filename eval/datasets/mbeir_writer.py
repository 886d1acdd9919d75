"""Writes documents, queries and judgments as M-BEIR publishes them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fieldscope.core.documents import Modality
from fieldscope.core.files import replace_file
from fieldscope.eval.datasets.mbeir_files import INSTRUCTIONS, PROMPTS
from fieldscope.eval.datasets.mbeir_tasks import MbeirTask
from fieldscope.eval.datasets.mbeir_training import TRAINING_POOL, TRAINING_QUERIES

PICTURES = "mbeir_images"


@dataclass(frozen=True)
class WrittenQuery:
    """A query: its words (empty for none), the file of its picture, and its positives."""

    id: str
    text: str
    picture: Path | None
    positives: Sequence[str]


@dataclass(frozen=True)
class WrittenDocument:
    """A candidate: its words (empty for none) and the file of its picture."""

    id: str
    text: str
    picture: Path | None


@dataclass(frozen=True)
class WrittenTask:
    """A task with its pool, its queries and its instructions, at most four."""

    task: MbeirTask
    queries: Sequence[WrittenQuery]
    pool: Sequence[WrittenDocument]
    instructions: Sequence[str]


def write_mbeir(folder: Path, split: str, tasks: Sequence[WrittenTask]) -> None:
    """Write tasks below `folder` as the split (`test` or `val`) of M-BEIR: queries, pools of their own and of all
    together, judgments, instructions, and copies of the pictures."""
    union: dict[str, dict[str, Any]] = {}
    listed = ["\t".join(("query_modality", "cand_modality", "dataset_name", "dataset_id", *PROMPTS))]
    for written in tasks:
        task, name = written.task, written.task.name
        pool = {each.id: _candidate(folder, task, each) for each in written.pool}
        union |= pool
        of_split = f"_{split}" if task.dataset == "mscoco" else ""
        _write_lines(folder / f"query/{split}/mbeir_{name}_{split}.jsonl", _queries(folder, written))
        _write_lines(folder / f"cand_pool/local/mbeir_{name}{of_split}_cand_pool.jsonl", pool.values())
        judged = (f"{q.id} 0 {did} 1 {task.number}" for q in written.queries for did in q.positives)
        _write(folder / f"qrels/{split}/mbeir_{name}_{split}_qrels.txt", judged)
        row = (task.query, task.candidate, task.dataset, str(task.dataset_id), *written.instructions)
        listed.append("\t".join(row))
    _write_lines(folder / f"cand_pool/global/mbeir_union_{split}_cand_pool.jsonl", union.values())
    _write(folder / INSTRUCTIONS, listed)


def write_mbeir_training(folder: Path, tasks: Sequence[WrittenTask], modality: Mapping[str, Modality]) -> None:
    """Write tasks below `folder` as what M-BEIR trains on: queries by data set, one pool, and instructions. The tasks'
    pools are parts of one, in which a document of any task has this modality."""
    pool: dict[str, dict[str, Any]] = {}
    listed = ["\t".join(("query_modality", "cand_modality", "dataset_name", "dataset_id", *PROMPTS))]
    for dataset in dict.fromkeys(written.task.dataset for written in tasks):
        of_dataset = [written for written in tasks if written.task.dataset == dataset]
        lines = [line for written in of_dataset for line in _queries(folder, written)]
        _write_lines(folder / TRAINING_QUERIES.replace("*", dataset), lines)
        for written in of_dataset:
            for each in written.pool:
                pool[each.id] = _candidate(folder, written.task, each) | {"modality": modality[each.id]}
            task = written.task
            listed.append(
                "\t".join((task.query, task.candidate, task.dataset, str(task.dataset_id), *written.instructions))
            )
    _write_lines(folder / TRAINING_POOL, pool.values())
    _write(folder / INSTRUCTIONS, listed)


def _queries(folder: Path, written: WrittenTask) -> Iterable[Mapping[str, Any]]:
    for query in written.queries:
        yield {
            "qid": query.id,
            "query_txt": query.text or None,
            "query_img_path": _copied(folder, query.picture),
            "query_modality": written.task.query,
            "query_src_content": None,
            "pos_cand_list": list(query.positives),
            "neg_cand_list": [],
            "task_id": written.task.number,
        }


def _candidate(folder: Path, task: MbeirTask, document: WrittenDocument) -> dict[str, Any]:
    return {
        "did": document.id,
        "txt": document.text or None,
        "img_path": _copied(folder, document.picture),
        "modality": task.candidate,
        "src_content": None,
    }


def _copied(folder: Path, picture: Path | None) -> str | None:
    """The path of a picture below the folder, where it is copied: by its own folder's name, since splits number their
    pictures alike."""
    if picture is None:
        return None
    name = f"{PICTURES}/{picture.parent.name}/{picture.name}"
    place = folder / name
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, place)
    return name


def _write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    _write(path, (json.dumps(line, ensure_ascii=False) for line in lines))


def _write(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, "".join(f"{line}\n" for line in lines))
