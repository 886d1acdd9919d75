"""A page before it is rendered: its address, template and content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fieldscope.core.errors import FieldscopeError


class NoPage(FieldscopeError):
    """There is no such page. The message says what is missing, and what to do."""


@dataclass(frozen=True)
class Page:
    """The content of a template. `crumbs` are (words, address) of the pages above, from the first page on."""

    address: str
    template: str
    title: str
    context: Mapping[str, Any]
    crumbs: Sequence[tuple[str, str]] = ()
    scripts: Sequence[str] = ()
    styles: Sequence[str] = ()
    status: int = field(default=200)
