"""What can be trained: a model that puts queries and documents into one space, with weights that learn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image as PILImage

from fieldscope.retrieval.progress import Report
from fieldscope.retrieval.training.queries import Reading

Load = Callable[[], PILImage.Image]


class Learner(Protocol):
    """A retriever that learns."""

    @property
    def module(self) -> torch.nn.Module:
        """Its weights; those that require a gradient learn."""
        ...

    def prepare(self, texts: Iterable[str], pictures: Mapping[str, Load], folder: Path, report: Report) -> None:
        """Hear of all texts and pictures (by hash) that will come, once; what is worked out may be kept in `folder`."""
        ...

    def vectors(self, readings: Sequence[Reading]) -> torch.Tensor:
        """L2-normalised vectors, shape (n, dim), with gradients."""
        ...

    def write(self, folder: Path) -> None:
        """Write the folder that an encoder loads, and that training can start from."""
        ...
