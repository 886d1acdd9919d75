"""LangGraph Studio: its file points at a factory that needs no argument."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

import service.studio
from agent.deps import Deps
from agent.lmm.scripted import ScriptedLMM
from retrieval.collection import FolderCollection

ROOT = Path(service.studio.__file__).parent.parent


def test_langgraph_json_points_at_the_factory(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wiring = ModuleType("service.wiring")
    deps = Deps(images=FolderCollection(pictures), lmm=ScriptedLMM({}))
    wiring.studio_deps = lambda strategy: deps  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "service.wiring", wiring)
    config = json.loads((ROOT / "langgraph.json").read_text(encoding="utf-8"))
    (target,) = config["graphs"].values()
    path, _, name = target.partition(":")
    assert (ROOT / path).is_file()
    module = importlib.import_module(path.removeprefix("./").removesuffix(".py").replace("/", "."))
    graph = getattr(module, name)()
    assert graph.name == "agent"
    assert {"retrieve", "plan", "verify", "rank"} <= set(graph.nodes)
