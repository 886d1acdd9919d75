"""What training gives a retriever on FieldNotes-Universal, over several seeds: nothing, random negatives, mined ones,
and the stage on texts.

`python -m checks.training FOLDER` writes the training files below FOLDER, trains the universal retriever over the
bundled CLIP once for each seed, and measures every stage on the test split, over the union of all pools. It prints
means with 95 % intervals over the seeds, and keeps them in FOLDER/figures.json. After an interruption, rerun it to
continue.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
from scipy.stats import t

from fieldscope.core.files import replace_file
from fieldscope.eval.datasets.mbeir import UNION
from fieldscope.eval.datasets.mbeir_training import TRAINING_POOL, scored_set
from fieldscope.retrieval.training.ranking import Figures, measure
from fieldscope.retrieval.training.trainer import Plan, Stage
from fieldscope.service.cli.console import Terminal
from fieldscope.service.wiring.feedback import listening
from fieldscope.service.wiring.universal import universal_dataset, write_universal
from fieldscope.service.workflows.train_retriever import open_learner, train_retriever

TEXT_TASK = "webqa_task1"


def write_training_files(folder: Path) -> None:
    """The training queries with the validation split beside them, and the texts, each in M-BEIR's files."""
    if not (folder / "data" / TRAINING_POOL).is_file():
        write_universal("validation", folder / "data")
        write_universal("training", folder / "data")
    if not (folder / "texts" / TRAINING_POOL).is_file():
        write_universal("texts", folder / "texts")


def interval(values: Sequence[float]) -> str:
    """The mean in percent, with half the width of its 95 % interval (Student's t) where there are several values."""
    mean = 100 * float(np.mean(values))
    if len(values) < 2:
        return f"{mean:.1f}"
    half = float(t.ppf(0.975, len(values) - 1)) * 100 * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return f"{mean:.1f} ± {half:.1f}"


def measured(stage: Stage, split: str) -> Figures:
    """A stage's figures on a split, kept beside its model."""
    kept = Path(stage.folder).parent / f"{stage.name}-{split}.json"
    if not kept.is_file():
        scored = scored_set(universal_dataset(split, {"pool": UNION}), split)
        found = measure(open_learner(Path(stage.folder), [scored]), scored, lambda done, total: None)
        replace_file(kept, json.dumps(vars(found), indent=2) + "\n")
    return Figures(**json.loads(kept.read_text(encoding="utf-8")))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--steps", default=200, show_default=True, type=click.IntRange(min=1))
@click.option("--text-steps", default=80, show_default=True, type=click.IntRange(min=1))
@click.option("--batch", default=48, show_default=True, type=click.IntRange(min=2))
@click.option("--split", default="test", show_default=True)
def main(folder: Path, seeds: int, steps: int, text_steps: int, batch: int, split: str) -> None:
    """Train once for each seed, and print what each stage gives."""
    write_training_files(folder)
    stages: dict[str, list[Figures]] = {}
    negatives: dict[str, list[str]] = {}
    with listening(Terminal()):
        for seed in range(seeds):
            plan = Plan(steps=steps, text_steps=text_steps, batch=batch, seed=seed)
            out = folder / f"seed-{seed}-{steps}-{text_steps}-{batch}"
            for stage in train_retriever(folder / "data", out, plan, texts=folder / "texts"):
                found = measured(stage, split)
                stages.setdefault(stage.name, []).append(found)
                click.echo(f"seed {seed}, {stage.name}: R {found.recall:.3f}, M.A.@1 {found.modality_accuracy:.3f}")
                if stage.mined is not None:
                    kinds = f"{stage.mined['wrong_modality']:,} / {stage.mined['right_modality']:,}"
                    negatives.setdefault(stage.name, []).append(kinds)
    click.echo(f"{'stage':8} {'recall':>14} {'M.A.@1':>14} {'texts':>14}  negatives: wrong / right modality")
    for name, figures in stages.items():
        recall = interval([each.recall for each in figures])
        accuracy = interval([each.modality_accuracy for each in figures])
        texts = interval([each.recall_by_task[TEXT_TASK] for each in figures])
        click.echo(f"{name:8} {recall:>14} {accuracy:>14} {texts:>14}  {', '.join(negatives.get(name, ()))}")
    for name, figures in stages.items():
        by_task = {
            task: interval([each.recall_by_task[task] for each in figures]) for task in figures[0].recall_by_task
        }
        click.echo(f"{name:8} {', '.join(f'{task} {shown}' for task, shown in by_task.items())}")
    kept = {name: [vars(each) for each in figures] for name, figures in stages.items()}
    replace_file(folder / "figures.json", json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main()
