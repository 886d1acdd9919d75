"""Images as a caller in Python gives them: a folder, files, decoded images, or the bytes of image files."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from PIL import Image as PILImage

from fieldscope.core.errors import BrokenImageError, ConfigError
from fieldscope.retrieval.collection import DecodingCollection
from fieldscope.retrieval.images import DEFAULT_LIMITS, ImageLimits, upright_rgb
from fieldscope.retrieval.picture_parts import regions_of, upright_size

if TYPE_CHECKING:
    from fieldscope.core.looks import Region
    from fieldscope.service.workflows.candidates import Chosen

OneImage: TypeAlias = str | PathLike[str] | bytes | PILImage.Image
"""The path of a file, the bytes of one, or a decoded image."""

Images: TypeAlias = OneImage | Sequence[OneImage] | Mapping[str, OneImage]
"""A folder or a Parquet file by its path, one image or several, or several with the ids that they shall have."""


class GivenImages(DecodingCollection):
    """Images from a Python program, each under the id that `sources` gives it. A decoded image is read, never changed;
    whoever draws on it while it is ranked gets an `ImageError` for it."""

    def __init__(self, sources: Mapping[str, OneImage], limits: ImageLimits = DEFAULT_LIMITS) -> None:
        super().__init__(limits)
        self.sources = dict(sources)
        self._decoding = threading.Lock()

    def ids(self) -> Sequence[str]:
        return tuple(self.sources)

    def __len__(self) -> int:
        return len(self.sources)

    def path(self, image_id: str) -> Path:
        """The file of an image that was given by its path. Raises `BrokenImageError` for any other."""
        source = self._source(image_id)
        if isinstance(source, bytes | PILImage.Image):
            raise BrokenImageError(f"image {image_id!r} was not given as a file; load it instead")
        return Path(source)

    def stamp(self, image_id: str) -> str:
        return self.pixel_hash(image_id)

    def locator(self) -> dict[str, Any]:
        files = {
            image_id: str(Path(source).absolute())
            for image_id, source in self.sources.items()
            if not isinstance(source, bytes | PILImage.Image)
        }
        return {"kind": "files", "files": files}

    def _source(self, image_id: str) -> OneImage:
        if image_id not in self.sources:
            raise BrokenImageError(f"{image_id!r} is none of the {len(self)} images given; check the id")
        return self.sources[image_id]

    def _stored(self, image_id: str) -> Path | bytes:
        source = self._source(image_id)
        return source if isinstance(source, bytes) else self.path(image_id)

    def _open(self, image_id: str, before_the_next: Callable[[PILImage.Image], None]) -> PILImage.Image:
        source = self._source(image_id)
        if not isinstance(source, PILImage.Image):
            return super()._open(image_id, before_the_next)
        with self._decoded_one(image_id):
            rgb = upright_rgb(source)
            before_the_next(rgb)
            return rgb

    def size(self, image_id: str) -> tuple[int, int]:
        source = self._source(image_id)
        return upright_size(source) if isinstance(source, PILImage.Image) else super().size(image_id)

    def load_regions(self, image_id: str, regions: Sequence[Region], max_pixels: int) -> list[PILImage.Image]:
        source = self._source(image_id)
        if not isinstance(source, PILImage.Image):
            return super().load_regions(image_id, regions, max_pixels)
        with self._decoded_one(image_id):
            return regions_of(source, regions, max_pixels)

    @contextmanager
    def _decoded_one(self, image_id: str) -> Iterator[None]:
        """One image is read at a time: Pillow reads a file lazily, and two images may share one."""
        try:
            with self._decoding:
                yield
        except (OSError, ValueError, SyntaxError, MemoryError) as error:
            message = f"image {image_id!r} can't be decoded ({error}); replace it or leave it out"
            raise BrokenImageError(message) from error


def open_given(images: Images) -> Chosen:
    """The images to rank. A single path may be a folder or a Parquet file. Images without a path or an id of their own
    are called `image-1`, `image-2` ... by their place.

    Raises `ConfigError` where there are none, and `TypeError` for anything else than paths, bytes and Pillow's images.
    """
    from fieldscope.service.workflows.candidates import Chosen, open_chosen

    if isinstance(images, str | PathLike):
        return open_chosen([Path(images)])
    if not isinstance(images, Mapping):
        listed = [images] if isinstance(images, bytes | PILImage.Image) else list(images)
        paths = [Path(image) for image in listed if isinstance(image, str | PathLike)]
        if paths and len(paths) == len(listed):
            return open_chosen(paths)
        images = {_name(image, place): image for place, image in enumerate(listed, start=1)}
    if not images:
        raise ConfigError("no images were given; give a folder, paths, Pillow images, or the bytes of image files")
    for image_id, image in images.items():
        if not isinstance(image, str | PathLike | bytes | PILImage.Image):
            raise TypeError(f"image {image_id!r} is a {type(image).__name__}; give a path, a Pillow image, or bytes")
    return Chosen(GivenImages(images), {})


def _name(image: OneImage, place: int) -> str:
    return Path(image).as_posix() if isinstance(image, str | PathLike) else f"image-{place}"
