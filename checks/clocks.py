"""The quick tests depend on no clock. Their sources are read without running them.

    sleeps      no `time.sleep`, no `threading.Timer`, and no `asyncio.sleep` of anything but 0
    clocks      no clock of `time`, and no time of a reply (`.elapsed`)
    patience    waits for an event last `PATIENCE`, and never a literal number below that

A test that breaks a rule fails on a busy machine. Measure speed in `checks/` and in tests that `make test` leaves out.

Run as a script, it prints every violation as `file:line: reason` and exits with 1 if there is one.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from checks.imports import Violation

MARKS = frozenset({"slow", "ui", "clients", "vllm", "studio"})
"""Folders of `tests/`, and pytest's marks, that `make test` leaves out."""

LEAST = 30.0
"""Seconds; a shorter literal timeout may fail on a busy machine."""

_CLOCKS = frozenset({"time", "monotonic", "perf_counter", "process_time", "thread_time"})
_WAITS = frozenset({"asyncio.timeout", "asyncio.wait_for", "wait", "join", "communicate", "result"})


def check_tree(root: Path) -> list[Violation]:
    """Every violation in the quick tests under `root`, in order of file and line."""
    files = sorted((root / "tests").rglob("*.py"))
    return [violation for path in files if not _is_left_out(root, path) for violation in check_file(root, path)]


def check_file(root: Path, path: Path) -> list[Violation]:
    """The violations of one file."""
    file = path.relative_to(root).as_posix()
    tree = ast.parse(path.read_text(encoding="utf-8"), file)
    if any(_names_marks(node) for node in tree.body):
        return []
    names = _imported(tree)
    reasons = {(getattr(node, "lineno", 1), reason) for node in _quick(tree) if (reason := _reason(node, names))}
    return [Violation(file, line, reason) for line, reason in sorted(reasons)]


def _is_left_out(root: Path, path: Path) -> bool:
    return bool(MARKS & set(path.relative_to(root / "tests").parts[:-1]))


def _names_marks(node: ast.AST) -> bool:
    """Whether this is the `pytestmark` of a file that `make test` leaves out."""
    if not isinstance(node, ast.Assign) or "pytestmark" not in [getattr(name, "id", "") for name in node.targets]:
        return False
    return _is_mark(node.value)


def _is_marked(node: ast.AST) -> bool:
    """Whether a decorator keeps this test, or class of tests, from `make test`."""
    tests = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return isinstance(node, tests) and any(map(_is_mark, node.decorator_list))


def _is_mark(node: ast.AST) -> bool:
    return any(isinstance(part, ast.Attribute) and part.attr in MARKS for part in ast.walk(node))


def _quick(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that `make test` runs."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not _is_marked(child):
            yield from _quick(child)


def _imported(tree: ast.AST) -> dict[str, str]:
    """Imported name -> its full name: a module, or an object in one."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name: alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _reason(node: ast.AST, names: dict[str, str]) -> str | None:
    if isinstance(node, ast.Attribute) and node.attr == "elapsed":
        return "measures time; move the check of the speed into checks/"
    meant = _meant(node, names)
    module, _, name = meant.rpartition(".")
    if meant in ("time.sleep", "threading.Timer"):
        return f"{meant} waits for time; wait for an event instead (tests/waiting.py)"
    if module == "time" and name.removesuffix("_ns") in _CLOCKS:
        return f"{meant} reads the clock; wait for an event, or move the check of a speed into checks/"
    return _reason_of_call(node, _meant(node.func, names)) if isinstance(node, ast.Call) else None


def _reason_of_call(call: ast.Call, called: str) -> str | None:
    if called in ("asyncio.sleep", "anyio.sleep") and [_number(argument) for argument in call.args] != [0]:
        return f"{called} waits for time; wait for an event instead (tests/waiting.py)"
    if called in _WAITS or (isinstance(call.func, ast.Attribute) and call.func.attr in _WAITS):
        waits = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "timeout")]
        if any((number := _number(argument)) is not None and number < LEAST for argument in waits):
            return "waits too short for a busy machine; wait for PATIENCE (tests/waiting.py)"
    return None


def _meant(node: ast.AST, names: dict[str, str]) -> str:
    """`time.sleep` for `sleep`, `t.sleep` and `time.sleep`, by the file's imports; "" for other expressions."""
    if isinstance(node, ast.Name):
        return names.get(node.id, "")
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names:
        return f"{names[node.value.id]}.{node.attr}"
    return ""


def _number(node: ast.expr) -> float | None:
    value = node.value if isinstance(node, ast.Constant) else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def main() -> int:
    """Check the repository that this file lies in. Returns the exit status."""
    violations = check_tree(Path(__file__).resolve().parent.parent)
    for violation in violations:
        print(violation)
    print(f"{len(violations)} quick tests depend on a clock" if violations else "no quick test depends on a clock")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
