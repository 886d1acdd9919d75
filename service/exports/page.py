"""A search as one static page: its finds with small pictures, reasons and metadata, which a browser opens from a
folder, without a server and without a script."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image as PILImage

from fieldscope.core.errors import ConfigError, ImageError
from fieldscope.core.files import replace_file
from fieldscope.retrieval.looked_at import load_reduced
from fieldscope.service.exports.finds import Finds
from fieldscope.service.viewer.rendering import environment
from fieldscope.service.wiring.feedback import progress
from fieldscope.service.workflows.ranked_image import RankedImage

PICTURE_BYTES = 15_000
"""The most that a picture takes, so that a page of 100 is under 2 MB."""

_SIZES = ((320, 76), (320, 60), (320, 45), (240, 45), (160, 45), (120, 30), (64, 20))  # side in pixels, WebP's quality
_DECODED = 1_000_000  # pixels
_COLUMNS = 30
_CELL = 200  # characters


@dataclass(frozen=True)
class _Shown:
    """An image on the page. `address` is that of its picture, None where it can't be read."""

    image: RankedImage
    address: str | None
    mark: str | None
    metadata: tuple[tuple[str, str], ...]


def write_page(finds: Finds, folder: Path) -> Path:
    """Write `index.html` and the pictures into `folder`, and return the page's path. A picture takes at most
    `PICTURE_BYTES`.

    Raises `ConfigError` for a folder with other files in it, and where the disk refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(path.name not in ("index.html", "pictures") for path in folder.iterdir()):
            raise ConfigError(f"{folder} has other files in it. Choose another folder")
        with progress("writing pictures") as report:
            shown = []
            for done, image in enumerate(finds.images, start=1):
                shown.append(_show(image, finds, folder))
                report(done, len(finds.images))
        page = environment().get_template("finds.html").render(finds=finds, shown=shown, ranking=finds.ranking)
        replace_file(folder / "index.html", page)
    except OSError as error:
        raise ConfigError(
            f"can't write to {folder} ({error.strerror or error}). Choose another folder, or free some disk space"
        ) from error
    return folder / "index.html"


def _show(image: RankedImage, finds: Finds, folder: Path) -> _Shown:
    address: str | None = f"pictures/{image.rank:05d}.webp"
    try:
        replace_file(folder / f"{address}", _small(load_reduced(finds.ranking.images, image.image_id, _DECODED)))
    except ImageError:
        address = None
    cells = [(column, image.metadata[column]) for column in finds.columns if column in image.metadata]
    cut = tuple((column, cell if len(cell) <= _CELL else f"{cell[:_CELL]}...") for column, cell in cells[:_COLUMNS])
    return _Shown(image, address, finds.marks.get(image.image_id), cut)


def _small(image: PILImage.Image) -> bytes:
    """The picture as WebP, in the largest size that is small enough."""
    data = b""
    for side, quality in _SIZES:
        small = image.copy()  # the collection's own is shared
        small.thumbnail((side, side), PILImage.Resampling.LANCZOS, reducing_gap=2.0)
        stream = io.BytesIO()
        small.save(stream, "WEBP", quality=quality, method=4)
        data = stream.getvalue()
        if len(data) <= PICTURE_BYTES:
            break
    return data
