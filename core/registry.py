"""Installed parts of one kind by name: the built-in ones, and those that other packages add as Python entry points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar, cast

from fieldscope.core.errors import ConfigError
from fieldscope.core.validation import unknown_name

Part = TypeVar("Part")


@dataclass(frozen=True)
class Registry(Generic[Part]):
    """The parts of one `kind`, such as "encoder", that the installed packages list under an entry point `group`.

    A part is imported when it is loaded, so listing the names is cheap and a broken package affects its own parts only.
    """

    kind: str
    group: str

    @cached_property
    def _entries(self) -> dict[str, list[EntryPoint]]:
        entries: dict[str, list[EntryPoint]] = {}
        for entry in entry_points(group=self.group):
            entries.setdefault(entry.name, []).append(entry)
        return entries

    def names(self) -> Sequence[str]:
        """All names, sorted."""
        return sorted(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def load(self, name: str) -> Part:
        """The part of this name. Raises `ConfigError` where no package has it, several have it, or its import fails."""
        entries = self._entries.get(name, [])
        if not entries:
            raise ConfigError(
                f"{unknown_name(self.kind, name, self.names())}; install the package that adds it, or "
                "install Fieldscope again if it is a built-in one"
            )
        if len(entries) > 1:
            packages = ", ".join(_package(entry) for entry in entries)
            raise ConfigError(f"{self.kind} {name!r} is in several packages ({packages}); uninstall all but one")
        try:
            return cast(Part, entries[0].load())
        except Exception as error:  # a package may raise anything while it is imported
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ConfigError(
                f"can't load {self.kind} {name!r} from the package {_package(entries[0])} ({reason}); update or "
                "uninstall that package"
            ) from error

    def split(self, text: str, default: str = "") -> tuple[str, str]:
        """`name` or `name:argument` as the two; any text that begins with no known name is an argument of `default`."""
        name, _, argument = text.partition(":")
        return (name, argument) if name in self else (default, text)


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else "?"
