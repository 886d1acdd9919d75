"""The examples of docs/adaptors.md and docs/service.md run as they stand, but for the service's address."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.adaptors.conftest import Expected
from tests.adaptors.test_mteb import Pictures
from tests.clients.served import ROOT, Served, environment

pytestmark = [pytest.mark.adaptors, pytest.mark.timeout(600)]

ADDRESS = "http://localhost:8080"


def blocks(page: str, language: str, after: str = "") -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8").partition(after)[2] if after else ""
    text = text.partition("\n## ")[0] if after else (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.S | re.M)


@pytest.fixture
def folder(expected: Expected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder as the pages have it."""
    (tmp_path / "pictures").symlink_to(expected.pictures)
    (tmp_path / "photos-index").symlink_to(expected.index)
    shutil.copy(expected.paths[0], tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    for name, value in environment(expected.cache).items():
        monkeypatch.setenv(name, value)
    return tmp_path


def test_the_examples_of_the_adaptors(
    served: Served,
    expected: Expected,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    # The program `fieldscope` of this environment, which has MCP's package.
    program = folder / "fieldscope"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m fieldscope "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    task = Pictures()
    task.paths, task.matches = tuple(expected.paths), tuple(expected.order[:2])
    names: dict[str, object] = {"__name__": "__main__", "task": task}
    for block in blocks("adaptors.md", "python"):
        exec(compile(block.replace(ADDRESS, served.url), "docs/adaptors.md", "exec"), names)
    printed = capfd.readouterr().out
    assert printed.count(expected.reasons[expected.order[0]]) >= 3
    assert "harbour" in printed and f'"image": "fieldscope://photos/{expected.found[0]["image"]}"' in printed


@pytest.mark.parametrize("language", ["sh", "python", "js"])
def test_the_calls_of_an_application(served: Served, expected: Expected, folder: Path, language: str) -> None:
    (block,) = blocks("service.md", language, after="\n## From an application\n")
    if language == "js" and shutil.which("node") is None:
        pytest.skip("JavaScript needs node")
    run = {"sh": ["sh", "-e"], "python": [sys.executable], "js": ["node"]}[language]
    script = folder / f"call.{'mjs' if language == 'js' else language}"
    script.write_text(block.replace(ADDRESS, served.url))
    done = subprocess.run([*run, str(script)], capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    for said in (expected.found[0]["image"], expected.reasons[expected.order[0]], "photos", "picture"):
        assert said in done.stdout, done.stdout
