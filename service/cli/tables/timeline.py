"""The events of a trace, in a terminal."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.table import Table

from fieldscope.agent.types import TraceEvent
from fieldscope.service.cli.console import plain
from fieldscope.service.cli.tables.table import new_table

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_TOGETHER = frozenset({"verified", "compared", "explained"})


def timeline(trace: Iterable[TraceEvent]) -> Table:
    """One row per event, in the order of time; those of a wave, one after the other, share a row."""
    table = new_table(edge=False)
    table.add_column("seconds", justify="right")
    table.add_column("event")
    table.add_column("", overflow="fold")
    numbered = list(enumerate(sorted(trace, key=lambda event: event.at)))
    for _, group in groupby(numbered, key=lambda one: (one[1].kind, one[0] if one[1].kind not in _TOGETHER else -1)):
        events = [event for _, event in group]
        details = _counted(events[0].data) if len(events) == 1 else _summed(events)
        table.add_row(f"{max(event.at for event in events):.3f}", plain(events[0].kind), plain(_text_of(details)))
    return table


def _counted(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """An event's data; of the regions that were proposed of each image only how many there are."""
    if not isinstance(regions := data.get("regions"), dict):
        return data
    return {**data, "regions": sum(len(of_image) for of_image in regions.values())}


def _summed(events: Sequence[TraceEvent]) -> dict[str, Any]:
    """States and numbers of many events added up; what only one event has is left out."""
    states: Counter[str] = Counter()
    sums: Counter[str] = Counter()
    for event in events:
        for key, value in event.data.items():
            if key == "state":
                states[str(value)] += 1
            elif key == "states" and isinstance(value, dict):
                states.update({str(state): count for state, count in value.items() if isinstance(count, int)})
            elif key != "wave" and isinstance(value, int | float):
                sums[key] += value  # type: ignore[assignment]  # tokens are counted, seconds are not
    return {"events": len(events), **dict(sorted(states.items())), **sums}


def _text_of(value: Any) -> str:
    """An event's data in words; of a fingerprint the first 12 digits."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text_of(item)}" for key, item in value.items())
    if isinstance(value, list):
        return " ".join(map(_text_of, value)) or "none"
    if value is None or value == "":
        return "none"
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return text[:12] if _FINGERPRINT.fullmatch(text) else text
