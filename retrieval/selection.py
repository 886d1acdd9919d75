"""Some images of a collection, as a collection of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldscope.core.errors import BrokenImageError
from fieldscope.core.types import RemembersHashes
from fieldscope.retrieval.union import UnionCollection

if TYPE_CHECKING:
    from fieldscope.retrieval.collection import Collection


class Selection(UnionCollection):
    """These `ids` of a collection, in this order; all others are still handed out to those who know them."""

    def __init__(self, images: Collection, ids: Sequence[str]) -> None:
        super().__init__({"": images})
        self.images = images
        self._ids = tuple(ids)

    def ids(self) -> Sequence[str]:
        return self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def skipped(self) -> Mapping[str, str]:
        return self.images.skipped()

    def known_hash(self, image_id: str) -> str | None:
        """The hash where it is known without reading the image, else None."""
        return self.images.known_hash(image_id) if isinstance(self.images, RemembersHashes) else None

    def path(self, image_id: str) -> Path:
        """The file of an image. Raises `BrokenImageError` for one that has no file of its own."""
        find = getattr(self.images, "path", None)
        if find is None:
            raise BrokenImageError(f"{image_id!r} has no file of its own; load it instead")
        path: Path = find(image_id)
        return path

    def locator(self) -> dict[str, Any]:
        return self.images.locator()
