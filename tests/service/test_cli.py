"""What holds for every command: help at once, one line for an error, its exit code, and no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import fieldscope.service.cli.commands.strategies
import fieldscope.service.workflows.evaluate
from fieldscope.core.errors import ConfigError
from fieldscope.service.cli.main import cli
from tests.service.conftest import Run

PROGRAM = [sys.executable, "-c", "from fieldscope.service.cli.main import main; main()"]
COMMANDS = (
    "demo", "eval", "rerank", "index", "search", "trace", "lmm", "cache", "prompts", "strategies", "version",
)  # fmt: skip
SLOW = {
    *("torch", "transformers", "open_clip", "langgraph", "openai", "faiss", "scipy", "fastapi"),
    *("pyarrow", "pydantic", "numpy", "rich"),
}


@pytest.mark.slow
@pytest.mark.nightly  # a busy machine takes more processor time for the same
def test_help_costs_little() -> None:
    seconds = []
    for _ in range(3):
        before = os.times()
        done = subprocess.run([*PROGRAM, "--help"], capture_output=True, text=True, check=True)
        after = os.times()
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert all(command in done.stdout for command in COMMANDS)
    assert min(seconds) < 0.3


def test_nothing_slow_is_imported_for_help() -> None:
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom fieldscope.service.cli.main import cli\n"
        "for name in ('', *cli.commands):\n"
        "    assert CliRunner().invoke(cli, [*name.split(), '--help']).exit_code == 0\n"
        "print(*{module.partition('.')[0] for module in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & SLOW == set()


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("rank", "No such command"),
        ("eval", "BENCHMARK"),
        ("eval fieldnotes --limit 0", "--limit"),
        ("eval fieldnotes --cache sometimes", "refresh"),
        ("eval fieldnotes --lmm http://localhost:1", "--lmm needs --model"),
        ("eval fieldnotes --model vl", "--model goes with --lmm"),
        ("rerank --query crab", "--images"),
        ("search --index d --query crab --min-p 0.5", "--rerank"),
        ("search --index d --query crab --strategy yes-no", "--rerank"),
        ("index somewhere", "--out"),
    ],
)
def test_wrong_usage_ends_with_2(run: Run, line: str, hint: str) -> None:
    result = run(*line.split())
    assert result.exit_code == 2
    assert hint in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("eval fieldnotes --strategy yes-or-no", "did you mean 'yes-no'"),
        ("eval fieldnotes --strategy mine.yaml", "mine.yaml"),
        ("eval fieldnote --strategy clip", "did you mean 'fieldnotes'"),
        ("eval fieldnotes --split train --strategy clip", "no split 'train'"),
        ("rerank --query crab --images nowhere --strategy clip", "'nowhere' does not exist"),
        ("index nowhere -o here", "'nowhere' does not exist"),
        ("search --index nowhere --query crab", "holds no index"),
        ("trace nowhere t000", "holds no run"),
        ("prompts show match_yes", "did you mean 'match_yes_no'"),
        ("strategies show clipp", "did you mean 'clip'"),
        ("lmm serve m --venv nowhere", "no virtual environment"),
    ],
)
@pytest.mark.usefixtures("world")
def test_an_error_is_one_line_that_says_what_to_do(run: Run, line: str, hint: str) -> None:
    result = run(*line.split())
    assert result.exit_code == 1
    assert hint in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


@pytest.mark.usefixtures("world")
def test_a_prompt_with_a_missing_variable_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "ask.md").write_text(
        "---\nname: ask\nvariables: [query]\nanswer: yes_no\n---\nis {{ query }} in {{ place }}?\n"
    )
    (tmp_path / "mine.yaml").write_text("name: mine\nverify: {prompt: ask.md}\nfusion: {method: p_yes}\n")
    result = run("eval", "fieldnotes-rerank", "--strategy", tmp_path / "mine.yaml")
    assert result.exit_code == 1
    assert "ask.md" in result.stderr and "'place'" in result.stderr
    assert result.stderr.count("\n") == 1


def test_what_nobody_foresaw_is_one_line_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the sky\nhas fallen")

    monkeypatch.setattr(fieldscope.service.cli.commands.strategies, "_payload", fail)
    result = run("strategies", "list", "--json")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: unexpected RuntimeError: the sky; ")
    assert result.stderr.count("\n") == 1
    assert "FIELDSCOPE_DEBUG=1" in result.stderr
    monkeypatch.setenv("FIELDSCOPE_DEBUG", "1")
    with pytest.raises(RuntimeError, match="fallen"):
        CliRunner().invoke(cli, ["strategies", "list", "--json"], catch_exceptions=False)


def test_control_characters_of_others_do_not_reach_the_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ConfigError("\x1b[2Jbad\nname")

    monkeypatch.setattr(fieldscope.service.cli.commands.strategies, "_payload", fail)
    result = run("strategies", "list", "--json")
    assert result.stderr == "error: \\x1b[2Jbad name\n"


@pytest.mark.usefixtures("world")
def test_an_interruption_says_what_is_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fieldscope.service.workflows.evaluate, "run_opened_async", interrupt)
    result = run("eval", "fieldnotes-rerank", "--strategy", "clip", "--out", "here")
    assert result.exit_code == 130
    assert result.stderr == "error: interrupted; finished queries are kept in here; rerun this command to continue\n"


@pytest.mark.parametrize("line", ["strategies list --json", "strategies list", "version"])
def test_nobody_reads_on(line: str) -> None:
    process = subprocess.Popen([*PROGRAM, *line.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout and process.stderr
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=120) in (0, 1)
    process.stderr.close()


def test_a_librarys_warning_is_shown_on_one_line() -> None:
    code = (
        "import warnings\nfrom fieldscope.service.cli.main import cli, main\n@cli.command()\n"
        "def odd():\n    warnings.warn('advice\\nin two lines')\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code, "odd"], capture_output=True, text=True, check=True)
    assert done.stderr == "warning: advice in two lines (UserWarning)\n"
