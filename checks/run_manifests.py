"""Only `eval/runs` touches a run folder's manifest, and only `retrieval/manifest.py` an index's: no other file of the
product names `manifest.json` in code."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

NAME = "manifest.json"
FOLDERS = ("agent", "cache", "core", "eval", "fieldnotes", "fieldscope", "prompts", "retrieval", "service")
OWNERS = (Path("eval/runs"), Path("retrieval/manifest.py"))


def violations(root: Path) -> list[str]:
    """A line for each place that names the file outside its owners."""
    return [
        f"{file}:{line} names {NAME}; use eval/runs/read.py for a run, retrieval/manifest.py for an index"
        for folder in FOLDERS
        for path in sorted((root / folder).rglob("*.py"))
        if not any((file := path.relative_to(root)).is_relative_to(owner) for owner in OWNERS)
        if NAME in (text := path.read_text(encoding="utf-8"))
        for line in _naming(ast.parse(text))
    ]


def _naming(tree: ast.Module) -> Iterator[int]:
    """The lines of string constants that hold the name, without docstrings."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in docstrings and NAME in str(node.value):
            yield node.lineno


if __name__ == "__main__":
    broken = violations(Path(__file__).resolve().parents[1])
    sys.stdout.writelines(f"{line}\n" for line in broken)
    sys.exit(bool(broken))
