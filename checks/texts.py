"""What a string expression of the sources says, without running it: placeholders are rendered as `{name}`.

Constants of a module are followed through imports, and so are local variables and small functions that make a text.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

PRODUCT = ("core", "cache", "prompts", "retrieval", "agent", "eval", "fieldnotes", "fieldscope", "service")
"""The folders whose texts a user reads."""

_DEEPEST = 4  # functions and variables followed within each other
_WORD = re.compile(r"[A-Za-z][a-z']+")
_PLACEHOLDER = re.compile(r"\{[^{}]*\}")
_PLAIN = frozenset({"str", "repr", "shlex.quote", "one_line", "first_line", "shown", "sorted", "list", "program"})

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Scope:
    """Where an expression stands: its file, the functions around it (innermost first), and arguments that are known."""

    file: str
    functions: tuple[Function, ...] = ()
    arguments: Mapping[str, str] = field(default_factory=dict)
    depth: int = 0


@dataclass(frozen=True)
class Sources:
    """The parsed sources of the product: a file relative to the root -> its tree."""

    trees: Mapping[str, ast.Module]

    @classmethod
    def read(cls, root: Path) -> Sources:
        """All Python files of the product below `root`."""
        files = [path for folder in PRODUCT for path in sorted((root / folder).rglob("*.py"))]
        return cls({path.relative_to(root).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in files})

    @cached_property
    def constants(self) -> dict[tuple[str, str], ast.expr]:
        """(file, name) -> the value of a module's constant."""
        constants: dict[tuple[str, str], ast.expr] = {}
        for file, tree in self.trees.items():
            for node in tree.body:
                value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
                for target in _targets(node):
                    if isinstance(target, ast.Name) and value is not None:
                        constants[file, target.id] = value
        return constants

    @cached_property
    def functions(self) -> dict[tuple[str, str], Function]:
        """(file, name) -> a module's function."""
        return {
            (file, node.name): node
            for file, tree in self.trees.items()
            for node in tree.body
            if isinstance(node, Function)
        }

    @cached_property
    def imports(self) -> dict[tuple[str, str], tuple[str, str]]:
        """(file, name) -> the product's file and the name in it that an import brings."""
        imports: dict[tuple[str, str], tuple[str, str]] = {}
        for file, nodes in self.nodes.items():
            for node, _ in nodes:
                if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("fieldscope."):
                    source = node.module.removeprefix("fieldscope.").replace(".", "/") + ".py"
                    imports |= {(file, alias.asname or alias.name): (source, alias.name) for alias in node.names}
        return imports

    def meaning(self, file: str, name: str) -> tuple[str, str]:
        """Where a name of a file is defined: the file, and its name there."""
        return self.imports.get((file, name), (file, name))

    @cached_property
    def nodes(self) -> dict[str, list[tuple[ast.AST, Scope]]]:
        """A file -> every node of it with its scope."""
        nodes: dict[str, list[tuple[ast.AST, Scope]]] = {}
        for file, tree in self.trees.items():
            waiting: list[tuple[ast.AST, Scope]] = [(tree, Scope(file))]
            nodes[file] = waiting
            for node, scope in waiting:  # grows as it goes
                inside = Scope(file, (node, *scope.functions)) if isinstance(node, Function) else scope
                waiting += [(child, inside) for child in ast.iter_child_nodes(node)]
        return nodes

    def text(self, node: ast.expr, scope: Scope) -> str:
        """The text that an expression makes; what only a run knows is `{name}`."""
        match node:
            case ast.Constant(value=str(text)):
                return text
            case ast.JoinedStr(values=parts):
                return "".join(self.text(part, scope) for part in parts)
            case ast.FormattedValue(value=value):
                return self.text(value, scope)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return self.text(left, scope) + self.text(right, scope)
            case ast.IfExp(body=body, orelse=orelse):
                return self.text(body, scope) or self.text(orelse, scope)
            case ast.Name(id=name):
                return self._of_name(name, scope)
            case ast.Subscript(value=ast.Name(id=name)):
                values = _values(self.constants.get(self.meaning(scope.file, name)))
                return self.text(values[0], scope) if values else f"{{{_name(node)}}}"
            case ast.Call():
                return self._of_call(node, scope)
        return f"{{{_name(node)}}}"

    def _of_name(self, name: str, scope: Scope) -> str:
        if name in scope.arguments:
            return scope.arguments[name]
        deeper = Scope(scope.file, scope.functions, scope.arguments, scope.depth + 1)
        for value in assigned(name, scope):
            if scope.depth < _DEEPEST and _is_text(value) and is_prose(text := self.text(value, deeper)):
                return text
        if not any(name in parameters(function) for function in scope.functions):
            file, name_there = self.meaning(scope.file, name)
            constant = self.constants.get((file, name_there))
            if constant is not None and _is_text(constant) and scope.depth < _DEEPEST:
                return self.text(constant, Scope(file, depth=scope.depth + 1))
        return f"{{{name.strip('_').lower()}}}"

    def _of_call(self, call: ast.Call, scope: Scope) -> str:
        file, name = self.meaning(scope.file, getattr(call.func, "id", ""))
        function = self.functions.get((file, name))
        if function is not None and scope.depth < _DEEPEST:
            given = dict(zip(parameters(function), (self.text(value, scope) for value in call.args), strict=False))
            given |= {one.arg: self.text(one.value, scope) for one in call.keywords if one.arg}
            inside = Scope(file, (function,), given, scope.depth + 1)
            for node in ast.walk(function):
                if isinstance(node, ast.Return) and node.value is not None and _is_text(node.value):
                    text = self.text(node.value, inside)
                    if is_prose(text):
                        return text
        return f"{{{_name(call)}}}"


