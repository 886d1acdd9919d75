"""The universal retriever as it learns. CLIP stays as it is, so its features are worked out once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from fieldscope.core.files import replacing
from fieldscope.core.fingerprint import fingerprint
from fieldscope.retrieval.progress import Report
from fieldscope.retrieval.training.learner import Load
from fieldscope.retrieval.training.queries import Reading
from fieldscope.retrieval.universal_encoder import unit
from fieldscope.retrieval.universal_model import Features, Universal

_CHUNK = 64


class UniversalLearner:
    """A `Universal` as a `Learner`. In memory are CLIP's vectors of all texts and pictures, and each picture's pooled
    patches in 16 bits: 7 kB a picture with the bundled CLIP."""

    def __init__(self, universal: Universal) -> None:
        self._universal = universal
        self._texts: dict[str, int] = {}
        self._pictures: dict[str, int] = {}
        self._of_texts = self._of_pictures = self._patches = torch.empty(0)

    @property
    def module(self) -> torch.nn.Module:
        return self._universal.model

    def prepare(self, texts: Iterable[str], pictures: Mapping[str, Load], folder: Path, report: Report) -> None:
        """CLIP's features of texts and pictures, kept in `folder` under the fingerprint of what they are of."""
        listed = [text for text in dict.fromkeys(texts) if text]
        named = {"clip": self._universal.clip.fingerprint, "texts": listed, "pictures": list(pictures)}
        kept = folder / f"{fingerprint({**named, 'grid': self._universal.model.config.grid})}.safetensors"
        self._texts = {text: row for row, text in enumerate(listed)}
        self._pictures = {picture: row for row, picture in enumerate(pictures)}
        features = _read(kept)
        if features is None:
            features = self._features(listed, list(pictures.values()), report)
            with replacing(kept) as partial:
                save_file(features, partial)
        self._of_texts, self._of_pictures = features["texts"], features["pictures"]
        self._patches = features["patches"]

    def vectors(self, readings: Sequence[Reading]) -> torch.Tensor:
        parts, order = [], []
        for pictured in (False, True):
            rows = [row for row, reading in enumerate(readings) if (reading.picture is not None) == pictured]
            if rows:
                parts.append(self._universal.model(self._batch([readings[row] for row in rows])))
                order += rows
        return torch.cat(parts)[torch.tensor(order).argsort()]

    def write(self, folder: Path) -> None:
        self._universal.write(folder)

    def _batch(self, readings: Sequence[Reading]) -> Features:
        """The features of inputs that all have a picture, or all have none."""
        summed = torch.zeros(len(readings), self._universal.model.config.dim)
        worded = [row for row, reading in enumerate(readings) if reading.text]
        if worded:
            summed[worded] += self._of_texts[[self._texts[readings[row].text] for row in worded]]
        patches = None
        shown = [self._pictures[reading.picture] for reading in readings if reading.picture is not None]
        if shown:
            summed += self._of_pictures[shown]
            patches = self._patches[shown].float()
        instructions = [reading.instruction for reading in readings]
        words, instructed = self._universal.tokens(instructions, [reading.text for reading in readings])
        return Features(words, instructed, summed, patches)

    def _features(self, texts: Sequence[str], pictures: Sequence[Load], report: Report) -> dict[str, torch.Tensor]:
        config, total = self._universal.model.config, len(texts) + len(pictures)
        of_texts = [torch.empty(0, config.dim)]
        for start in range(0, len(texts), _CHUNK):
            report(start, total)
            of_texts.append(torch.from_numpy(self._universal.clip.text_features(texts[start : start + _CHUNK])))
        of_pictures = [torch.empty(0, config.dim)]
        patches = [torch.empty(0, config.grid**2, config.patch_width, dtype=torch.float16)]
        for start in range(0, len(pictures), _CHUNK):
            report(len(texts) + start, total)
            whole, parts = self._universal.clip.patch_features([load() for load in pictures[start : start + _CHUNK]])
            of_pictures.append(torch.from_numpy(whole))
            patches.append(self._universal.pooled(torch.from_numpy(parts)).half())
        report(total, total)
        return {
            "texts": unit(torch.cat(of_texts)),
            "pictures": unit(torch.cat(of_pictures)),
            "patches": torch.cat(patches).contiguous(),
        }


def _read(path: Path) -> dict[str, torch.Tensor] | None:
    """Features that were kept; None where there are none, or the file is broken."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in ("texts", "pictures", "patches")}
    except (OSError, SafetensorError):
        return None
