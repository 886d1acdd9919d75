"""Images chosen by their metadata before anything is searched or asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import ConfigError
from fieldscope.service.metadata.filter import Filter
from fieldscope.service.metadata.records import Records
from fieldscope.service.metadata.store import gather
from fieldscope.service.wiring.feedback import note

if TYPE_CHECKING:
    from fieldscope.service.workflows.candidates import Chosen


def select(wanted: Filter, records: Records, ids: Sequence[str]) -> list[str]:
    """The images that satisfy a filter, and a note of how many those are. Raises `ConfigError` where there is none, and
    for a filter that does not fit the metadata."""
    chosen = wanted.select(records, ids)
    if not chosen:
        raise ConfigError(f"none of {len(ids):,} images satisfies the filter ({wanted}); change or remove a condition")
    without = sum(not records.of(image_id) for image_id in ids)
    left_out = f"; {without:,} have no metadata and are left out" if without else ""
    note(f"{len(chosen):,} of {len(ids):,} images satisfy the filter{left_out}.")
    return chosen


def select_chosen(chosen: Chosen, metadata: Path | None, wanted: Filter | None) -> tuple[Chosen, Records]:
    """The images of a user's own that satisfy a filter, and their metadata: the rows of a table, and time and place
    from EXIF. Raises `ConfigError` as `select` does, and for a table that names none of the images."""
    from fieldscope.retrieval.selection import Selection

    if metadata is None and wanted is None:
        return chosen, Records()
    gathered = gather(chosen.images, metadata)
    for line in gathered.notes:
        note(line)
    if wanted is None:
        return chosen, gathered.records
    ids = select(wanted, gathered.records, chosen.images.ids())
    return replace(chosen, images=Selection(chosen.images, ids)), gathered.records