def is_prose(text: str) -> bool:
    """Whether there are at least two words in it beside its placeholders."""
    return " " in text.strip() and len(_WORD.findall(_PLACEHOLDER.sub("", text))) > 1


def is_passed_on(text: str) -> bool:
    """Whether nothing but a placeholder is in it, or what the error is about: another message, which is passed on. So
    is one of `warnings` at the end, whatever says where it holds."""
    words = _WORD.findall(_PLACEHOLDER.sub("", text))
    return not words or (len(words) == 1 and text.endswith("{error}")) or text.endswith("{warnings}")


def assigned(name: str, scope: Scope) -> list[ast.expr]:
    """What the innermost function gives a variable, in the order of the lines."""
    return _assignments(scope.functions[0]).get(name, []) if scope.functions else []


@cache
def _assignments(function: Function) -> dict[str, list[ast.expr]]:
    values: dict[str, list[ast.expr]] = defaultdict(list)
    for node in ast.walk(function):
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and node.value is not None:
            for target in _targets(node):
                if isinstance(target, ast.Name):
                    values[target.id].append(node.value)
    return values


def parameters(function: Function) -> list[str]:
    """The names of a function's parameters, in order."""
    return [one.arg for one in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]


def _targets(node: ast.AST) -> Sequence[ast.expr]:
    if isinstance(node, ast.Assign):
        return node.targets
    return [node.target] if isinstance(node, ast.AnnAssign | ast.NamedExpr) else []


def _values(node: ast.expr | None) -> list[ast.expr]:
    values = node.values if isinstance(node, ast.Dict) else node.elts if isinstance(node, ast.Tuple | ast.List) else []
    return [value for value in values if _is_text(value)]


def _is_text(node: ast.expr) -> bool:
    """Whether an expression is made from literal text, at least in part."""
    if isinstance(node, ast.IfExp):
        return _is_text(node.body) or _is_text(node.orelse)
    if isinstance(node, ast.BinOp):
        return _is_text(node.left) or _is_text(node.right)
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name)
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _name(node: ast.expr) -> str:
    """A short name for a value that only a run knows."""
    match node:
        case ast.Name(id=name):
            return name.strip("_")
        case ast.Attribute(attr=attribute, value=value):
            whole = attribute == "name" and isinstance(value, ast.Name) and value.id != "self"
            return _name(value) if whole else attribute.strip("_")
        case ast.Call(func=ast.Name(id="len")):
            return "number"
        case ast.Call(func=ast.Attribute(attr="join"), args=[names]):
            return _name(names)
        case ast.Call(func=function, args=[first, *_]) if ast.unparse(function) in _PLAIN or _is_caster(function):
            return _name(first)
        case ast.Call(func=function):
            return _name(function)
        case ast.BoolOp(values=[first, *_]) | ast.Tuple(elts=[first, *_]) | ast.BinOp(left=first):
            return _name(first)
        case ast.Subscript(value=value) | ast.Starred(value=value) | ast.Await(value=value):
            return _name(value)
        case ast.IfExp(body=body):
            return _name(body)
        case ast.GeneratorExp(generators=[generator, *_]) | ast.ListComp(generators=[generator, *_]):
            return _name(generator.iter)
    return "value"


def _is_caster(function: ast.expr) -> bool:
    return isinstance(function, ast.Name) and function.id in ("map", "min", "max", "next", "iter", "getattr", "set")
