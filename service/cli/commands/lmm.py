"""`fieldscope lmm`: a model server on this machine."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from fieldscope.service.wiring.feedback import note


@click.group()
def lmm() -> None:
    """Serve a model for reranking."""


@lmm.command()
@click.argument("model")
@click.argument("extra", nargs=-1, type=click.UNPROCESSED, metavar="[-- VLLM ARGUMENTS ...]")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True)
@click.option("--images-per-prompt", type=click.IntRange(min=1), default=4, show_default=True, metavar="N")
@click.option("--max-model-len", type=click.IntRange(min=1), metavar="TOKENS", help="[default: the model's own]")
@click.option("--venv", type=click.Path(path_type=Path), metavar="FOLDER", help="The virtual environment with vLLM.")
@click.option("--print-only", is_flag=True, help="Print the command without starting it.")
def serve(
    model: str,
    extra: tuple[str, ...],
    port: int,
    images_per_prompt: int,
    max_model_len: int | None,
    venv: Path | None,
    print_only: bool,
) -> None:
    """Serve MODEL (a hub name or a folder) with vLLM, with the flags that reranking needs.

    It serves until it is stopped. Arguments after `--` are passed to vLLM.
    """
    from fieldscope.agent.lmm.serve import find_vllm, vllm_command

    launcher = {"launcher": find_vllm(venv)} if venv or not print_only else {}
    command = vllm_command(
        model, port=port, images_per_prompt=images_per_prompt, max_model_len=max_model_len, extra=extra, **launcher
    )
    if print_only:
        click.echo(shlex.join(command))
        return
    name = command[command.index("--served-model-name") + 1]
    note(f"When it is ready, run: fieldscope eval BENCHMARK --lmm http://localhost:{port} --model {shlex.quote(name)}")
    os.execvp(command[0], command)
