"""A small M-BEIR in the published shape, for tests that read it and break it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image as PILImage

from fieldscope.eval.datasets.mbeir_tasks import TASKS

HEADER = "query_modality\tcand_modality\tdataset_name\tdataset_id\tprompt_1\tprompt_2\tprompt_3\tprompt_4"


def write_mbeir(root: Path, names: tuple[str, ...] = ("mscoco_task0", "cirr_task7", "webqa_task2")) -> Path:
    """Tasks of two queries and four candidates each, with pictures of one colour; the folder of the data set."""
    folder = root / "M-BEIR"
    (folder / "instructions").mkdir(parents=True)
    rows = [HEADER]
    union: list[str] = []
    for place, name in enumerate(names):
        task = TASKS[name]
        queries, pool, qrels = [], [], []
        for number in (1, 2):
            picture = f"mbeir_images/{name}/query{number}.png"
            text = f"query {number} of {name}"
            queries.append(
                {
                    "qid": f"{task.dataset_id}:{place * 10 + number}",
                    "query_txt": text if "text" in task.query else None,
                    "query_img_path": paint(folder, picture, number) if "image" in task.query else None,
                    "query_modality": task.query,
                    "query_src_content": json.dumps({"answer": "SECRET-QUERY"}),
                    "pos_cand_list": [{"did": f"{task.dataset_id}:{place * 10 + number}"}],
                    "neg_cand_list": [],
                    "task_id": task.number,
                }
            )
            qrels.append(f"{queries[-1]['qid']} 0 {task.dataset_id}:{place * 10 + number} 1 {task.number}")
        for number in range(1, 5):
            picture = f"mbeir_images/{name}/{number}.png"
            pool.append(
                {
                    "did": f"{task.dataset_id}:{place * 10 + number}",
                    "txt": f"candidate {number} of {name}" if "text" in task.candidate else None,
                    "img_path": paint(folder, picture, 40 * number) if "image" in task.candidate else None,
                    "modality": task.candidate,
                    "src_content": json.dumps({"answer": "SECRET-CANDIDATE"}),
                }
            )
        split = "_test" if task.dataset == "mscoco" else ""
        write(folder / f"query/test/mbeir_{name}_test.jsonl", map(json.dumps, queries))
        write(folder / f"qrels/test/mbeir_{name}_test_qrels.txt", qrels)
        write(folder / f"cand_pool/local/mbeir_{name}{split}_cand_pool.jsonl", map(json.dumps, pool))
        union += map(json.dumps, pool)
        prompts = f'"find it for {name}"\tsecond\t\tfourth!'
        rows.append(f"{task.query}\t{task.candidate}\t{task.dataset}\t{task.dataset_id}\t{prompts}")
    write(folder / "cand_pool/global/mbeir_union_test_cand_pool.jsonl", union)
    write(folder / "instructions/query_instructions.tsv", rows)
    return folder


def write(path: Path, lines: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def paint(folder: Path, name: str, shade: int) -> str:
    """Write a picture of one grey below the folder; its path there."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    PILImage.new("RGB", (16, 16), (shade, shade, shade)).save(path)
    return name


def change_line(path: Path, changes: Mapping[str, Any]) -> None:
    """Change keys of a file's first line."""
    first, *rest = path.read_text(encoding="utf-8").splitlines()
    write(path, [json.dumps({**json.loads(first), **changes}), *rest])
