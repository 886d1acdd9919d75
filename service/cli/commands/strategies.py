"""`fieldscope strategies`: what can be run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from fieldscope.service.cli.console import plain, show, show_json
from fieldscope.service.cli.options import json_option

if TYPE_CHECKING:
    from fieldscope.agent.strategies.strategy import Strategy


@click.group()
def strategies() -> None:
    """List the strategies, or show one."""


@strategies.command("list")
@json_option
def list_all(as_json: bool) -> None:
    """The shipped strategies."""
    from fieldscope.agent.strategies.strategy import list_strategies, load_strategy

    found = [load_strategy(name) for name in list_strategies()]
    if as_json:
        show_json([_payload(strategy) for strategy in found])
        return
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for strategy in found:
        table.add_row(plain(strategy.name, "bold"), plain(strategy.description))
    show(table)


@strategies.command("show")
@click.argument("name", metavar="NAME|FILE")
@json_option
def show_one(name: str, as_json: bool) -> None:
    """One strategy, shipped or your own file, with every setting; it is checked on the way."""
    import yaml

    from fieldscope.agent.strategies.strategy import load_strategy

    told = _payload(load_strategy(name))
    if as_json:
        show_json(told)
    else:
        click.echo(yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=100), nl=False)


def _payload(strategy: Strategy) -> dict[str, Any]:
    """All settings, with prompts by name and fingerprint."""
    prompts = {prompt.name: {"name": prompt.name, "fingerprint": prompt.fingerprint} for prompt in strategy.prompts}

    def brief(told: Any) -> Any:
        if not isinstance(told, dict):
            return told
        return prompts[told["name"]] if "template" in told else {key: brief(value) for key, value in told.items()}

    told: dict[str, Any] = brief(strategy.model_dump(mode="json", exclude_none=True))
    return told | {"fingerprint": strategy.fingerprint}
