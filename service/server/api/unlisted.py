"""Fields of a body that no endpoint lists: named in a warning, so that no client believes that they were used."""

from __future__ import annotations

from collections.abc import Collection

from fieldscope.service.server.api.errors import ApiError

_NAMED = 5
_SHOWN = 64  # characters of a field's name
_FILTERS = frozenset({"filters", "where"})


def unlisted_flags(names: Collection[str]) -> list[str]:
    """The warning about fields that are not used; none where there are none. Raises `ApiError` for a filter, because a
    reply with images that it excludes would be wrong."""
    if filters := sorted(_FILTERS.intersection(names)):
        raise ApiError(
            422,
            "no_filter",
            f"{filters[0]!r} is no field of a request; send the conditions as 'filter'",
        )
    if not names:
        return []
    shown = [name[:_SHOWN] for name in list(names)[:_NAMED]]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return [f"unknown fields were not used: {', '.join(map(repr, shown))}{more}"]
