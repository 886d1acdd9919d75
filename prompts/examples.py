"""Worked examples of a prompt: earlier turns of the conversation, with pictures that lie beside the prompt's file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from fieldscope.core.errors import PromptError
from fieldscope.core.fingerprint import fingerprint_pixels

if TYPE_CHECKING:
    from PIL import Image as PILImage

MOST_EXAMPLES = 16
MOST_PICTURES = 5  # in one example: a reference and four candidates
MOST_BYTES = 20_000_000
MOST_PIXELS = 40_000_000

_FORMATS = ("PNG", "JPEG", "WEBP")
_PREFIX = "prompt-example/"


class Picture(BaseModel):
    """A picture of an example: its path, relative to the folder of the prompt's file, and the hash of its pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    sha256: str
    # Not a field, so that no record of a run can name a file to be read.
    _file: Path | None = PrivateAttr(default=None)

    @property
    def image_id(self) -> str:
        """Its id in requests. No collection has it: it is made of the hash."""
        return f"{_PREFIX}{self.sha256}"

    @property
    def file(self) -> Path | None:
        """Where it lies; None in a prompt that was read back from a run."""
        return self._file

    @classmethod
    def read(cls, path: str, folder: Path) -> Picture:
        """The picture at `path` in `folder`. Raises `PromptError` where it lies outside of that folder, is too large,
        or can't be read."""
        file = (folder / path).resolve()
        if not file.is_relative_to(folder.resolve()):
            raise PromptError(f"{path} lies outside of the prompt's folder {folder}; copy it into that folder")
        picture = cls(path=path, sha256=fingerprint_pixels(read_pixels(file)))
        picture._file = file
        return picture


class Example(BaseModel):
    """One turn: what the user shows and says, and the answer. Its pictures come first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: tuple[Picture, ...] = Field(default=(), max_length=MOST_PICTURES)
    text: str = Field(min_length=1)
    answer: str = Field(min_length=1)


def read_examples(entries: Any, folder: Path) -> list[dict[str, Any]]:
    """The entries of a front matter's `examples` with their pictures read. Raises `PromptError`."""
    if not isinstance(entries, Sequence) or isinstance(entries, str) or len(entries) > MOST_EXAMPLES:
        raise PromptError(f"`examples` must be a list of at most {MOST_EXAMPLES} examples; correct it")
    return [_with_pictures(entry, folder) for entry in entries]


def read_pixels(file: Path) -> PILImage.Image:
    """The picture as RGB, EXIF orientation applied. Raises `PromptError` for a file that is no PNG, JPEG or WebP, or is
    too large."""
    from PIL import Image as PILImage
    from PIL import ImageOps

    try:
        if file.stat().st_size > MOST_BYTES:
            raise PromptError(f"{file} has more than {MOST_BYTES:,} bytes; make the picture smaller")
        with PILImage.open(file, formats=_FORMATS) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                raise PromptError(f"{file} has more than {MOST_PIXELS:,} pixels; make the picture smaller")
            return ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError, SyntaxError, PILImage.DecompressionBombError) as error:
        raise PromptError(
            f"{file} can't be read as a PNG, JPEG or WebP picture; check the path and the file"
        ) from error


def _with_pictures(entry: Any, folder: Path) -> Any:
    paths = entry.get("images", ()) if isinstance(entry, dict) else ()
    if not isinstance(paths, list | tuple) or not all(isinstance(path, str) for path in paths):
        raise PromptError("`images` of an example must be a list of paths; write `[heron.jpg]`")
    if not paths:
        return entry
    if len(paths) > MOST_PICTURES:
        raise PromptError(f"an example has at most {MOST_PICTURES} pictures; leave some out")
    return {**entry, "images": tuple(Picture.read(path, folder) for path in paths)}
