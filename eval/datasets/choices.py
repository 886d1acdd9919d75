"""The named choices of a data set's protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fieldscope.core.errors import ConfigError
from fieldscope.core.validation import unknown_name


def chosen(data_set: str, given: Mapping[str, str], known: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """A value for each choice in `known`: the one given, else the first of those it has. Raises `ConfigError` for a
    choice or value that the data set does not have."""
    for name, value in given.items():
        if name not in known:
            raise ConfigError(f"{unknown_name(f'choice of {data_set}', name, known)}. Correct --set.")
        if value not in known[name]:
            raise ConfigError(f"{unknown_name(f'{name} of {data_set}', value, known[name])}. Correct --set.")
    return {name: given.get(name, values[0]) for name, values in known.items()}
