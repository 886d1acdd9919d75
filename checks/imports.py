"""The import rules of the project. The sources are read without running them.

    layers    imports point down only: a layer imports itself and the layers that `LAYERS` lists for it
    circles   no modules import each other in a circle, and no folders do, inside functions or not
    heavy     slow libraries are imported only in the files made for them, inside functions or not
    light     a package's `__init__` imports nothing but the standard library when it is imported
    flat      no module lies in service/ itself

Run as a script, it prints every violation as `file:line: reason` and exits with 1 if there is one.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

NAMESPACE = "fieldscope"

_BOTTOM = frozenset({"core"})
_AGENT = frozenset({"core", "cache", "prompts", "retrieval"})
_EVAL = _AGENT | {"agent"}
_WIRING = _EVAL | {"eval", "fieldnotes"}
_WORKFLOWS = _WIRING | {"service/wiring", "service/metadata"}
_EXPORTS = _WORKFLOWS | {"service/viewer", "service/workflows"}
_SERVER = _EXPORTS | {"service/doctor", "service/exports"}

# A layer, which is a folder, -> the layers that it may import.
LAYERS: dict[str, frozenset[str]] = {
    "core": frozenset(),
    "cache": _BOTTOM,
    "prompts": _BOTTOM,
    "retrieval": _BOTTOM,
    "agent": _AGENT,
    "eval": _EVAL,
    "fieldnotes": frozenset({"core", "retrieval"}),
    "service/metadata": frozenset({"core", "retrieval"}),
    "service/wiring": _WIRING,
    "service/workflows": _WORKFLOWS,
    "service/viewer": _WORKFLOWS,
    "service/doctor": _WIRING | {"service/wiring"},
    "service/exports": _EXPORTS,
    "service/server": _SERVER,
    "service/adaptors": _SERVER | {"service/server"},
    "service/cli": _SERVER | {"service/server", "service/adaptors"},
    "fieldscope": _WORKFLOWS | {"service/workflows"},
}

_TRAINING = "fieldnotes/training/*.py"
_LOCAL_MODEL = ("agent/lmm/checkpoint.py", "agent/lmm/local.py", "agent/lmm/shared_prefix.py")
_ENCODERS = ("retrieval/sentence_models.py", "retrieval/transformers_clip.py")
_UNIVERSAL = ("retrieval/universal_model.py", "retrieval/universal_encoder.py", "retrieval/training/*.py")
_TENSORS = ("agent/lmm/model_inputs.py", "agent/lmm/prefix.py", "agent/lmm/lanes.py")

# A slow or confined library -> the files (patterns) that may import it.
HEAVY: dict[str, tuple[str, ...]] = {
    "torch": ("core/compat.py", "retrieval/clip.py", *_ENCODERS, *_UNIVERSAL, *_LOCAL_MODEL, *_TENSORS, _TRAINING),
    "torchvision": (),
    "open_clip": ("retrieval/clip.py", _TRAINING),
    "sentence_transformers": ("retrieval/sentence_models.py",),  # an extra
    "transformers": (*_ENCODERS, *_LOCAL_MODEL, "fieldnotes/vocabulary.py", _TRAINING),
    "peft": ("retrieval/training/clip_learner.py",),  # an extra
    "pillow_heif": ("retrieval/formats.py",),  # an extra
    "faiss": ("retrieval/faiss_index.py", "retrieval/inverted_lists.py"),
    "lancedb": ("retrieval/lance_index.py",),  # an extra
    "openai": ("agent/lmm/connection.py",),
    "datasets": ("eval/benchmarks/inquire_hub.py",),
    "ray": ("service/wiring/cluster.py",),  # an extra
    "click": ("service/cli/*.py",),
    "opentelemetry": ("service/server/api/telemetry.py",),  # an extra
    "prometheus_client": ("service/server/api/metrics.py",),
    "langchain_core": ("agent/graph.py", "service/wiring/studio.py", "service/adaptors/langchain.py"),
    "llama_index": ("service/adaptors/llama_index.py",),  # an extra
    "mcp": ("service/adaptors/mcp.py",),  # an extra
    "mteb": ("service/adaptors/mteb.py",),  # an extra
}

_DYNAMIC_IMPORTS = frozenset({"import_module", "__import__"})
_ENTRY = "fieldscope/__main__.py"  # starts the command line


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
    """One import of a module by its absolute name. `at_import` is true if it runs when the file itself is imported."""

    module: str
    line: int
    at_import: bool

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]


def check_tree(root: Path) -> list[Violation]:
    """Every violation in the layers under `root`, in order of file and line."""
    files = [path for folder in sorted(_tops()) for path in sorted((root / folder).rglob("*.py"))]
    modules = {_module(root, path): path.relative_to(root).as_posix() for path in files}
    arrows = {path: imports_of(path.read_text(encoding="utf-8"), path.relative_to(root).as_posix()) for path in files}
    violations = [violation for path in files for violation in _check_file(root, path, arrows[path])]
    violations += _circles({path.relative_to(root).as_posix(): arrows[path] for path in files}, modules)
    return sorted(dict.fromkeys(violations), key=lambda violation: (violation.file, violation.line, violation.reason))


def layer_of(file: str) -> str:
    """The layer of a file, relative to the root; its first folder if it is in no layer."""
    parts = file.split("/")
    two = "/".join(parts[:2])
    return two if two in LAYERS else parts[0]


def imports_of(source: str, file: str) -> list[Import]:
    """What a file imports, relative names resolved: statements, and calls of `import_module` and `__import__`.

    `from package import name` counts as `package.name`, which may be a module or an object in one."""
    package = [NAMESPACE, *file.split("/")[:-1]]
    if package[1:2] == [NAMESPACE]:
        package = package[1:]
    return sorted(_walk(ast.parse(source, file), package, at_import=True), key=lambda one: one.line)


def _tops() -> set[str]:
    return {layer.partition("/")[0] for layer in LAYERS}


def _module(root: Path, path: Path) -> str:
    parts = list(path.relative_to(root).with_suffix("").parts)
    if parts[-1] == "__init__":
        del parts[-1]
    return ".".join(parts if parts[0] == NAMESPACE else [NAMESPACE, *parts])


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
        base = package[: len(package) - node.level + 1] if node.level else []
        module = ".".join([*base, *([node.module] if node.module else [])])
        return [f"{module}.{alias.name}" for alias in node.names] if module.split(".")[0] == NAMESPACE else [module]
    if isinstance(node, ast.Call) and node.args:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        name = node.args[0]
        if called in _DYNAMIC_IMPORTS and isinstance(name, ast.Constant) and isinstance(name.value, str):
            return [".".join(package) if name.value.startswith(".") else name.value]
    return []


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _check_file(root: Path, path: Path, imports: list[Import]) -> Iterator[Violation]:
    file = path.relative_to(root).as_posix()
    if file.startswith("service/") and file.count("/") == 1 and not file.endswith("/__init__.py"):
        yield Violation(file, 1, "is directly in service/; move it into one of its folders")
    for one in imports:
        for reason in _reasons(file, one):
            yield Violation(file, one.line, reason)


def _reasons(file: str, imported: Import) -> Iterator[str]:
    layer = layer_of(file)
    if imported.top == NAMESPACE and file != _ENTRY:
        target = layer_of("/".join([*imported.module.split(".")[1:], ""]) if "." in imported.module else "fieldscope/")
        target = target if target in LAYERS or target in _tops() else "fieldscope"
        if target not in (layer, layer.partition("/")[0]) and target not in LAYERS[layer]:
            allowed = ", ".join(sorted(LAYERS[layer])) or "no other layer"
            yield f"{layer} imports {target} ({imported.module}); {layer} may import {allowed}"
    if imported.top in HEAVY and not any(fnmatch(file, pattern) for pattern in HEAVY[imported.top]):
        files = ", ".join(HEAVY[imported.top]) or "no file"
        yield f"imports {imported.module}; {imported.top} may be imported only in {files}"
    if imported.top in _tops() - {NAMESPACE}:
        yield f"imports {imported.module}; its name is {NAMESPACE}.{imported.module}"
    if file.endswith("/__init__.py") and imported.at_import and imported.top not in sys.stdlib_module_names:
        yield f"imports {imported.module}; a package's __init__ imports lazily (PEP 562) or nothing"


def _circles(imports: Mapping[str, list[Import]], modules: Mapping[str, str]) -> Iterator[Violation]:
    """Circles of modules, and circles of folders that are not within each other."""
    files: dict[str, set[str]] = defaultdict(set)
    folders: dict[str, set[str]] = defaultdict(set)
    for file, imported in imports.items():
        for one in imported:
            target = modules.get(one.module) or modules.get(one.module.rpartition(".")[0])
            if target is None or target == file:
                continue
            files[file].add(target)
            here, there = (name.rpartition("/")[0] for name in (file, target))
            if not (f"{here}/".startswith(f"{there}/") or f"{there}/".startswith(f"{here}/")):
                folders[here].add(there)
    for arrows in (files, folders):
        for circle in _components(arrows):
            names = sorted(circle)
            yield Violation(names[0], 1, f"imports in a circle: {' <-> '.join(names)}")


def _components(arrows: Mapping[str, set[str]]) -> list[set[str]]:
    """The sets of nodes that reach each other."""
    reach = {node: _reached(node, arrows) for node in arrows}
    circles: list[set[str]] = []
    for node, reached in reach.items():
        if node in reached and not any(node in circle for circle in circles):
            circles.append({node} | {other for other in reached if node in reach.get(other, set())})
    return circles


def _reached(start: str, arrows: Mapping[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    waiting = list(arrows.get(start, ()))
    while waiting:
        node = waiting.pop()
        if node not in reached:
            reached.add(node)
            waiting += arrows.get(node, ())
    return reached


def main() -> int:
    """Check the repository that this file lies in. Returns the exit status."""
    violations = check_tree(Path(__file__).resolve().parent.parent)
    for violation in violations:
        print(violation)
    print(f"{len(violations)} import violations" if violations else "imports point down, and none goes in a circle")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
