"""A folder of real pictures, and an agent over it that answers from a script."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image as PILImage

from fieldscope.agent.graph import Agent
from fieldscope.agent.lmm.base import LMM
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.core.types import Candidate
from fieldscope.retrieval.collection import FolderCollection

IMAGES = 8

AgentFactory = Callable[..., Agent]


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`0.png` to `7.png`, each of its own colour, and `broken.png`, which is none."""
    folder = tmp_path_factory.mktemp("pictures")
    for n in range(IMAGES):
        PILImage.new("RGB", (8, 8), (30 * n, 100, 200)).save(folder / f"{n}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG no more")
    return folder


@pytest.fixture
def make_agent(pictures: Path) -> AgentFactory:
    """`make_agent(lmm, strategy="yes-no", **deps)`."""

    def make(lmm: LMM | None, strategy: str = "yes-no", **deps: object) -> Agent:
        return Agent(
            Resources(images=FolderCollection(pictures), lmm=lmm, **deps), load_strategy(strategy, prompts="fieldnotes")
        )  # type: ignore[arg-type]

    return make


@pytest.fixture
def candidates() -> tuple[Candidate, ...]:
    """The pictures with falling priors: the prior order is 0, 1, ..., 7."""
    return tuple(Candidate(f"{n}.png", 1.0 - n / 10) for n in range(IMAGES))
