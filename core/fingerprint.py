"""Fingerprints: the SHA-256 of canonical JSON, of decoded pixels, and of weight files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image as PILImage

_ROWS = 512


def canonical_json(value: Any) -> str:
    """One spelling for equal values: sorted keys, no spaces, no NaN. Raises TypeError or ValueError for the rest."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint(value: Any) -> str:
    """SHA-256 (64 hexadecimal digits) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def fingerprint_pixels(image: PILImage.Image) -> str:
    """SHA-256 of an image's decoded RGB pixels and size, so that it survives another encoding of the same picture."""
    digest = hashlib.sha256(f"{image.width}x{image.height}:".encode())
    for top in range(0, image.height, _ROWS):  # a large picture is never copied as a whole
        bottom = min(top + _ROWS, image.height)
        rows = image if bottom - top == image.height else image.crop((0, top, image.width, bottom))
        digest.update((rows if rows.mode == "RGB" else rows.convert("RGB")).tobytes())
    return digest.hexdigest()


def fingerprint_files(paths: Iterable[Path]) -> str:
    """SHA-256 over names and contents of files, in order of name: the identity of a local checkpoint."""
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda p: p.name):
        digest.update(f"{path.name}:{path.stat().st_size}:".encode())
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
