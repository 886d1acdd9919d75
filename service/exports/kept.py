"""The finds of a search that was kept, with people's marks, from its folder alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import BrokenImageError, ConfigError
from fieldscope.retrieval.collection import FilesCollection
from fieldscope.retrieval.union import UnionCollection
from fieldscope.service.exports.finds import Finds, finds_of
from fieldscope.service.viewer.runs.run import open_run
from fieldscope.service.wiring.feedback import note
from fieldscope.service.workflows.marks import open_marked
from fieldscope.service.workflows.ranking import Ranking

if TYPE_CHECKING:
    from fieldscope.retrieval.collection import Collection


def open_finds(folder: Path, query: str | None = None, by: str | None = None) -> Finds:
    """The accepted images of a kept search, all of them where nothing is marked. `query` is one of its queries by id or
    text, and may be left out where there is one; `by` a person whose marks count alone.

    Raises `ConfigError` for a folder without a finished query, and where no image is accepted.
    """
    marked = open_marked(folder, query, by)
    if len(marked) > 1:
        raise ConfigError(f"{folder} has {len(marked)} queries. Name one with --query.")
    run = open_run(folder.name, folder.name, folder, None, None)
    images = run.collection
    if isinstance(images, str):
        note(f"The images are not shown: {images}")
        images = FilesCollection({})
    ranking = Ranking(marked[0].result, _located(images), records=run.records)
    marks: Mapping[str, str] = marked[0].marks
    return finds_of(ranking, marks)


def _located(images: Collection) -> Collection:
    return _Located(images.parts) if isinstance(images, UnionCollection) else images


class _Located(UnionCollection):
    """Several collections whose images have files."""

    def path(self, image_id: str) -> Path:
        """The file of an image. Raises `BrokenImageError` for one without."""
        part, inner = self._find(image_id)
        find = getattr(part, "path", None)
        if find is None:
            raise BrokenImageError(f"{image_id!r} has no file of its own; load it instead")
        path: Path = find(inner)
        return path
