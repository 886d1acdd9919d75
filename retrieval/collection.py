"""Image collections over files: images by id, opened safely, decoded once for both their pixels and their hash."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, runtime_checkable

from PIL import Image as PILImage

from fieldscope.core.errors import BrokenImageError, ConfigError
from fieldscope.core.fingerprint import fingerprint_pixels
from fieldscope.core.looks import Region
from fieldscope.core.types import ImageSource
from fieldscope.retrieval.formats import why_other_kind
from fieldscope.retrieval.images import DEFAULT_LIMITS, ImageLimits, open_image
from fieldscope.retrieval.listing import is_hidden, walk, why_skipped
from fieldscope.retrieval.lru import ByteLru
from fieldscope.retrieval.picture_parts import open_regions, picture_size

_DECODED_BYTES = 64_000_000


@runtime_checkable
class Collection(ImageSource, Protocol):
    """An image source that knows what it holds, and how it can be opened again."""

    def ids(self) -> Sequence[str]:
        """The id of every image, those that turn out broken among them, in a fixed order."""
        ...

    def __len__(self) -> int: ...

    def skipped(self) -> Mapping[str, str]:
        """Other files beside the images, by their names as ids, with the reason."""
        ...

    def stamp(self, image_id: str) -> str:
        """A cheap mark that changes when the stored image does. Raises `ImageError` where there is no such image."""
        ...

    def locator(self) -> dict[str, Any]:
        """What `reopen_collection` needs to open this collection again, as JSON."""
        ...


class DecodingCollection(ABC):
    """What collections share: a bounded memory of decoded pictures, and every picture's hash once it is known."""

    def __init__(self, limits: ImageLimits, decoded_bytes: int = _DECODED_BYTES) -> None:
        self.limits = limits
        self._decoded: ByteLru[PILImage.Image] = ByteLru(decoded_bytes)
        self._hashes: dict[str, str] = {}

    @abstractmethod
    def _stored(self, image_id: str) -> Path | bytes:
        """The file of an image, or its bytes. Raises `ImageError`."""

    def skipped(self) -> Mapping[str, str]:
        return {}

    def stored(self, image_id: str) -> Path | bytes:
        """The file of an image, or its bytes where it lies in another file. Raises `ImageError`."""
        return self._stored(image_id)

    def load(self, image_id: str) -> PILImage.Image:
        """The picture as RGB, upright. It is shared: copy it before drawing on it. Raises `ImageError`."""
        image = self._decoded.get(image_id)
        return self._decode(image_id, lambda image: None) if image is None else image

    def size(self, image_id: str) -> tuple[int, int]:
        """Width and height of the upright picture as it is stored, which may be larger than what `load` hands out.
        Raises `ImageError`."""
        return picture_size(self._stored(image_id), self.limits, name=image_id)

    def load_regions(self, image_id: str, regions: Sequence[Region], max_pixels: int) -> list[PILImage.Image]:
        """Parts of the upright picture at the resolution in which it is stored; see `RegionSource`. Raises
        `ImageError`."""
        return open_regions(self._stored(image_id), regions, max_pixels, self.limits, name=image_id)

    def known_hash(self, image_id: str) -> str | None:
        """The hash where it was computed before, else None."""
        return self._hashes.get(image_id)

    def pixel_hash(self, image_id: str) -> str:
        """SHA-256 of the decoded pixels, computed once. Raises `ImageError`."""

        def remember(image: PILImage.Image) -> None:
            self._hashes[image_id] = fingerprint_pixels(image)

        if image_id not in self._hashes:
            image = self._decoded.get(image_id)
            self._decode(image_id, remember) if image is None else remember(image)
        return self._hashes[image_id]

    def _open(self, image_id: str, before_the_next: Callable[[PILImage.Image], None]) -> PILImage.Image:
        """Read and decode one image; see `open_image`. Raises `ImageError`."""
        return open_image(self._stored(image_id), self.limits, name=image_id, before_the_next=before_the_next)

    def _decode(self, image_id: str, before_the_next: Callable[[PILImage.Image], None]) -> PILImage.Image:
        """The same, kept while there is room."""
        image = self._open(image_id, before_the_next)
        self._decoded.put(image_id, image, 3 * image.width * image.height)
        return image


