"""The images that were skipped, and why."""

from __future__ import annotations

from collections.abc import Mapping

_NAMED = 3


def skipped_lines(skipped: Mapping[str, str]) -> list[str]:
    """The count, and a line for each reason with the names of the first files. No lines where nothing was skipped."""
    names: dict[str, list[str]] = {}
    for name, reason in skipped.items():
        names.setdefault(reason, []).append(name)
    lines = [f"  {reason if repr(of[0]) in reason else f'{_listed(of)}: {reason}'}" for reason, of in names.items()]
    return [f"skipped {len(skipped):,}:", *lines] if lines else []


def skipped_data(skipped: Mapping[str, str]) -> list[dict[str, str]]:
    """The images and their reasons for programs."""
    return [{"image": image, "reason": reason} for image, reason in skipped.items()]


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")
