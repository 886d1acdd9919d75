"""Training in a process that may be killed. Imported by the fork server, so that each process starts at once."""

from __future__ import annotations

from pathlib import Path

from fieldscope.core.compat import prepare_torchvision

prepare_torchvision()

import torch  # noqa: E402 - torchvision underneath must be prepared first

from fieldscope.retrieval.training import stages, universal_learner  # noqa: E402
from fieldscope.retrieval.training.trainer import Plan  # noqa: E402
from fieldscope.service.workflows.train_retriever import train_retriever  # noqa: E402

IMPORTED = (stages, universal_learner)
PLAN = Plan(steps=40, text_steps=40, batch=8, checkpoint_every=5)


def train(data: Path, clip: Path, out: Path) -> None:
    """All three stages."""
    torch.set_num_threads(1)
    assert [stage.name for stage in train_retriever(data, out, PLAN, clip=clip, texts=data)][-1] == "texts"
