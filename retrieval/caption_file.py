"""Files of captions that other programs made: ImageScope's `image_caption.json` (arXiv 2503.10166), or any other JSON
object of image names and captions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from fieldscope.core.errors import ConfigError


def read_caption_file(file: Path) -> dict[str, str]:
    """Image name -> caption, as the file has them. Raises `ConfigError`, in a line that names the file and the entry,
    for a file that can't be read or is of another shape."""
    try:
        named = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file} can't be read as JSON ({error}); give a file of image names and captions") from error
    if not isinstance(named, dict):
        raise ConfigError(f"{file} is no JSON object of image names and captions; give such a file")
    if wrong := next((name for name, caption in named.items() if not isinstance(caption, str)), None):
        raise ConfigError(f"{file}: {wrong}: the caption is no text; correct the file")
    return named


def by_image(named: Mapping[str, str], image_ids: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Image id -> caption, and the names that are no image's. A name is an id, or one with or without a folder, an
    ending or leading zeros: CIRCO's image 8 is `000000000008.jpg` there. Blank captions are left out."""
    known = dict.fromkeys(image_ids)
    spelled: dict[str, str] = {}
    for image_id in known:
        for spelling in _spellings(image_id):
            spelled.setdefault(spelling, image_id)
    captions: dict[str, str] = {}
    unknown = []
    for name, caption in named.items():
        wanted = name if name in known else next((spelled[s] for s in _spellings(name) if s in spelled), None)
        if wanted is None:
            unknown.append(name)
        elif caption.strip():
            captions[wanted] = " ".join(caption.split())
    return captions, unknown


def _spellings(name: str) -> Iterator[str]:
    """A name, and shorter ones of the same image: the file's, without its ending, without leading zeros."""
    path = PurePosixPath(name)
    stem = path.name[: -len(path.suffix)] if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp") else path.name
    yield from dict.fromkeys((name, path.name, stem, stem.lstrip("0") or stem))
