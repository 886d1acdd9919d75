"""Several image collections as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from fieldscope.core.documents import has_image, text_of
from fieldscope.core.errors import BrokenImageError
from fieldscope.retrieval.looked_at import cut, stored_size

if TYPE_CHECKING:
    from PIL import Image as PILImage

    from fieldscope.core.looks import Region
    from fieldscope.retrieval.collection import Collection


@runtime_checkable
class _HasPaths(Protocol):
    """A collection whose images are files."""

    def path(self, image_id: str) -> Path: ...


class UnionCollection:
    """The images of several collections; an id is a part's prefix, and behind it the id in that part.

    Where one prefix begins another, the longer one counts.
    """

    def __init__(self, parts: Mapping[str, Collection]) -> None:
        self.parts = dict(sorted(parts.items(), key=lambda part: -len(part[0])))

    def ids(self) -> Sequence[str]:
        return tuple(prefix + image_id for prefix, part in self.parts.items() for image_id in part.ids())

    def __len__(self) -> int:
        return sum(map(len, self.parts.values()))

    def skipped(self) -> Mapping[str, str]:
        return {prefix + name: why for prefix, part in self.parts.items() for name, why in part.skipped().items()}

    def load(self, image_id: str) -> PILImage.Image:
        part, inner = self._find(image_id)
        return part.load(inner)

    def pixel_hash(self, image_id: str) -> str:
        part, inner = self._find(image_id)
        return part.pixel_hash(inner)

    def size(self, image_id: str) -> tuple[int, int]:
        part, inner = self._find(image_id)
        return stored_size(part, inner)

    def load_regions(self, image_id: str, regions: Sequence[Region], max_pixels: int) -> list[PILImage.Image]:
        part, inner = self._find(image_id)
        return cut(part, inner, regions, max_pixels)

    def path(self, image_id: str) -> Path:
        """The file of an image. Raises `ImageError` for one that has none of its own."""
        part, inner = self._find(image_id)
        if not isinstance(part, _HasPaths):
            raise BrokenImageError(f"{image_id!r} has no file of its own; read its pixels instead")
        return part.path(inner)

    def text_of(self, document_id: str) -> str:
        part, inner = self._find(document_id)
        return text_of(part, inner)

    def has_image(self, document_id: str) -> bool:
        part, inner = self._find(document_id)
        return has_image(part, inner)

    def stamp(self, image_id: str) -> str:
        part, inner = self._find(image_id)
        return part.stamp(inner)

    def locator(self) -> dict[str, Any]:
        return {"kind": "union", "parts": {prefix: part.locator() for prefix, part in self.parts.items()}}

    def _find(self, image_id: str) -> tuple[Collection, str]:
        for prefix, part in self.parts.items():
            if image_id.startswith(prefix):
                return part, image_id.removeprefix(prefix)
        raise BrokenImageError(f"{image_id!r} is in none of {len(self.parts)} collections; check the id")
