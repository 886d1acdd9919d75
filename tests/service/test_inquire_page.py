"""Every command of docs/inquire.md, as one would type it, on small files in INQUIRE's published layouts."""

from __future__ import annotations

import pickle
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from fieldscope.eval.benchmarks.inquire_models import PUBLISHED
from fieldscope.retrieval.clip import ClipEncoder
from tests.service.conftest import CRABS, FOX, OWL, SCENES, Run, Server, World
from tests.service.inquire_files import PATHS, fullrank, parquet, publish
from tests.service.seeded_encoders import SeededEncoder

PAGE = Path(__file__).parents[2] / "docs" / "inquire.md"
TEMPLATE = "USER: <image>\nDoes this picture show {}?\nASSISTANT:"


def commands() -> Iterator[list[str]]:
    """The command lines of the page, in their order, without `fieldscope`."""
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            assert words[:1] in ([], ["fieldscope"]), f"{line!r} is no command of Fieldscope's"
            if words:
                yield words[1:]


@pytest.fixture
def files(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with all files that the page names, made of FieldNotes' pictures, and encoders of random weights
    in the place of open_clip's."""
    monkeypatch.setattr(ClipEncoder, "load", staticmethod(SeededEncoder))
    rerank = parquet(tmp_path / "INQUIRE-Rerank", world)
    test = rerank / "test-00000-of-00001.parquet"
    shutil.copy(test, rerank / "validation-00000-of-00001.parquet")
    (world.cache / "inquire-rerank").mkdir()
    shutil.copy(test, world.cache / "inquire-rerank")  # what a fetch by name leaves there
    data = fullrank(tmp_path / "data", world)
    publish(data, world, {folder: model.names[0] for folder, model in PUBLISHED.items()})
    (tmp_path / "mine.txt").write_text(f"{OWL}\nq000\n", encoding="utf-8")
    (tmp_path / "broken.txt").write_text(f"{FOX}\n", encoding="utf-8")
    names = sorted(set(pq.read_table(test, columns=["inat24_file_name"])["inat24_file_name"].to_pylist()))
    answers = {f"{name}--{TEMPLATE.format(text)}": 0.1 + n / 20 for n, name in enumerate(names) for text in TEXTS}
    np.save(tmp_path / "llava-hf--llava-v1.6-34b-hf--cache.npy", np.array(answers, dtype=object))
    lists = [
        {
            "query": text,
            "distances": torch.linspace(0.4, 0.1, len(SCENES)),
            "indices": torch.arange(len(SCENES)),
            "matches": [{"image_path": path.removesuffix(".jpg")} for path in PATHS.values()],
        }
        for text in TEXTS
    ]
    (tmp_path / "vit-h-14-378--top-1000.pkl").write_bytes(pickle.dumps(lists))
    return tmp_path


TEXTS = (CRABS, OWL, FOX)


def test_the_page_has_the_commands_that_matter() -> None:
    several = [words for words in commands() if "--encoder" in words and len(encoders_of(words)) == 3]
    assert {words[1] for words in several} == {"INQUIRE-Rerank", "data"}
    assert {words[0] for words in commands()} == {"eval", "compare", "index", "published"}


def encoders_of(words: list[str]) -> list[str]:
    named = words[words.index("--encoder") + 1 :]
    return named[: next((n for n, word in enumerate(named) if word.startswith("-")), len(named))]


@pytest.mark.slow
def test_every_command_of_the_page_runs_as_typed(run: Run, files: Path, server: Server) -> None:
    typed = {"http://localhost:8000": server.url, "NAME": "vl"}
    for words in commands():
        result = run(*(typed.get(word, word) for word in words))
        assert result.exit_code == 0, f"{shlex.join(words)}\n{result.output}"
        if "--encoder" in words and words[0] == "eval":
            assert all(encoder in result.output for encoder in encoders_of(words)), result.output
    expected: dict[str, Any] = {
        "runs/INQUIRE-Rerank-test": 5,
        "runs/models": 6,
        "runs/mine": 1,
        "runs/llava": 2,
        "runs/two-stages": 1,
    }
    for folder, least in expected.items():
        assert len(list((files / folder).glob("*/metrics.json"))) >= least, folder
