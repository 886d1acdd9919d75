"""A page before it is HTML: what its template shows, and where it lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fieldscope.core.errors import FieldscopeError


class NoPage(FieldscopeError):
    """There is no such page. Says what is missing in a sentence."""


@dataclass(frozen=True)
class Page:
    """What a template shows. `crumbs` lead from the first page here: (words, address) of those above."""

    address: str
    template: str
    title: str
    context: Mapping[str, Any]
    crumbs: Sequence[tuple[str, str]] = ()
    scripts: Sequence[str] = ()
    styles: Sequence[str] = ()
    status: int = field(default=200)
