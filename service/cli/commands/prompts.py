"""`fieldscope prompts`: the prompts that models are sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from fieldscope.service.cli.console import show, show_json
from fieldscope.service.cli.options import json_option

if TYPE_CHECKING:
    from fieldscope.prompts.prompt import Prompt

_set_option = click.option(
    "--prompts", "named", metavar="SET|FOLDER", help="The set: a name, or a folder of your own.  [default: instruct]"
)


@click.group()
def prompts() -> None:
    """List the prompts of a set, or show one."""


@prompts.command("list")
@_set_option
@json_option
def list_all(named: str | None, as_json: bool) -> None:
    """List the prompts of a set, and the names of all sets."""
    from fieldscope.prompts.prompt_set import list_sets
    from fieldscope.service.cli.tables.table import pairs_table
    from fieldscope.service.wiring.prompts import chosen_prompts

    chosen = chosen_prompts(named, bundled=False)
    loaded = [chosen.load(name) for name in chosen.names]
    if as_json:
        show_json([_payload(prompt, chosen.origin(prompt.name)) for prompt in loaded])
        return
    show(pairs_table((prompt.name, prompt.description) for prompt in loaded))
    show(f"These are the prompts of {chosen.name}; the shipped sets are {', '.join(list_sets())}.")


@prompts.command("show")
@click.argument("name", metavar="NAME|FILE")
@_set_option
@json_option
def show_one(name: str, named: str | None, as_json: bool) -> None:
    """Show one prompt, of a set or from your own file: its variables, how its answer is read, its wording."""
    from fieldscope.prompts.prompt_set import load_prompt
    from fieldscope.service.wiring.prompts import chosen_prompts

    chosen = chosen_prompts(named, bundled=False)
    prompt = load_prompt(name, chosen)
    origin = None if name.endswith(".md") else chosen.origin(name)
    if as_json:
        show_json(_payload(prompt, origin))
        return
    facts = {
        "name": prompt.name,
        "set": origin,
        "description": prompt.description,
        "source": prompt.source,
        "variables": ", ".join(prompt.variables),
        "answer": prompt.answer,
        "fingerprint": prompt.fingerprint,
    }
    system = ["", "system:", *prompt.system.splitlines()] if prompt.system else []
    show(*(f"{key:>11}  {value}" for key, value in facts.items() if value), *system)
    show("", *prompt.template.splitlines())


def _payload(prompt: Prompt, origin: str | None) -> dict[str, Any]:
    return prompt.model_dump(mode="json") | {"set": origin, "fingerprint": prompt.fingerprint}
