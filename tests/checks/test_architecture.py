"""docs/architecture.md shows the layers, arrows and files that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from checks.imports import LAYERS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"
TEXT = PAGE.read_text(encoding="utf-8")
PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md") if path.name != "messages.md")
SECTION = TEXT[TEXT.index("## The layers") : TEXT.index("## The flow")]


def rows() -> dict[str, str]:
    """A layer of the table -> the text of its last column."""
    return dict(re.findall(r"^\| `([\w/]+)/` \| .* \| (.+?) \|$", SECTION, re.MULTILINE))


def allowed(layer: str) -> set[str]:
    """The layers that the table lets a layer import; "above" are the rows above."""
    table, text = list(rows()), rows()[layer]
    if text == "nothing":
        return set()
    above = table[: table.index(layer)]
    if text == "all above":
        return set(above)
    if chain := re.fullmatch(r"`([\w/]+)` and all above it", text):
        return {chain[1], *table[: table.index(chain[1])]}
    return set(re.findall(r"`([\w/]+)`", text))


def reachable(layer: str) -> set[str]:
    """The layers that the drawing's arrows lead to."""
    arrows = re.findall(r"^    ([\w/]+) --> ([\w/]+)$", SECTION, re.MULTILINE)
    reached: set[str] = set()
    waiting = [layer]
    while waiting:
        here = waiting.pop()
        targets = {target for source, target in arrows if source == here} - reached
        reached |= targets
        waiting += targets
    return reached


def test_the_table_has_every_layer() -> None:
    assert set(rows()) == set(LAYERS)
    assert all((ROOT / layer).is_dir() for layer in LAYERS)


@pytest.mark.parametrize("layer", sorted(LAYERS))
def test_the_table_and_the_drawing_allow_what_the_check_allows(layer: str) -> None:
    assert allowed(layer) == LAYERS[layer]
    assert reachable(layer) == LAYERS[layer]


def test_every_folder_that_is_installed_is_a_layer() -> None:
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"checks"}
    assert folders == {layer.partition("/")[0] for layer in LAYERS}
    assert {path.parent.name for path in (ROOT / "service").glob("*/__init__.py")} == {
        layer.partition("/")[2] for layer in LAYERS if layer.startswith("service/")
    }


@pytest.mark.parametrize("page", PAGES)
def test_every_file_and_folder_that_a_page_names_is_there(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    tops = "|".join(sorted({layer.partition("/")[0] for layer in LAYERS} | {"checks", "tests", "docs"}))
    named = re.findall(rf"`((?:{tops})/[\w./-]*)`", text)
    assert [name for name in named if not (ROOT / name).exists()] == []
    linked = re.findall(r"\]\((?!https?:)([^)#\s]+)", text)
    assert [name for name in linked if not (ROOT / "docs" / name).exists()] == []
