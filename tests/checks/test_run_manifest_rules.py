"""The rule that only `eval/runs` touches a run folder's manifest."""

from __future__ import annotations

from pathlib import Path

import pytest

from checks.run_manifests import violations


@pytest.mark.parametrize(
    ("file", "source", "broken"),
    [
        ("service/viewer/page.py", 'path = folder / "manifest.json"', True),
        ("service/viewer/page.py", 'text = f"{folder}/manifest.json"', True),
        ("service/viewer/page.py", '"""Reads no manifest.json."""', False),
        ("eval/runs/read.py", 'MANIFEST = "manifest.json"', False),
        ("eval/harness.py", 'MANIFEST = "manifest.json"', True),
        ("retrieval/manifest.py", 'NAME = "manifest.json"', False),
        ("retrieval/captions.py", 'NAME = "manifest.json"', True),
    ],
)
def test_who_may_name_the_file(tmp_path: Path, file: str, source: str, broken: bool) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(f"{source}\n")
    lines = violations(tmp_path)
    assert [line.partition(" ")[0] for line in lines] == ([f"{file}:1"] if broken else [])


def test_the_product_keeps_the_rule() -> None:
    assert violations(Path(__file__).resolve().parents[2]) == []
