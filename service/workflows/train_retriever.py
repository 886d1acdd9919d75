"""A retriever fine-tuned on a user's own queries, stage by stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import ConfigError
from fieldscope.core.paths import cache_folder
from fieldscope.service.wiring.feedback import keeping, progress

if TYPE_CHECKING:
    from fieldscope.retrieval.training.learner import Learner, Load
    from fieldscope.retrieval.training.queries import TrainingSet
    from fieldscope.retrieval.training.trainer import Plan, Stage

START = "start"


def train_retriever(
    data: Path,
    out: Path,
    plan: Plan,
    *,
    start: Path | None = None,
    clip: Path | None = None,
    texts: Path | None = None,
    lora: int | None = None,
) -> Iterator[Stage]:
    """Train on the files of M-BEIR's shape below `data`, and write a model for each stage below `out`; the stages as
    they end, the start model's figures first. What was begun there is gone on with.

    The start model is the one in the folder `start`, or a new one over the CLIP in the folder `clip`, by default the
    bundled one. `texts` are files of the same shape for a last stage. Raises `ConfigError` and `BenchmarkError`.
    """
    from fieldscope.eval.datasets.mbeir_training import load_mbeir_training, load_mbeir_validation
    from fieldscope.retrieval.training.stages import Stages

    training = load_mbeir_training(data, "training")
    validation = load_mbeir_validation(data, "validation")
    on_texts = load_mbeir_training(texts, "texts") if texts is not None else None
    sets = [each for each in (training, on_texts, validation) if each is not None]
    if start is None:
        start = _new(clip, [each for each in sets if each is not validation], out, plan.seed)
    elif clip is not None:
        raise ConfigError("a start model has its own CLIP; leave out one of --from and --clip")
    opened = partial(open_learner, sets=sets, lora=lora)
    stages = Stages(opened, start, training, on_texts, validation, plan, out, progress)
    with keeping(f"what was trained so far is kept in {out}; rerun this command to continue"):
        yield from stages.run()


def _new(clip: Path | None, sets: list[TrainingSet], out: Path, seed: int) -> Path:
    """The folder of an untrained model that knows the sets' words, written once."""
    from fieldscope.retrieval.model_folder import UNIVERSAL
    from fieldscope.retrieval.universal_model import Universal
    from fieldscope.service.wiring.bundled import bundled_folder

    folder = out / START
    if not (folder / UNIVERSAL).is_file():
        texts = (part for each in sets for reading in each.readings() for part in (reading.instruction, reading.text))
        Universal.start(clip or bundled_folder("clip"), texts, seed).write(folder)
    return folder


def open_learner(folder: Path, sets: list[TrainingSet], lora: int | None = None) -> Learner:
    """The model in a folder, ready for all readings of these sets. Raises `ConfigError`."""
    from fieldscope.retrieval.model_folder import kind_of, local_folder

    learner: Learner
    kind = kind_of(local_folder(str(folder)))
    if kind == "universal":
        if lora is not None:
            raise ConfigError("LoRA is for a CLIP of transformers (--from); leave out --lora")
        from fieldscope.retrieval.training.universal_learner import UniversalLearner
        from fieldscope.retrieval.universal_model import Universal

        learner = UniversalLearner(Universal.load(folder))
    elif kind == "clip":
        from fieldscope.retrieval.training.clip_learner import ClipLearner

        learner = ClipLearner(folder, lora)
    else:
        raise ConfigError(
            f"{folder} can't be trained; give the folder of a CLIP of transformers, or one that train-retriever wrote"
        )
    texts = [text for each in sets for text in each.texts()]
    with progress("reading texts and pictures") as report:
        learner.prepare(texts, _pictures(sets), cache_folder() / "training", report)
    return learner


def _pictures(sets: list[TrainingSet]) -> Mapping[str, Load]:
    """How each picture of the sets is loaded, by the hash of its pixels."""
    return {pixels: partial(each.load, image_id) for each in sets for pixels, image_id in each.pictures()}
