"""The README's five lines, as they stand there: as a script, and in a notebook beside folders with common names."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTION = re.search(r"^## Five lines of Python\n(.*?)^## ", README, re.S | re.M)
assert SECTION is not None
COMMAND, LINES = (re.search(rf"```{kind}\n(.*?)```", SECTION[1], re.S)[1] for kind in ("sh", "python"))  # type: ignore[index]


pytestmark = pytest.mark.timeout(1200)  # the agent over 24 pictures, and again from what is remembered


@pytest.fixture
def folder(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the pictures that the README's command writes; all tests here share what is remembered."""
    (tmp_path / "pictures").symlink_to(drawn / "pictures")
    monkeypatch.setenv("FIELDSCOPE_CACHE", str(drawn / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def require_reasons(printed: str) -> None:
    lines = printed.splitlines()
    assert [line.partition(". ")[0] for line in lines] == ["1", "2", "3", "4", "5"]
    assert lines[0] == "1. 000017.png: yes, the image shows a yellow crab on a reef."
    assert all(re.fullmatch(r"\d\. \d{6}\.png: \S.*", line) for line in lines)


def test_they_are_five_and_the_command_before_is_the_one_that_is_tested() -> None:
    assert len(LINES.splitlines()) == 5
    assert shlex.split(COMMAND) == ["fieldscope", "demo", "--pictures", "pictures"]


def test_the_readme_is_short_and_starts_with_reasons_and_statistics() -> None:
    assert len(README.split()) <= 1800
    first_screen = "\n".join(README.splitlines()[:32])
    assert "reason" in first_screen
    assert "interval" in first_screen


def test_every_page_that_the_readme_names_is_there() -> None:
    for target in re.findall(r"\]\(((?!https?:)[^)#]+)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.usefixtures("folder")
def test_five_lines_print_the_best_five_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(LINES, "README.md", "exec"), {"__name__": "__main__"})
    shown = capsys.readouterr()
    assert shown.err == ""
    require_reasons(shown.out)


def test_five_lines_in_a_notebook_beside_folders_that_are_called_like_ours(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("core", "eval", "agent", "cache", "service", "retrieval", "prompts"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise ImportError('the wrong package')\n", encoding="utf-8")
    for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(folder / variable.lower()))
    cells = [
        nbformat.v4.new_code_cell(code) for code in (LINES, "ranking", "import asyncio; asyncio.get_running_loop()")
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(folder)}}).execute()
    streams = [output for output in cells[0].outputs if output.output_type == "stream"]
    assert [output.text for output in streams if output.name == "stderr"] == []
    require_reasons("".join(output.text for output in streams))
    shown = cells[1].outputs[0].data
    assert shown["text/html"].count("<img") == 20
    assert shown["text/plain"].startswith("Ranking('a yellow crab on a reef', 24 images")
