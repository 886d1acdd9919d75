"""Templates: the one environment in which pages and reports become HTML."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from fieldscope.service.viewer.formats import FILTERS


@cache
def environment() -> Environment:
    """The environment of all templates of the viewer; it escapes whatever they show."""
    made = Environment(
        loader=PackageLoader("fieldscope.service.viewer"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(FILTERS)
    return made
