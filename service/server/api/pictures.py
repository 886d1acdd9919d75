"""The pictures of a call: those that were uploaded, kept within bounds so that a trace can show them later, and those
of the registered collections."""

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
from fieldscope.retrieval.images import ImageLimits, open_image
from fieldscope.retrieval.manifest import writing
from fieldscope.retrieval.union import UnionCollection
from fieldscope.service.server.api.errors import ApiError

SCHEME = "fieldscope://"
"""What the id of a registered collection's image begins with, before the collection's name and a slash."""

UPLOADED = "uploaded/"
"""What the id of an uploaded picture begins with."""

DEFAULT_BYTES = 2_000_000_000

_DECODED_BYTES = 32_000_000

_SUFFIX = ".png"


def reference(collection: str, image_id: str) -> str:
    """The id, in a call, of a registered collection's image."""
    return f"{SCHEME}{collection}/{image_id}"


class PictureStore(DecodingCollection):
    """Uploaded pictures as files in a folder, each under the hash of its pixels: the same picture twice is one file.

    Of what came in only decoded pixels are kept, written anew as PNG, so that nothing which hid in a file lies here.
    The files take up `max_bytes` together at most: whatever was not used for longest goes first, but for what a call
    at work still holds. One process writes to a folder. Safe to use from several threads. Raises `ConfigError` where
    the folder can't be written to.
    """

    def __init__(self, folder: Path, limits: ImageLimits, max_bytes: int = DEFAULT_BYTES) -> None:
        super().__init__(limits, _DECODED_BYTES)
        self.folder = folder
        self.max_bytes = max_bytes
        self._lock = threading.RLock()
        self._held: Counter[str] = Counter()
        with writing(folder):
            private_folder(folder)
            found = sorted((path.stat().st_mtime_ns, path.name, path.stat().st_size) for path in folder.glob("*.png"))
            for left in folder.glob(".*.png"):  # of a process that was killed while it wrote
                left.unlink(missing_ok=True)
        self._sizes = OrderedDict((name, size) for _, name, size in found if not name.startswith("."))
        self._bytes = sum(self._sizes.values())

    @property
    def stored_bytes(self) -> int:
        """How much the files take up."""
        return self._bytes

    def add(self, data: bytes, name: str) -> str:
        """Keep the picture in a file's bytes and hold it until it is released; its id here. `name` is what errors call
        it. Raises `ImageError`, and `ApiError` where calls at work hold all the room there is."""
        image = open_image(data, self.limits, name=name)
        image_id = fingerprint_pixels(image) + _SUFFIX
        if not self._hold(image_id):
            png = _png(image)
            with self._lock:
                self._make_room(len(png))
                self._count(image_id, len(png))
                self._held[image_id] += 1
            self._write(image_id, png)
        self._decoded.put(image_id, image, 3 * image.width * image.height)
        return image_id

    def release(self, image_ids: Iterable[str]) -> None:
        """Let go of pictures, once each."""
        with self._lock:
            self._held.subtract(image_ids)
            self._held = +self._held

    def ids(self) -> Sequence[str]:
        with self._lock:
            return tuple(self._sizes)

    def __len__(self) -> int:
        return len(self._sizes)

    def pixel_hash(self, image_id: str) -> str:
        """The hash that the picture goes by. Raises `BrokenImageError` for one that is not here."""
        self._require(image_id)
        return image_id.removesuffix(_SUFFIX)

    def stamp(self, image_id: str) -> str:
        self._require(image_id)
        return file_stamp(self.folder / image_id)

    def locator(self) -> dict[str, Any]:
        return {"kind": "folder", "root": str(self.folder.resolve())}

    def _open(self, image_id: str) -> PILImage.Image:
        self._require(image_id)
        # What was small as a JPEG may be large as a PNG.
        return open_image(self.folder / image_id, replace(self.limits, max_bytes=self.max_bytes), name=image_id)

    def _require(self, image_id: str) -> None:
        if image_id not in self._sizes:
            raise BrokenImageError(f"the uploaded picture {image_id!r} is not kept any more; upload it again")

    def _hold(self, image_id: str) -> bool:
        """Hold a picture that is here already, as the one used last."""
        with self._lock:
            if image_id not in self._sizes:
                return False
            try:
                os.utime(self.folder / image_id)  # what tells the next process how long it was not used
            except OSError:
                return False
            self._sizes.move_to_end(image_id)
            self._held[image_id] += 1
            return True

    def _count(self, image_id: str, size: int) -> None:
        self._bytes += size - self._sizes.pop(image_id, 0)
        self._sizes[image_id] = size

    def _make_room(self, size: int) -> None:
        while self._bytes + size > self.max_bytes:
            image_id = next((each for each in self._sizes if not self._held[each]), None)
            if image_id is None:
                raise _full("calls at work hold all the room for pictures")
            self._bytes -= self._sizes.pop(image_id)
            (self.folder / image_id).unlink(missing_ok=True)

    def _write(self, image_id: str, png: bytes) -> None:
        fresh = self.folder / f".{uuid4().hex}.png"  # several threads may write one picture
        try:
            private_file(fresh)
            fresh.write_bytes(png)
            fresh.replace(self.folder / image_id)
        except OSError as error:
            with self._lock:
                self._bytes -= self._sizes.pop(image_id, 0)
                self._held[image_id] -= 1
            fresh.unlink(missing_ok=True)
            raise _full(f"pictures can't be kept ({error.strerror})") from error


class CallImages(UnionCollection):
    """The image source of one call: registered collections by `fieldscope://NAME/ID`, uploads by `uploaded/HASH.png`.

    What it was given to keep stays in the store for as long as this object is in use.
    """

    def __init__(self, store: PictureStore, collections: Mapping[str, Collection]) -> None:
        super().__init__({**{reference(name, ""): images for name, images in collections.items()}, UPLOADED: store})
        self._store = store
        self._kept: list[str] = []
        weakref.finalize(self, store.release, self._kept)

    def keep(self, data: bytes, name: str) -> str:
        """The id of a picture, given a file's bytes. Raises as `PictureStore.add` does."""
        image_id = self._store.add(data, name)
        self._kept.append(image_id)
        return UPLOADED + image_id


def _full(reason: str) -> ApiError:
    return ApiError(503, "pictures_full", f"{reason}; try again later", retry_after=10)


def _png(image: PILImage.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
