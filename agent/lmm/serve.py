"""The command that serves a model with vLLM for this workload: many short questions about few images each."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from fieldscope.core.errors import ConfigError

DEFAULT_PORT = 8000
MAX_LOGPROBS = 20  # as many as a request can ask for

_COMMAND = ("vllm", "serve")
_MODULE = ("-m", "vllm.entrypoints.openai.api_server")


def vllm_command(
    model: str,
    *,
    port: int = DEFAULT_PORT,
    images_per_prompt: int = 4,
    max_model_len: int | None = None,
    extra: Sequence[str] = (),
    launcher: Sequence[str] = _COMMAND,
) -> list[str]:
    """The command line, as a list of arguments, that serves `model` (a hub name or a checkpoint folder).

    `max_model_len` (tokens of prompt and answer) is the model's own where None. `extra` are further arguments for
    vLLM, and win over ours. `launcher` is what `find_vllm` found; by default `vllm serve`, as on another machine.
    """
    named = ["--model", model] if tuple(launcher[-2:]) == _MODULE else [model]
    return [
        *launcher,
        *named,
        *("--served-model-name", Path(model).resolve().name if Path(model).is_dir() else model),
        *("--host", "127.0.0.1", "--port", str(port)),
        "--enable-prefix-caching",  # an image's further questions find it prefilled
        *("--limit-mm-per-prompt", json.dumps({"image": images_per_prompt}, separators=(",", ":"))),
        *("--max-logprobs", str(MAX_LOGPROBS)),
        *("--generation-config", "vllm"),  # the request alone decides how to decode, not the checkpoint's defaults
        *(("--max-model-len", str(max_model_len)) if max_model_len is not None else ()),
        *extra,
    ]


def find_vllm(venv: Path | None = None) -> list[str]:
    """What starts vLLM here: from `venv` where one is given, else the program on PATH, else this Python's own.

    Raises `ConfigError` that says how to get one.
    """
    if venv is not None:
        python = venv / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        if not python.is_file():
            raise ConfigError(f"{venv} is no virtual environment: name the folder that holds bin/python")
        return [str(python), *_MODULE]
    program = shutil.which(_COMMAND[0])
    if program is not None:
        return [program, *_COMMAND[1:]]
    if find_spec("vllm") is not None:
        return [sys.executable, *_MODULE]
    raise ConfigError(
        "vLLM is not installed here: pip install 'fieldscope[vllm]', or point to the virtual environment that has it"
    )
