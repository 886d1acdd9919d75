"""Whether a retriever gets better by what the agent says, on FieldNotes-Universal.

`python -m checks.distillation FOLDER --from MODEL` needs the training files that `checks.training` writes below FOLDER.
The agent, with the bundled LMM, reranks what the retriever in MODEL finds for some of the training queries; the
retriever learns from its P(match), and no judgment is read but with --replay, which trains on the training queries in
the same steps. Both are then measured on the validation queries, which neither saw, over the union of all pools, with a
paired randomisation test. After an interruption, rerun it to continue.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from checks.universal import POOLS
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.core.files import replace_file
from fieldscope.eval.datasets.mbeir_tasks import TASKS, MbeirTask
from fieldscope.eval.datasets.mbeir_training import TRAINING_POOL, TRAINING_QUERIES
from fieldscope.eval.measures.paired import compare
from fieldscope.eval.reported import MODALITY_ACCURACY, TASK_HITS
from fieldscope.eval.runs.read import read_metric
from fieldscope.retrieval.training.trainer import Plan
from fieldscope.service.cli.console import Terminal
from fieldscope.service.wiring.feedback import listening
from fieldscope.service.wiring.settings import Settings
from fieldscope.service.wiring.universal import NAME
from fieldscope.service.workflows.distill import distill
from fieldscope.service.workflows.evaluate import EvaluationPlan, evaluate_benchmark

JUDGED = ("mscoco_task0", "mscoco_task3", "infoseek_task6", "cirr_task7", "infoseek_task8")
"""The tasks that the bundled LMM can judge."""

METRICS = (TASK_HITS, "hits@1", "RR", MODALITY_ACCURACY)
TEACHER = "true-false-fused"

Line = Mapping[str, Any]


def write_asked(data: Path, out: Path, queries: int, pool: int) -> None:
    """So many training queries of each task, as validation queries over a pool of their positives and others."""
    documents = _lines(data / TRAINING_POOL)
    for task in (TASKS[name] for name in JUDGED):
        of_dataset = _lines(data / TRAINING_QUERIES.replace("*", task.dataset))
        asked = [line for line in of_dataset if line["task_id"] == task.number][:queries]
        positives = {did for line in asked for did in line["pos_cand_list"]}
        alike = [line for line in documents if line["modality"] == task.candidate]
        others = [line for line in alike if line["did"] not in positives][:: max(1, len(alike) // pool)]
        own = [line for line in alike if line["did"] in positives]
        _write(out / f"query/val/mbeir_{task.name}_val.jsonl", map(json.dumps, asked))
        _write(out / f"cand_pool/local/mbeir_{task.name}_cand_pool.jsonl", map(json.dumps, [*own, *others]))
        _write(out / f"qrels/val/mbeir_{task.name}_val_qrels.txt", _qrels(asked, task))
    _write(out / "instructions/query_instructions.tsv", _rows(data / "instructions/query_instructions.tsv"))
    if not (out / "mbeir_images").exists():
        (out / "mbeir_images").symlink_to((data / "mbeir_images").resolve())


def _qrels(asked: Iterable[Line], task: MbeirTask) -> Iterable[str]:
    return (f"{line['qid']} 0 {did} 1 {task.number}" for line in asked for did in line["pos_cand_list"])


def _rows(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _rows(path)]


def _write(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, "".join(f"{line.rstrip()}\n" for line in lines))


def measured(model: Path, out: Path) -> Path:
    """The run of a retriever alone on the validation queries."""
    plan = EvaluationPlan(NAME, "validation", out=out, choices={"pool": POOLS[1]})
    evaluate_benchmark(plan, [load_strategy("clip")], Settings(encoder=f"path:{model}"))
    return out / "clip"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--from", "start", required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option("--queries", default=15, show_default=True, type=click.IntRange(min=1), help="Of each task.")
@click.option("--pool", default=60, show_default=True, type=click.IntRange(min=1), help="Other documents of each task.")
@click.option("--steps", default=60, show_default=True, type=click.IntRange(min=1))
@click.option("--rate", default=5e-5, show_default=True, type=click.FloatRange(min=0, min_open=True))
@click.option("--replay", is_flag=True, help="Train on the training queries, too.")
def main(folder: Path, start: Path, queries: int, pool: int, steps: int, rate: float, replay: bool) -> None:
    """Ask the agent, teach the retriever, and compare."""
    out = folder / f"distillation-{queries}-{pool}"
    taught = out / f"student-{steps}-{rate}{'-replay' * replay}"
    with listening(Terminal()):
        write_asked(folder / "data", out / "asked", queries, pool)
        plan = EvaluationPlan(f"mbeir:{out / 'asked'}", "validation", out=out / "teacher", choices={"pool": POOLS[0]})
        evaluate_benchmark(plan, [load_strategy(TEACHER)], Settings(encoder=f"path:{start}"))
        learned = Plan(steps=steps, batch=16, rate=rate)
        replayed = folder / "data" if replay else None
        stages = distill(out / "teacher" / TEACHER, start, taught, learned, replay=replayed)
        student = Path([stage.folder for stage in stages][-1])
        before, after = measured(start, out / "before"), measured(student, taught / "after")
    for metric in METRICS:
        found = compare(read_metric(before, metric), read_metric(after, metric))
        click.echo(
            f"{metric:10} {100 * found.mean_a:5.1f} -> {100 * found.mean_b:5.1f}  better {found.wins}, worse "
            f"{found.losses} of {found.queries}, p {found.p:.3f}"
        )


if __name__ == "__main__":
    main()
