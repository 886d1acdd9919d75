"""What `import fieldscope` offers, and what it costs."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import warnings
from pathlib import Path

import fieldscope
from fieldscope.core import errors

HEAVY = {"torch", "transformers", "open_clip", "faiss", "openai", "langgraph", "scipy", "fastapi", "numpy", "pydantic"}


def typed_names() -> set[str]:
    """The names that a type checker sees."""
    tree = ast.parse(Path(str(fieldscope.__file__)).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    return {
        alias.asname or alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }


def test_importing_costs_nothing() -> None:
    code = "import sys, fieldscope; print(*{module.partition('.')[0] for module in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & HEAVY == set()


def test_every_public_name_is_there_and_typed() -> None:
    assert set(fieldscope.__all__) == typed_names()
    assert all(getattr(fieldscope, name) is not None for name in fieldscope.__all__)
    assert set(fieldscope.__all__) <= set(dir(fieldscope))


def test_every_error_is_public() -> None:
    def below(kind: type[Exception]) -> set[str]:
        return {kind.__name__}.union(
            *(below(sub) for sub in kind.__subclasses__() if sub.__module__ == errors.__name__)
        )

    assert below(errors.FieldscopeError) <= set(fieldscope.__all__)


def test_the_package_is_typed() -> None:
    assert Path(str(fieldscope.__file__)).with_name("py.typed").is_file()


def test_a_reranker_takes_the_options_of_its_asynchronous_twin() -> None:
    assert inspect.signature(fieldscope.Reranker) == inspect.signature(fieldscope.AsyncReranker)


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(fieldscope, "reranker")


def test_warnings_are_fieldscopes_own() -> None:
    assert issubclass(fieldscope.FieldscopeWarning, UserWarning)
    with warnings.catch_warnings():
        warnings.simplefilter("error", fieldscope.FieldscopeWarning)
