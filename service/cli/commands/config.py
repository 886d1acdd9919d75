"""`fieldscope config`: every setting of the service, and where it came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from fieldscope.core.private import shown_address, shown_model
from fieldscope.service.cli.console import plain, show, show_json
from fieldscope.service.cli.options import json_option
from fieldscope.service.cli.server_options import server_options

if TYPE_CHECKING:
    from fieldscope.service.server.role_table import RoleTable
    from fieldscope.service.server.settings import SourcedSettings

_MASK = "********"


def _shown_role(own: RoleTable | None) -> dict[str, Any] | None:
    """What is set for the LMM of a role, its key masked."""
    if own is None:
        return None
    given = own.model_dump(mode="json", exclude_none=True, exclude_unset=True, by_alias=True)
    masks = {"api_key": _MASK, "lmm": shown_address(own.lmm or "")}
    return given | {name: mask for name, mask in masks.items() if name in given}


@click.command()
@json_option
@server_options
def config(sourced: SourcedSettings, as_json: bool) -> None:
    """Print every setting of `fieldscope serve`, and where it came from.

    A flag overrides a variable FIELDSCOPE_..., which overrides a TOML file, which overrides the default. The flags are
    those of `fieldscope serve`.
    """
    values = _values(sourced)
    if as_json:
        show_json({key: {"value": value, "from": sourced.origins[key]} for key, value in values.items()})
        return
    from fieldscope.service.cli.tables.table import new_table
    from fieldscope.service.server.settings import DEFAULT, variable_of

    table = new_table("setting", "value", "from", "variable", texts=4)
    for key, value in values.items():
        origin = sourced.origins[key]
        shown = "" if value is None else str(value)
        dim = "dim" if origin == DEFAULT else ""
        table.add_row(plain(key), plain(shown, dim), plain(origin, dim), plain(variable_of(key), "dim"))
    show(table)


def _values(sourced: SourcedSettings) -> dict[str, Any]:
    """By dotted name, as JSON; paths that were not given as what they come to, and secrets masked."""
    from fieldscope.agent.roles import ROLES
    from fieldscope.service.server.settings import GROUPS

    settings = sourced.settings
    values = settings.model_dump(mode="json")
    for group in GROUPS:
        values |= {f"{group}.{name}": value for name, value in values.pop(group).items()}
    del values["roles"]
    values |= {f"roles.{role}": _shown_role(settings.roles.get(role)) for role in ROLES}
    values["api_key"] = _MASK if settings.api_key else None
    values["lmm"] = shown_address(settings.lmm) if settings.lmm else None
    values["scorer"] = shown_model(settings.scorer) if settings.scorer else None
    values |= {
        "data": str(settings.data_folder),
        "keys": str(settings.keys_file),
        "runs": str(settings.runs_folder),
        "cache_file": str(settings.models.store_path),
        "encoder": settings.encoder or "bundled",
    }
    return values