class FolderCollection(DecodingCollection):
    """The image files under a folder, whatever they are called; an id is the path below it, with slashes.

    Links are followed to what lies in the folder, and each folder is listed once. All other files, hidden ones and
    links to elsewhere are `skipped`. A file that lies or links outside of the folder can't be loaded.
    Raises `ConfigError` where `root` is no folder.
    """

    def __init__(self, root: Path, limits: ImageLimits = DEFAULT_LIMITS) -> None:
        super().__init__(limits)
        if not root.is_dir():
            raise ConfigError(f"{str(root)!r} is not a folder; give a folder of images")
        self.root = root.resolve()

    @cached_property
    def _listing(self) -> tuple[tuple[str, ...], dict[str, str]]:
        """The ids, and what is skipped with the reason."""
        ids, skipped = [], {}
        for relative, reason in walk(self.root):
            # A name that is no UTF-8 can't be written to a trace; escaped, it is listed, and reported as missing.
            name = os.fsencode(relative.as_posix()).decode("utf-8", "backslashreplace")
            if reason is None:
                ids.append(name)
            else:
                skipped[name] = reason
        return tuple(sorted(ids)), dict(sorted(skipped.items()))

    def ids(self) -> Sequence[str]:
        return self._listing[0]

    def __len__(self) -> int:
        return len(self.ids())

    def skipped(self) -> Mapping[str, str]:
        return self._listing[1]

    def path(self, image_id: str) -> Path:
        """The file of an id, with links followed. Raises `BrokenImageError` for a file outside of the folder."""
        relative = PurePosixPath(image_id)
        if relative.as_posix() != image_id or relative.is_absolute() or is_hidden(relative):
            raise BrokenImageError(f"{image_id!r} is no image id of {str(self.root)!r}; give a path below it")
        try:
            path = (self.root / relative).resolve(strict=True)
        except (OSError, RuntimeError, ValueError) as error:  # missing, unreadable, a loop of links, a NUL
            raise BrokenImageError(f"{image_id!r} is missing from {str(self.root)!r}; check the file") from error
        if not path.is_relative_to(self.root):
            raise BrokenImageError(f"{image_id!r} links outside of {str(self.root)!r}; copy the file there instead")
        if reason := why_skipped(relative, path, self.root):
            raise BrokenImageError(f"{image_id!r} is no image ({reason}); leave it out")
        return path

    def stamp(self, image_id: str) -> str:
        return file_stamp(self.path(image_id))

    def locator(self) -> dict[str, Any]:
        return {"kind": "folder", "root": str(self.root)}

    def _stored(self, image_id: str) -> Path:
        return self.path(image_id)


class FilesCollection(DecodingCollection):
    """Image files that a user named one by one, each under the id that `files` gives it."""

    def __init__(self, files: Mapping[str, Path], limits: ImageLimits = DEFAULT_LIMITS) -> None:
        super().__init__(limits)
        self.files = {image_id: path.absolute() for image_id, path in files.items()}

    def ids(self) -> Sequence[str]:
        return tuple(self.files)

    def __len__(self) -> int:
        return len(self.files)

    def path(self, image_id: str) -> Path:
        """The file of an id. Raises `BrokenImageError` for an unknown id."""
        if image_id not in self.files:
            raise BrokenImageError(f"{image_id!r} is none of the {len(self)} files given; check the id")
        return self.files[image_id]

    def stamp(self, image_id: str) -> str:
        return file_stamp(self.path(image_id))

    def only(self, image_ids: Iterable[str]) -> FilesCollection:
        """A collection of those of these images that this one has, in its order."""
        wanted = set(image_ids)
        return FilesCollection({i: path for i, path in self.files.items() if i in wanted}, self.limits)

    def locator(self) -> dict[str, Any]:
        return {"kind": "files", "files": {image_id: str(path) for image_id, path in self.files.items()}}

    def _stored(self, image_id: str) -> Path:
        path = self.path(image_id)
        if reason := why_other_kind(path):
            raise BrokenImageError(f"{image_id!r} is no image ({reason}); leave it out")
        return path


def file_stamp(path: Path) -> str:
    """Size in bytes and time of change of a file. Raises `BrokenImageError` where there is none."""
    try:
        status = path.stat()
    except OSError as error:
        raise BrokenImageError(f"{str(path)!r} can't be read ({error.strerror}); check the file") from error
    return f"{status.st_size}:{status.st_mtime_ns}"
