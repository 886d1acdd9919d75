"""The pictures of iNat24 that lie in or beside INQUIRE's tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fieldscope.core.errors import BrokenImageError, ImageError
from fieldscope.retrieval.collection import DecodingCollection, FolderCollection
from fieldscope.retrieval.images import DEFAULT_LIMITS

PROBED = 50
"""So many relevant images, and so many others, are looked for under a folder before it is no image root."""

_ROOTS = ("", "images", "inat24")


class INatImages(DecodingCollection):
    """Images by id under a root, which no path leaves."""

    def __init__(self, root: FolderCollection | None, paths: Mapping[str, str]) -> None:
        super().__init__(DEFAULT_LIMITS)
        self.root = root
        self._paths = paths

    def _stored(self, image_id: str) -> Path:
        path = self._paths.get(image_id)
        if self.root is None or path is None:
            raise BrokenImageError(f"{image_id!r} has no file. Put iNat24's images beside the tables, as inat24/train")
        return self.root.path(path)


def places_of(tables: Path) -> tuple[Path, Path]:
    """Where embeddings and images are looked for: in the folder of the tables, and beside it."""
    return tables, tables.resolve().parent


def image_root(places: Sequence[Path], paths: Sequence[str]) -> FolderCollection | None:
    """The folder, in or beside the tables, under which some of the paths are files; None where there is none.

    What lies beside the tables is searched only in folders made for images.
    """
    folder, beside = places
    roots = [folder / below for below in _ROOTS] + [beside / below for below in _ROOTS if below]
    for root in roots:
        if root.is_dir():
            images = FolderCollection(root)
            if any(_is_there(images, path) for path in paths):
                return images
    return None


def _is_there(images: FolderCollection, path: str) -> bool:
    try:
        images.path(path)
    except ImageError:
        return False
    return True
