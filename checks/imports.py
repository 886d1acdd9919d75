"""The import rules of the house, read from the sources without running them.

    rooms     imports point down only: a room imports itself and the rooms that `ROOMS` lists for it
    heavy     slow libraries are imported only in the files made for them, inside functions or not
    light     a package's `__init__` imports nothing but the standard library when it is imported

Run as a script, it prints every violation as `file:line: reason` and exits with 1 where there is one.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

# A room -> the rooms that it may import.
ROOMS: dict[str, frozenset[str]] = {
    "core": frozenset(),
    "cache": frozenset({"core"}),
    "prompts": frozenset({"core"}),
    "retrieval": frozenset({"core"}),
    "agent": frozenset({"core", "cache", "prompts", "retrieval"}),
    "eval": frozenset({"core", "cache", "prompts", "retrieval", "agent"}),
    "fieldnotes": frozenset({"core", "retrieval"}),
    "service": frozenset({"core", "cache", "prompts", "retrieval", "agent", "eval", "fieldnotes"}),
}

_TRAINING = "fieldnotes/training/*.py"
_LOCAL_MODEL = ("agent/lmm/checkpoint.py", "agent/lmm/local.py")

# A slow library -> the files (patterns) that may import it.
HEAVY: dict[str, tuple[str, ...]] = {
    "torch": ("core/compat.py", "retrieval/clip.py", *_LOCAL_MODEL, "agent/lmm/prefix.py", _TRAINING),
    "torchvision": (),
    "open_clip": ("retrieval/clip.py", _TRAINING),
    "transformers": (*_LOCAL_MODEL, "fieldnotes/vocabulary.py", _TRAINING),
    "faiss": ("retrieval/faiss_index.py",),
    "openai": ("agent/lmm/openai.py",),
    "datasets": ("eval/benchmarks/inquire_hub.py",),
    "ray": (),
    "opentelemetry": ("service/server/api/telemetry.py",),  # an extra
    "prometheus_client": ("service/server/api/metrics.py",),
}

_DYNAMIC_IMPORTS = frozenset({"import_module", "__import__"})


@dataclass(frozen=True)
class Violation:
    """One broken rule: the file relative to the root, the line (from 1), and what is wrong with it."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


@dataclass(frozen=True)
class Import:
    """One import of a module by its absolute name. `at_import` is true where it runs as the file itself is imported."""

    module: str
    line: int
    at_import: bool

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]


def check_tree(root: Path) -> list[Violation]:
    """Every violation in the rooms under `root`, in order of file and line."""
    files = [path for room in sorted(ROOMS) for path in sorted((root / room).rglob("*.py"))]
    return [violation for path in files for violation in check_file(root, path)]


def check_file(root: Path, path: Path) -> list[Violation]:
    """The violations of one file, which must lie in a room under `root`."""
    file = path.relative_to(root).as_posix()
    found = (
        Violation(file, found.line, reason)
        for found in sorted(imports_of(path.read_text(encoding="utf-8"), file), key=lambda one: one.line)
        for reason in _reasons(file, found)
    )
    return list(dict.fromkeys(found))


def imports_of(source: str, file: str) -> list[Import]:
    """What a file imports, relative names resolved: statements, and calls of `import_module` and `__import__`."""
    package = file.split("/")[:-1]
    return list(_walk(ast.parse(source, file), package, at_import=True))


def _walk(node: ast.AST, package: list[str], at_import: bool) -> Iterator[Import]:
    for module in _modules(node, package):
        yield Import(module, getattr(node, "lineno", 1), at_import)
    in_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    # `else:` of `if TYPE_CHECKING:` does run at import.
    for_types = list(node.body) if isinstance(node, ast.If) and _is_type_checking(node.test) else []
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, package, at_import and not in_function and child not in for_types)


def _modules(node: ast.AST, package: list[str]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return _from_modules(node, package)
    if isinstance(node, ast.Call) and node.args:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        name = node.args[0]
        if called in _DYNAMIC_IMPORTS and isinstance(name, ast.Constant) and isinstance(name.value, str):
            return [".".join(package) if name.value.startswith(".") else name.value]
    return []


def _from_modules(node: ast.ImportFrom, package: list[str]) -> list[str]:
    if not node.level:
        return [node.module or ""]
    base = package[: len(package) - node.level + 1]
    if node.module:
        return [".".join([*base, node.module])]
    return [".".join([*base, alias.name]) for alias in node.names]


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _reasons(file: str, found: Import) -> Iterator[str]:
    room = file.partition("/")[0]
    if found.top in ROOMS and found.top != room and found.top not in ROOMS[room]:
        allowed = ", ".join(sorted(ROOMS[room])) or "no other room"
        yield f"{room} imports {found.module}; {room} may import {allowed}"
    if found.top in HEAVY and not any(fnmatch(file, pattern) for pattern in HEAVY[found.top]):
        yield f"imports {found.module}; {found.top} may be imported only in {', '.join(HEAVY[found.top]) or 'no room'}"
    if file.endswith("/__init__.py") and found.at_import and found.top not in sys.stdlib_module_names:
        yield f"imports {found.module}; a package's __init__ imports lazily (PEP 562) or nothing"


def main() -> int:
    """Check the repository that this file lies in. Returns the exit status."""
    violations = check_tree(Path(__file__).resolve().parent.parent)
    for violation in violations:
        print(violation)
    print(f"{len(violations)} import violations" if violations else "imports point down")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
