"""`cache`, `prompts`, `strategies`, `version` and `lmm serve`."""

from __future__ import annotations

import json
import platform
import shlex
from importlib import metadata
from pathlib import Path

import pytest
import yaml

import fieldscope.service.cli.commands.lmm
from fieldscope.prompts.prompt_set import list_prompts, load_prompt
from fieldscope.service.wiring.settings import Settings
from tests.service.conftest import FOX, Run, World


def test_an_empty_cache_is_not_made_by_looking(run: Run) -> None:
    told = json.loads(run("cache", "stats", "--json").stdout)
    assert told == {
        "path": str(Settings().store_path), "entries": 0, "size_bytes": 0, "by_model": {}, "models": {},
    }  # fmt: skip
    assert "0 answers" in run("cache", "stats").stdout
    assert not Settings().store_path.exists()


def test_what_the_cache_holds(run: Run, world: World) -> None:
    run("rerank", "--query", FOX, "--images", world.pictures, "--strategy", "yes-no")
    told = json.loads(run("cache", "stats", "--json").stdout)
    assert (told["entries"], told["by_model"]) == (12, {"truthful": 12})
    assert told["size_bytes"] > 0
    assert Path(told["path"]) == world.cache / "responses.sqlite"
    shown = run("cache", "stats").stdout
    assert "12 answers" in shown and "truthful" in shown


def test_a_file_that_is_no_cache(run: Run, world: World) -> None:
    (world.cache / "responses.sqlite").write_bytes(b"not a database, but longer than a header" * 10)
    result = run("cache", "stats")
    assert result.exit_code == 1
    assert "damaged or no cache at all" in result.stderr


def test_prompts(run: Run) -> None:
    listed = run("prompts", "list").stdout
    assert all(name in listed for name in list_prompts())
    assert [entry["name"] for entry in json.loads(run("prompts", "list", "--json").stdout)] == list(list_prompts())
    prompt = load_prompt("match_yes_no")
    shown = run("prompts", "show", "match_yes_no").stdout
    assert prompt.template in shown and prompt.fingerprint in shown
    assert json.loads(run("prompts", "show", "match_yes_no", "--json").stdout)["template"] == prompt.template


def test_strategies(run: Run) -> None:
    listed = json.loads(run("strategies", "list", "--json").stdout)
    assert {"clip", "yes-no", "yes-no-fused"} <= {entry["name"] for entry in listed}
    assert "yes-no-fused" in run("strategies", "list").stdout
    shown = yaml.safe_load(run("strategies", "show", "yes-no").stdout)
    assert shown == json.loads(run("strategies", "show", "yes-no", "--json").stdout)
    assert shown["fusion"] == {"method": "p_yes"}
    assert shown["verify"]["prompt"]["name"] == "match_yes_no"


def test_no_strategy_claims_to_be_what_a_paper_published(run: Run) -> None:
    """They are after papers, in other words and with other settings; of `imagescope` the list says so itself."""
    listed = {each["name"]: each for each in json.loads(run("strategies", "list", "--json").stdout)}
    assert "not as published" in listed["imagescope"]["description"]
    assert "not as published" in " ".join(run("strategies", "list").stdout.split())
    shown = json.loads(run("strategies", "show", "imagescope", "--json").stdout)
    assert "not a reproduction" in shown["source"]
    for name in ("yes-no", "yes-no-fused"):
        assert "our own" in json.loads(run("strategies", "show", name, "--json").stdout)["source"]
    for name in ("true-false", "predicates", "agent"):
        assert json.loads(run("strategies", "show", name, "--json").stdout)["source"].startswith("After ")


def test_ones_own_strategy_is_checked(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\nfusion: {methid: prior}\n")
    result = run("strategies", "show", tmp_path / "mine.yaml")
    assert result.exit_code == 1
    assert "did you mean 'method'" in result.stderr


def test_version(run: Run) -> None:
    told = json.loads(run("version", "--json").stdout)
    assert told["fieldscope"] == metadata.version("fieldscope")
    assert told["python"] == platform.python_version()
    assert told["torch"] in run("version").stdout


def test_the_command_that_serves_a_model(run: Run) -> None:
    line = ("lmm", "serve", "Qwen/Qwen3-VL-8B-Instruct", "--port", "8123", "--max-model-len", "4096", "--print-only")
    result = run(*line, "--", "--tensor-parallel-size", "2")
    assert result.exit_code == 0, result.stderr
    command = shlex.split(result.stdout)
    assert command[:3] == ["vllm", "serve", "Qwen/Qwen3-VL-8B-Instruct"]
    assert command[command.index("--port") + 1] == "8123"
    assert command[command.index("--max-model-len") + 1] == "4096"
    assert command[-2:] == ["--tensor-parallel-size", "2"]
    assert {"--enable-prefix-caching", "--limit-mm-per-prompt", "--max-logprobs"} <= set(command)
    assert result.stderr == ""


def test_serving_becomes_the_server(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    started: list[list[str]] = []
    monkeypatch.setattr(
        fieldscope.service.cli.commands.lmm.os, "execvp", lambda file, command: started.append([file, *command])
    )
    result = run("lmm", "serve", "some/model", "--venv", tmp_path / "venv")
    assert result.exit_code == 0
    ((file, *command),) = started
    assert file == command[0] == str(python)
    assert "some/model" in command
    assert "--lmm http://localhost:8000 --model some/model" in result.stderr
