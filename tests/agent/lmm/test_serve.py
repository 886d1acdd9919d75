import sys
from pathlib import Path

import pytest

from fieldscope.agent.lmm import serve
from fieldscope.agent.lmm.serve import find_vllm, vllm_command
from fieldscope.core.errors import ConfigError

MODULE = ["-m", "vllm.entrypoints.openai.api_server"]


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine without vLLM."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(serve, "find_spec", lambda name: None)
    return monkeypatch


def make_venv(folder: Path) -> Path:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").touch()
    return folder


def value(command: list[str], flag: str) -> str:
    assert command.count(flag) == 1
    return command[command.index(flag) + 1]


def test_the_command_serves_this_workload_on_loopback_only() -> None:
    command = vllm_command("Qwen/Some-VL", port=9000, images_per_prompt=3, max_model_len=4096)
    assert command[:3] == ["vllm", "serve", "Qwen/Some-VL"]
    assert value(command, "--limit-mm-per-prompt") == '{"image":3}'
    assert value(command, "--max-logprobs") == "20"
    assert value(command, "--served-model-name") == "Qwen/Some-VL"
    assert (value(command, "--host"), value(command, "--port")) == ("127.0.0.1", "9000")
    assert value(command, "--max-model-len") == "4096"
    assert value(command, "--generation-config") == "vllm"
    assert "--enable-prefix-caching" in command


def test_the_models_own_length_is_left_to_it() -> None:
    assert "--max-model-len" not in vllm_command("m")


def test_further_arguments_come_last_and_so_win() -> None:
    assert vllm_command("m", extra=["--host", "0.0.0.0"])[-2:] == ["--host", "0.0.0.0"]


def test_a_folder_is_served_under_its_name(tmp_path: Path) -> None:
    (tmp_path / "my-model").mkdir()
    command = vllm_command(str(tmp_path / "my-model"))
    assert command[2] == str(tmp_path / "my-model")
    assert value(command, "--served-model-name") == "my-model"


def test_the_module_takes_the_model_as_an_option(tmp_path: Path) -> None:
    command = vllm_command("m", launcher=find_vllm(make_venv(tmp_path / "venv")))
    assert command[:5] == [str(tmp_path / "venv" / "bin" / "python"), *MODULE, "--model", "m"]


def test_a_virtual_environment_that_is_given_comes_first(tmp_path: Path, nowhere: pytest.MonkeyPatch) -> None:
    program = tmp_path / "vllm"
    program.touch(mode=0o755)
    nowhere.setenv("PATH", str(tmp_path))
    assert find_vllm(make_venv(tmp_path / "venv")) == [str(tmp_path / "venv" / "bin" / "python"), *MODULE]
    assert find_vllm() == [str(program), "serve"]


def test_then_this_pythons_own(nowhere: pytest.MonkeyPatch) -> None:
    nowhere.setattr(serve, "find_spec", lambda name: object())
    assert find_vllm() == [sys.executable, *MODULE]


def test_else_it_says_how_to_get_one(nowhere: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"pip install 'fieldscope\[vllm\]'"):
        find_vllm()


def test_a_virtual_environment_that_is_none_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no virtual environment"):
        find_vllm(tmp_path)
