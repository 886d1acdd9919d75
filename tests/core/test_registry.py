"""Parts are found by name among the installed packages, and a broken package affects nothing but its own parts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fieldscope.core.errors import ConfigError
from fieldscope.core.registry import Registry


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry[object]:
    for package, lines in {
        "one": "join = os.path:join\nbroken = no_such_module:part\ntwice = os.path:join",
        "two": "twice = os.path:split",
    }.items():
        info = tmp_path / f"{package}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[fieldscope.tests]\n{lines}\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return Registry("part", "fieldscope.tests")


def test_a_part_is_loaded_by_its_name(registry: Registry[object]) -> None:
    import os

    assert registry.names() == ["broken", "join", "twice"]
    assert "join" in registry and "split" not in registry
    assert registry.load("join") is os.path.join


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("joim", r"unknown part 'joim' \(did you mean 'join'\?\); known: broken, join, twice; install the package"),
        ("broken", r"can't load part 'broken' from the package one \(ModuleNotFoundError: .*\); update or uninstall"),
        ("twice", r"part 'twice' is in several packages \((one, two|two, one)\); uninstall all but one"),
    ],
)
def test_what_cannot_be_loaded_is_explained_in_one_line(registry: Registry[object], name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        registry.load(name)
    assert "\n" not in str(error.value)


def test_a_name_may_have_an_argument(registry: Registry[object]) -> None:
    assert registry.split("join:a:b") == ("join", "a:b")
    assert registry.split("join") == ("join", "")
    assert registry.split("ViT-B-32:openai", "join") == ("join", "ViT-B-32:openai")
