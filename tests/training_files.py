"""Tiny training files of M-BEIR's shape: squares of one colour, their names, and both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from fieldscope.core.documents import Modality
from fieldscope.eval.datasets.mbeir_tasks import TASKS
from fieldscope.eval.datasets.mbeir_writer import (
    WrittenDocument,
    WrittenQuery,
    WrittenTask,
    write_mbeir,
    write_mbeir_training,
)

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "black", "white")


def write_training_files(folder: Path, colours: Sequence[str] = COLOURS) -> Path:
    """Queries of types 1, 2, 4 and 8 over a pool of pictures, names and named pictures; the same to validate on."""
    pictures = {colour: folder / f"{colour}.png" for colour in colours}
    folder.mkdir(parents=True, exist_ok=True)
    for colour, path in pictures.items():
        Image.new("RGB", (24, 24), colour).save(path)
    shown, named, both = ({c: f"{n}:{i}" for i, c in enumerate(colours, start=1)} for n in (9, 2, 6))
    pool: dict[str, WrittenDocument] = {}
    modality: dict[str, Modality] = {}
    for colour in colours:
        for kind, did, text, picture in (
            ("image", shown[colour], "", pictures[colour]),
            ("text", named[colour], f"a {colour} crab", None),
            ("image,text", both[colour], f"the {colour} one", pictures[colour]),
        ):
            pool[did] = WrittenDocument(did, text, picture)
            modality[did] = kind  # type: ignore[assignment]
    tasks = []
    for name, matches in (("mscoco_task0", shown), ("webqa_task1", named), ("infoseek_task8", both)):
        task = TASKS[name]
        queries = [
            WrittenQuery(
                f"{task.dataset_id}:{number}",
                f"a {colour} crab",
                pictures[colour] if "image" in task.query else None,
                [matches[colour]],
            )
            for number, colour in enumerate(colours, start=1)
        ]
        own = [pool[did] for did in matches.values()]
        tasks.append(WrittenTask(task, queries, own, (f"Find a {task.candidate} of it.", "Search for it.")))
    write_mbeir_training(folder, tasks, modality)
    write_mbeir(folder, "val", tasks)
    return folder
