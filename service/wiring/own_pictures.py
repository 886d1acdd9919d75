"""Recognises FieldNotes' own images, which the bundled models know, by their pixels."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import ImageError
from fieldscope.core.paths import cache_folder

if TYPE_CHECKING:
    from fieldscope.core.types import ImageSource

LARGEST = 5000
"""FieldNotes has fewer images than this, so a larger collection is not compared."""


def all_fieldnotes(images: ImageSource, ids: Iterable[str]) -> bool:
    """Whether every picture that can be read is one of FieldNotes'.

    They are compared with those that FieldNotes has rendered into the cache folder. Where it has rendered none, every
    image is foreign. Stops at the first foreign one.
    """
    ids = list(ids)
    own = known_hashes() if len(ids) <= LARGEST else frozenset()
    for image_id in ids if own else ():
        with suppress(ImageError):
            if images.pixel_hash(image_id) not in own:
                return False
    return bool(own)


def known_hashes() -> frozenset[str]:
    """The pixel hashes of all of FieldNotes' pictures that were rendered into the cache folder."""
    from fieldscope.fieldnotes.collection import published_checksums

    folders = ((cache_folder() / "fieldnotes" / split, checksum) for split, checksum in published_checksums().items())
    return frozenset(sha256 for folder, checksum in folders for sha256 in _hashes_in(folder, checksum))


def _hashes_in(folder: Path, checksum: str) -> list[str]:
    """The pixel hashes of a rendered and verified split; computed once, then kept beside it."""
    try:
        if (folder / "verified.sha256").read_text(encoding="utf-8") != checksum:
            return []
    except OSError:
        return []
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads((folder / "hashes.json").read_text(encoding="utf-8"))
        if kept["checksum"] == checksum:
            return [str(sha256) for sha256 in kept["hashes"]]
    return _compute(folder, checksum)


def _compute(folder: Path, checksum: str) -> list[str]:
    from fieldscope.core.files import replace_file
    from fieldscope.retrieval.collection import FolderCollection

    pictures = FolderCollection(folder)
    hashes = [pictures.pixel_hash(image_id) for image_id in pictures.ids()]
    text = json.dumps({"checksum": checksum, "hashes": hashes})
    with suppress(OSError):
        replace_file(folder / "hashes.json", text)
    return hashes
