"""The import check: it passes on this tree, and it catches each violation that is planted in another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from checks.imports import HEAVY, LAYERS, check_tree, imports_of, layer_of

ROOT = Path(__file__).resolve().parents[2]


def reasons(tmp_path: Path, file: str, source: str) -> list[str]:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, encoding="utf-8")
    return [str(violation) for violation in check_tree(tmp_path)]


@pytest.mark.slow  # `make check` does it
def test_this_tree_keeps_the_rules() -> None:
    assert check_tree(ROOT) == []


def test_every_package_belongs_to_a_layer() -> None:
    files = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("*/__init__.py")]
    files += [path.relative_to(ROOT).as_posix() for path in ROOT.glob("service/*/__init__.py")]
    assert {layer_of(file) for file in files} == {*LAYERS, "service"}


def test_layers_have_no_circle() -> None:
    done: set[str] = set()
    while rest := set(LAYERS) - done:
        ready = {layer for layer in rest if LAYERS[layer] <= done}
        assert ready, f"a circle among {sorted(rest)}"
        done |= ready


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("core/types.py", "import fieldscope.retrieval.collection"),
        ("core/types.py", "from fieldscope.agent.lmm.base import LMM"),
        ("agent/graph.py", "from fieldscope.eval.types import Qrels"),
        ("agent/graph.py", "def late():\n    from fieldscope.fieldnotes import scene"),
        ("agent/nodes/verify.py", "import importlib\n\nimportlib.import_module('fieldscope.service.wiring.models')"),
        ("retrieval/index.py", "import fieldscope.cache.store"),
        (
            "prompts/load.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from fieldscope.agent.types import Predicate",
        ),
        ("eval/harness.py", "from fieldscope.fieldnotes.scene import Scene"),
        ("fieldnotes/queries.py", "from fieldscope.eval.types import Qrels"),
        ("eval/harness.py", "from fieldscope.service.wiring import models"),
        ("service/wiring/models.py", "from fieldscope.service.workflows import rerank"),
        ("service/workflows/rerank.py", "from fieldscope.service.cli.console import show"),
        ("service/viewer/site.py", "from fieldscope.service.workflows.rerank import rerank_once"),
        ("service/server/app.py", "from fieldscope.service.cli import console"),
        ("core/types.py", "import fieldscope"),
        ("core/types.py", "import retrieval.collection"),
    ],
)
def test_an_import_that_points_up_is_caught(tmp_path: Path, file: str, source: str) -> None:
    found = reasons(tmp_path, file, source)
    assert len(found) == 1
    assert found[0].startswith(f"{file}:{len(source.splitlines())}: ")


@pytest.mark.parametrize("library", sorted(HEAVY))
@pytest.mark.parametrize("source", ["import {0}", "def late():\n    from {0}.part import thing", "__import__('{0}')"])
def test_a_heavy_import_outside_its_files_is_caught(tmp_path: Path, library: str, source: str) -> None:
    assert len(reasons(tmp_path, "service/server/app.py", source.format(library))) == 1


@pytest.mark.parametrize("library", sorted(library for library, files in HEAVY.items() if files))
def test_a_heavy_import_in_its_file_is_allowed(tmp_path: Path, library: str) -> None:
    file = HEAVY[library][0].replace("*", "step")
    assert reasons(tmp_path, file, f"import {library}") == []


@pytest.mark.parametrize(
    "source",
    [
        "from .types import Query",
        "import numpy as np",
        "try:\n    import pydantic\nexcept ImportError:\n    raise",
        "class Holder:\n    from fieldscope.core.types import Query",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    pass\nelse:\n    import pydantic",
    ],
)
def test_a_package_that_imports_as_it_is_imported_is_caught(tmp_path: Path, source: str) -> None:
    assert len(reasons(tmp_path, "core/__init__.py", source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        '"""A docstring."""\n__all__: list[str] = []',
        "import importlib\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from fieldscope.core.types import Query",
        "def __getattr__(name: str) -> object:\n    from fieldscope.core import types\n    return getattr(types, name)",
    ],
)
def test_a_light_package_is_allowed(tmp_path: Path, source: str) -> None:
    assert reasons(tmp_path, "core/__init__.py", source) == []


def test_relative_imports_are_resolved() -> None:
    source = (
        "from . import base\nfrom ..types import Verdict\nfrom ...core import errors\nfrom .openai import OpenAILMM"
    )
    modules = [found.module for found in imports_of(source, "agent/lmm/cached.py")]
    assert modules == [
        "fieldscope.agent.lmm.base",
        "fieldscope.agent.types.Verdict",
        "fieldscope.core.errors",
        "fieldscope.agent.lmm.openai.OpenAILMM",
    ]


def test_a_folder_named_like_a_library_is_not_that_library(tmp_path: Path) -> None:
    assert reasons(tmp_path, "agent/graph.py", "from fieldscope.agent.lmm.openai import OpenAILMM") == []


def test_importing_the_packages_imports_nothing_heavy() -> None:
    packages = sorted(
        ".".join(["fieldscope", *path.parent.relative_to(ROOT).parts])
        for folder in {layer.partition("/")[0] for layer in LAYERS} - {"fieldscope"}
        for path in (ROOT / folder).rglob("__init__.py")
    )
    heavy = [*sorted(HEAVY), "numpy", "pydantic"]
    code = f"import sys, {', '.join(packages)}; print(*sorted(set({heavy}) & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.split() == []


def test_a_module_that_lies_flat_in_the_service_is_caught(tmp_path: Path) -> None:
    (found,) = reasons(tmp_path, "service/wiring.py", "")
    assert found.startswith("service/wiring.py:1: is directly in service/")


def test_a_circle_of_modules_is_caught_even_inside_functions(tmp_path: Path) -> None:
    reasons(tmp_path, "agent/one.py", "from fieldscope.agent.two import thing")
    (found,) = reasons(tmp_path, "agent/two.py", "def late():\n    from fieldscope.agent import one")
    assert "agent/one.py <-> agent/two.py" in found


def test_a_circle_of_folders_is_caught(tmp_path: Path) -> None:
    reasons(tmp_path, "eval/runs/read.py", "")
    reasons(tmp_path, "eval/measures/metrics.py", "from fieldscope.eval.runs.read import x")
    reasons(tmp_path, "eval/measures/other.py", "")
    (found,) = reasons(tmp_path, "eval/runs/write.py", "from fieldscope.eval.measures import other")
    assert "eval/measures <-> eval/runs" in found
