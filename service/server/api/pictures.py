"""The images of a call: uploaded ones, kept within limits so that a trace can show them later, and those of the
registered collections."""

from __future__ import annotations

import io
import os
import threading
import weakref
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from PIL import Image as PILImage

from fieldscope.core.errors import BrokenImageError
from fieldscope.core.fingerprint import fingerprint_pixels
from fieldscope.core.private import private_file, private_folder
from fieldscope.retrieval.collection import Collection, DecodingCollection, file_stamp
from fieldscope.retrieval.images import ImageLimits, open_full, upright_rgb
from fieldscope.retrieval.manifest import writing
from fieldscope.retrieval.union import UnionCollection
from fieldscope.service.server.api.errors import ApiError

SCHEME = "fieldscope://"
"""The prefix of a registered collection's image id, before the collection's name and a slash."""

UPLOADED = "uploaded/"
"""The prefix of an uploaded image's id."""

DEFAULT_BYTES = 2_000_000_000

_DECODED_BYTES = 32_000_000

_SUFFIX = ".png"


def reference(collection: str, image_id: str) -> str:
    """The id, in a call, of a registered collection's image."""
    return f"{SCHEME}{collection}/{image_id}"


class PictureStore(DecodingCollection):
    """Uploaded images as files in a folder, each named by the hash of its pixels: the same image twice is one file.

    Only decoded pixels are kept, as PNG, so that nothing hidden in an uploaded file is stored. The files have at most
    `max_bytes` together: the least recently used are deleted first, except those that a call at work holds. One process
    writes to a folder. Safe to use from several threads. Raises `ConfigError` if the folder can't be written to.
    """

    def __init__(self, folder: Path, limits: ImageLimits, max_bytes: int = DEFAULT_BYTES) -> None:
        # What was small as a JPEG may be large as a PNG.
        super().__init__(replace(limits, max_bytes=max_bytes), _DECODED_BYTES)
        self._uploads = limits
        self.folder = folder
        self.max_bytes = max_bytes
        self._lock = threading.RLock()
        self._held: Counter[str] = Counter()
        with writing(folder):
            private_folder(folder)
            files = sorted((path.stat().st_mtime_ns, path.name, path.stat().st_size) for path in folder.glob("*.png"))
            for left in folder.glob(".*.png"):  # of a process that was killed while it wrote
                left.unlink(missing_ok=True)
        self._sizes = OrderedDict((name, size) for _, name, size in files if not name.startswith("."))
        self.stored_bytes = sum(self._sizes.values())

    def add(self, data: bytes, name: str) -> str:
        """Store the image in a file's bytes, hold it until it is released, and return its id here. Errors call it
        `name`. Raises `ImageError`, and `ApiError` if calls at work hold all the space."""
        full = open_full(data, self._uploads, name=name)
        image = upright_rgb(full)
        image_id = fingerprint_pixels(image) + _SUFFIX
        if not self._hold(image_id):
            png = _png(full)
            with self._lock:
                self._make_room(len(png))
                self._count(image_id, len(png))
                self._held[image_id] += 1
            self._write(image_id, png)
        self._decoded.put(image_id, image, 3 * image.width * image.height)
        return image_id

    def release(self, image_ids: Iterable[str]) -> None:
        """Release images, once each."""
        with self._lock:
            self._held.subtract(image_ids)
            self._held = +self._held

    def ids(self) -> Sequence[str]:
        with self._lock:
            return tuple(self._sizes)

    def __len__(self) -> int:
        return len(self._sizes)

    def pixel_hash(self, image_id: str) -> str:
        """The hash of the image's pixels. Raises `BrokenImageError` for an image that is not stored."""
        self._require(image_id)
        return image_id.removesuffix(_SUFFIX)

    def stamp(self, image_id: str) -> str:
        self._require(image_id)
        return file_stamp(self.folder / image_id)

    def locator(self) -> dict[str, Any]:
        return {"kind": "folder", "root": str(self.folder.resolve())}

    def _stored(self, image_id: str) -> Path:
        self._require(image_id)
        return self.folder / image_id

    def _require(self, image_id: str) -> None:
        if image_id not in self._sizes:
            raise BrokenImageError(f"the uploaded image {image_id!r} was deleted; upload it again")

    def _hold(self, image_id: str) -> bool:
        """Hold a stored image, as the one used last."""
        with self._lock:
            if image_id not in self._sizes:
                return False
            try:
                os.utime(self.folder / image_id)  # tells the next process when it was last used
            except OSError:
                return False
            self._sizes.move_to_end(image_id)
            self._held[image_id] += 1
            return True

    def _count(self, image_id: str, size: int) -> None:
        self.stored_bytes += size - self._sizes.pop(image_id, 0)
        self._sizes[image_id] = size

    def _make_room(self, size: int) -> None:
        while self.stored_bytes + size > self.max_bytes:
            image_id = next((name for name in self._sizes if not self._held[name]), None)
            if image_id is None:
                raise _full("calls at work hold all the space for images")
            self.stored_bytes -= self._sizes.pop(image_id)
            (self.folder / image_id).unlink(missing_ok=True)

    def _write(self, image_id: str, png: bytes) -> None:
        fresh = self.folder / f".{uuid4().hex}.png"  # several threads may write one image
        try:
            private_file(fresh)
            fresh.write_bytes(png)
            fresh.replace(self.folder / image_id)
        except OSError as error:
            with self._lock:
                self.stored_bytes -= self._sizes.pop(image_id, 0)
                self._held[image_id] -= 1
            fresh.unlink(missing_ok=True)
            raise _full(f"images can't be stored ({error.strerror})") from error


class CallImages(UnionCollection):
    """The image source of one call: registered collections by `fieldscope://NAME/ID`, uploads by `uploaded/HASH.png`.

    The images that it keeps stay in the store while this object is in use.
    """

    def __init__(self, store: PictureStore, collections: Mapping[str, Collection]) -> None:
        super().__init__({**{reference(name, ""): images for name, images in collections.items()}, UPLOADED: store})
        self._store = store
        self._kept: list[str] = []
        weakref.finalize(self, store.release, self._kept)

    def keep(self, data: bytes, name: str) -> str:
        """Store an image, given a file's bytes, and return its id. Raises as `PictureStore.add` does."""
        image_id = self._store.add(data, name)
        self._kept.append(image_id)
        return UPLOADED + image_id


def _full(reason: str) -> ApiError:
    return ApiError(503, "pictures_full", f"{reason}; try again later", retry_after=10)


def _png(image: PILImage.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
