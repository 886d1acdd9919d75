"""Thumbnails and large images, made once from the runs' collections and kept in the user's cache folder."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Literal

from PIL import Image as PILImage
from PIL import ImageDraw

from fieldscope.core.documents import has_image, text_of
from fieldscope.core.errors import ConfigError, ImageError
from fieldscope.core.files import replace_file
from fieldscope.core.looks import read_look
from fieldscope.core.paths import cache_folder
from fieldscope.retrieval.collection import Collection
from fieldscope.retrieval.looked_at import LOOK_PIXELS, load_reduced, show
from fieldscope.retrieval.opening import reopen_collection
from fieldscope.service.viewer.addresses import unslug
from fieldscope.service.viewer.runs.run_list import RunList
from fieldscope.service.viewer.text_card import text_card

Size = Literal["thumbnails", "pictures"]

_LONGEST_SIDE: dict[Size, int] = {"thumbnails": 160, "pictures": 1024}
_QUALITY: dict[Size, int] = {"thumbnails": 82, "pictures": 90}
_AT_ONCE = 2  # images being decoded; each may take 150 MB
_decoding = threading.BoundedSemaphore(_AT_ONCE)


@dataclass(frozen=True)
class Picture:
    """An image as WebP. `found` is false for a placeholder."""

    webp: bytes
    found: bool


class Pictures:
    """The images of all runs in the list, by the key of their collection and the slug of their id. Thread-safe."""

    def __init__(self, run_list: RunList) -> None:
        self._run_list = run_list
        self._collections: dict[str, Collection] = {}
        self._stamps: dict[tuple[str, str], str] = {}
        self._searching = threading.Lock()

    def picture(self, size: Size, collection: str, name: str) -> Picture:
        """An image in this size at most; a placeholder if it is missing, broken, or in no run's collection."""
        try:
            images = self._collection(collection)
            if images is not None:
                # Listing the ids of millions of images takes long, and only names that are hashes need it.
                image_id = unslug(name, self._ids(collection, images) if name.startswith("~~") else ())
                if image_id is not None:
                    images = self._fresh(collection, images, _stored(images, image_id))
                    return Picture(shown(size, collection, images, image_id), True)
        except (ImageError, ConfigError):
            pass
        return Picture(_placeholder(), False)

    def _ids(self, key: str, images: Collection) -> Iterator[str]:
        """The ids of the images, and of the looks at them that runs recorded."""
        yield from images.ids()
        for run in self._run_list.runs():
            if run.collection_key == key:
                yield from (image_id for image_id in run.hashes if read_look(image_id) is not None)

    def _fresh(self, key: str, images: Collection, image_id: str) -> Collection:
        """The collection, opened again if the image's file changed.

        Raises `ImageError`, or `ConfigError` if the collection no longer exists.
        """
        stamp = images.stamp(image_id)
        with self._searching:
            if self._stamps.setdefault((key, image_id), stamp) != stamp:
                self._stamps[key, image_id] = stamp
                self._collections[key] = reopen_collection(images.locator())
            return self._collections[key]

    def _collection(self, key: str) -> Collection | None:
        with self._searching:
            if key not in self._collections:
                for run in self._run_list.runs():
                    if not isinstance(run.collection, str):
                        self._collections.setdefault(run.collection_key, run.collection)
            return self._collections.get(key)


def shown(size: Size, collection: str, images: Collection, image_id: str) -> bytes:
    """An image of the collection with the key `collection`, what a look at one shows, or a text as a card, in this size
    at most, as WebP; made once and kept. Raises `ImageError`."""
    stamp = images.stamp(_stored(images, image_id))
    name = sha256(f"{image_id}\0{stamp}".encode("utf-8", "surrogatepass")).hexdigest()[:40]
    path = cache_folder() / "viewer" / size / collection / f"{name}.webp"
    try:
        return path.read_bytes()
    except OSError:
        pass
    with _decoding:
        seen = read_look(image_id)
        looked = seen is not None and _stored(images, image_id) != image_id
        if not has_image(images, image_id):
            image = text_card(text_of(images, image_id))
        else:
            image = show(images, *seen) if looked and seen else load_reduced(images, image_id, LOOK_PIXELS)
        made = _shrunk(image, size)
    _keep(path, made)
    return made


def _stored(images: Collection, image_id: str) -> str:
    """The image that an id is a look at; the id itself where it is an image's own, whatever it is called."""
    seen = read_look(image_id)
    if seen is None:
        return image_id
    try:
        images.stamp(image_id)
    except ImageError:
        return seen[0]
    return image_id


def _shrunk(image: PILImage.Image, size: Size) -> bytes:
    small = image.copy()  # the collection's own is shared
    small.thumbnail((_LONGEST_SIDE[size],) * 2, PILImage.Resampling.LANCZOS)
    return _webp(small, _QUALITY[size])


def _webp(image: PILImage.Image, quality: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=quality, method=4)
    return stream.getvalue()


@cache
def _placeholder() -> bytes:
    """A grey card with a cross, for a missing image."""
    image = PILImage.new("RGB", (160, 120), "#d8d8d4")
    draw = ImageDraw.Draw(image)
    draw.rectangle((1, 1, 158, 118), outline="#8a8a86", width=2)
    for line in ((64, 44, 96, 76), (64, 76, 96, 44)):
        draw.line(line, fill="#8a8a86", width=4)
    return _webp(image, 80)


def _keep(path: Path, data: bytes) -> None:
    """Remember, if the disk lets us: what is kept only saves time."""
    with suppress(OSError):
        replace_file(path, data, private=True)
