"""Rankings kept as searches, in a folder of their own that the viewer and the service open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldscope.core.errors import ConfigError
from fieldscope.service.wiring.feedback import note, warn

if TYPE_CHECKING:
    from fieldscope.service.workflows.ranking import Ranking


def require_new_folder(out: Path | None) -> None:
    """Raise `ConfigError`, before anything is asked, where a folder that was named has files in it."""
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is not empty. Choose a new folder with --out, or remove that one.")


def keep_rankings(
    rankings: Sequence[Ranking], out: Path | None, name: str, collection: str | None, request: Mapping[str, Any]
) -> Path | None:
    """Keep the rankings of one strategy as one search, in `out`, or silently in a new folder of the user's data folder,
    which the search page lists. `request` repeats it (`SearchRecord`).

    Raises `ConfigError` where `out` can't be written. Where the data folder can't, that is a warning: the ranking is
    there all the same, and the result is None.
    """
    from fieldscope.core.private import close_to_others
    from fieldscope.eval.runs.searches import LONGEST_NAME, SearchFolder, SearchRecord, default_searches
    from fieldscope.service.metadata.store import write_records

    record = SearchRecord(name=name[:LONGEST_NAME], collection=collection, request=dict(request))
    made_with = rankings[0].made_with
    assert made_with is not None
    locator = getattr(rankings[0].images, "locator", None)
    folder = None
    try:
        if out is None:
            folder = default_searches().begin(record)
        else:
            folder = SearchFolder(out)
            folder.write(record)
        folder.keep(
            [ranking.result for ranking in rankings],
            made_with.strategy,
            made_with.calibration,
            {"lmm": made_with.lmm, "encoder": made_with.encoder},
            locator() if locator is not None else None,
        )
        if any(ranking.records for ranking in rankings):
            ids = {ranked.image_id: ranked.image_id for ranking in rankings for ranked in ranking.result.ranking}
            write_records(folder.path, rankings[0].records.renamed(ids))
    except ConfigError as error:
        if out is not None:
            raise
        warn(f"The ranking is not kept: {error}")
        if folder is not None:
            with suppress(ConfigError):
                folder.delete()
        return None
    if out is None:
        close_to_others(folder.path)
    else:
        note(f"Kept in {folder.path}.")
    return folder.path
