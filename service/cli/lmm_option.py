"""`--lmm`, which may be repeated: the LMM of all roles, and those of single roles."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from fieldscope.core.errors import ConfigError
from fieldscope.service.wiring.settings import RoleModel, read_model

if TYPE_CHECKING:
    from fieldscope.agent.roles import Role

_ROLE = re.compile(r"([A-Za-z_]+)=(.*)", re.DOTALL)


@dataclass(frozen=True)
class ChosenLMMs:
    """What the `--lmm` of a command line say: the address and perhaps the model of the LMM of all roles, and the LMM of
    each role that has its own."""

    lmm: str | None
    model: str | None
    roles: dict[Role, RoleModel]


def chosen_lmms(values: tuple[str, ...], model: str | None) -> ChosenLMMs:
    """The LMMs that `--lmm` and `--model` name. Raises `UsageError`."""
    from fieldscope.agent.roles import ROLES

    shared: list[str] = []
    roles: dict[Role, RoleModel] = {}
    for value in values:
        named = _ROLE.fullmatch(value)
        if named is None:
            shared.append(value)
            continue
        name, text = named.groups()
        role = next((role for role in ROLES if role == name), None)
        if role is None:
            raise click.UsageError(f"--lmm {value}: unknown role {name!r}; use one of {', '.join(ROLES)}")
        if role in roles:
            raise click.UsageError(f"--lmm gives the {role} two LMMs; leave one out")
        try:
            roles[role] = read_model(text)
        except ConfigError as error:
            raise click.UsageError(f"--lmm {role}: {error}") from error
    if len(shared) > 1:
        raise click.UsageError(
            f"--lmm names {len(shared)} LMMs for all roles; leave one out, or give it one role, as in "
            f"--lmm verifier={shared[-1]}#NAME"
        )
    url = shared[0] if shared else None
    if url is None or "#" not in url:
        return ChosenLMMs(url, model, roles)
    if model is not None:
        raise click.UsageError("--lmm URL#NAME names the model already; leave --model out")
    try:
        read = read_model(url)
    except ConfigError as error:
        raise click.UsageError(f"--lmm: {error}") from error
    return ChosenLMMs(read.lmm, read.model, roles)
