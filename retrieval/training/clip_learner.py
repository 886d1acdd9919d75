"""A CLIP of transformers as it learns: CLIP_SF, all weights or low-rank adapters (LoRA) beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fieldscope.core.errors import ConfigError, first_line
from fieldscope.retrieval.progress import Report
from fieldscope.retrieval.training.learner import Load
from fieldscope.retrieval.training.queries import Reading
from fieldscope.retrieval.transformers_clip import load_clip, text_inputs

_ALPHA = 8  # of LoRA, for each rank: the paper has 64 for rank 8


class ClipLearner:
    """A `Learner` whose vectors are the normalised sums of the towers' vectors of words and picture, as `ClipSf` has
    them, an instruction before the words. With `lora` the weights stay, and adapters of this rank learn; the written
    folder holds the two merged. Pictures are read again at each step."""

    def __init__(self, folder: Path, lora: int | None = None) -> None:
        """Load the model in a folder. Raises `ConfigError`, also where peft is not installed."""
        self._model, self._processor = load_clip(folder)
        self._config = self._model.config
        self._pictures: Mapping[str, Load] = {}
        self._module: Any = self._model if lora is None else _adapted(self._model, lora)

    @property
    def module(self) -> torch.nn.Module:
        module: torch.nn.Module = self._module
        return module

    def prepare(self, texts: Iterable[str], pictures: Mapping[str, Load], folder: Path, report: Report) -> None:
        self._pictures = pictures

    def vectors(self, readings: Sequence[Reading]) -> torch.Tensor:
        words = [" ".join(part for part in (each.instruction, each.text) if part) for each in readings]
        worded = [row for row, each in enumerate(readings) if words[row] or each.picture is None]
        shown = [row for row, each in enumerate(readings) if each.picture is not None]
        found: list[tuple[list[int], torch.Tensor]] = []
        if worded:
            inputs = text_inputs(self._processor, self._config, [words[row] for row in worded])
            found.append((worded, self._model.get_text_features(**inputs).pooler_output))
        if shown:
            images = [self._pictures[str(readings[row].picture)]() for row in shown]
            inputs = self._processor(images=images, return_tensors="pt")
            found.append((shown, self._model.get_image_features(**inputs).pooler_output))
        sums = torch.zeros(len(readings), found[0][1].shape[1])
        for rows, features in found:
            sums = sums.index_add(0, torch.tensor(rows), features)
        return torch.nn.functional.normalize(sums, dim=-1)

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        merged = self._module.merge_and_unload() if self._module is not self._model else self._model
        merged.save_pretrained(folder)
        self._processor.save_pretrained(folder)


def _adapted(model: Any, rank: int) -> Any:
    """The model with adapters at all linear layers."""
    try:
        import peft
    except ImportError as error:
        raise ConfigError(
            f"LoRA needs the package peft ({first_line(error)}); install it with pip install 'fieldscope[train]'"
        ) from error
    return peft.get_peft_model(
        model, peft.LoraConfig(r=rank, lora_alpha=_ALPHA * rank, lora_dropout=0.0, target_modules="all-linear")
    )
