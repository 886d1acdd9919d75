"""`fieldscope strategies`: the strategies that can be run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from fieldscope.service.cli.console import show, show_json
from fieldscope.service.cli.options import json_option

prompts_option = click.option(
    "--prompts", metavar="SET|FOLDER", help="The set that words the prompts.  [default: instruct]"
)

if TYPE_CHECKING:
    from fieldscope.agent.strategies.strategy import Strategy


@click.group()
def strategies() -> None:
    """List the strategies, or show one."""


@strategies.command("list")
@prompts_option
@json_option
def list_all(prompts: str | None, as_json: bool) -> None:
    """List the shipped strategies."""
    from fieldscope.agent.strategies.strategy import list_strategies, load_strategy
    from fieldscope.service.wiring.prompts import chosen_prompts

    chosen = chosen_prompts(prompts, bundled=False)
    shipped = [load_strategy(name, prompts=chosen) for name in list_strategies()]
    if as_json:
        show_json([_payload(strategy) for strategy in shipped])
        return
    from fieldscope.service.cli.tables.table import pairs_table

    show(pairs_table((strategy.name, strategy.description) for strategy in shipped))


@strategies.command("show")
@click.argument("name", metavar="NAME|FILE")
@prompts_option
@json_option
def show_one(name: str, prompts: str | None, as_json: bool) -> None:
    """Check one strategy, shipped or from your own file, and show every setting."""
    import yaml

    from fieldscope.agent.strategies.strategy import load_strategy
    from fieldscope.service.wiring.prompts import chosen_prompts

    settings = _payload(load_strategy(name, prompts=chosen_prompts(prompts, bundled=False)))
    if as_json:
        show_json(settings)
    else:
        click.echo(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=100), nl=False)


def _payload(strategy: Strategy) -> dict[str, Any]:
    """All settings, with prompts by name and fingerprint."""
    prompts = {prompt.name: {"name": prompt.name, "fingerprint": prompt.fingerprint} for prompt in strategy.prompts}

    def brief(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return prompts[value["name"]] if "template" in value else {key: brief(item) for key, item in value.items()}

    settings: dict[str, Any] = brief(strategy.model_dump(mode="json", exclude_none=True))
    return settings | {"fingerprint": strategy.fingerprint}
