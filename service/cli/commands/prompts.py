"""`fieldscope prompts`: the prompts that models are sent."""

from __future__ import annotations

import click

from fieldscope.service.cli.console import show, show_json
from fieldscope.service.cli.options import json_option


@click.group()
def prompts() -> None:
    """List the prompts, or show one."""


@prompts.command("list")
@json_option
def list_all(as_json: bool) -> None:
    """List the shipped prompts."""
    from fieldscope.prompts.prompt import list_prompts, load_prompt

    shipped = [load_prompt(name) for name in list_prompts()]
    if as_json:
        show_json([prompt.model_dump(mode="json") | {"fingerprint": prompt.fingerprint} for prompt in shipped])
        return
    from fieldscope.service.cli.tables.table import pairs_table

    show(pairs_table((prompt.name, prompt.description) for prompt in shipped))


@prompts.command("show")
@click.argument("name", metavar="NAME|FILE")
@json_option
def show_one(name: str, as_json: bool) -> None:
    """Show one prompt, shipped or from your own file: its variables, how its answer is read, its wording."""
    from fieldscope.prompts.prompt import load_prompt

    prompt = load_prompt(name)
    if as_json:
        show_json(prompt.model_dump(mode="json") | {"fingerprint": prompt.fingerprint})
        return
    facts = {
        "name": prompt.name,
        "description": prompt.description,
        "source": prompt.source,
        "variables": ", ".join(prompt.variables),
        "answer": prompt.answer,
        "fingerprint": prompt.fingerprint,
    }
    show(*(f"{key:>11}  {value}" for key, value in facts.items() if value), "", *prompt.template.splitlines())
