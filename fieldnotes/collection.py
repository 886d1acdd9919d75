"""FieldNotes' pictures as files: rendered on first use into the user's cache folder, verified by checksum."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import cache
from hashlib import sha256
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from PIL import __version__ as pillow_version

from fieldscope.core.errors import BenchmarkError
from fieldscope.core.files import replacing
from fieldscope.core.fingerprint import fingerprint_pixels
from fieldscope.core.paths import cache_folder
from fieldscope.fieldnotes.composed import load_composed
from fieldscope.fieldnotes.dialogue import load_dialogue
from fieldscope.fieldnotes.queries import SIZES, Split, load_split
from fieldscope.fieldnotes.render import render
from fieldscope.fieldnotes.scene import Scene
from fieldscope.fieldnotes.universal import MADE, load_universal_pictures
from fieldscope.fieldnotes.universal import SIZES as UNIVERSAL_SIZES
from fieldscope.fieldnotes.unmatched import SIZES as UNMATCHED_SIZES
from fieldscope.fieldnotes.unmatched import load_unmatched
from fieldscope.fieldnotes.wild.queries import SIZES as WILD_SIZES
from fieldscope.fieldnotes.wild.queries import load_wild
from fieldscope.fieldnotes.wild.render import photograph
from fieldscope.fieldnotes.wild.scene import WildScene
from fieldscope.retrieval.progress import Report

CHECKSUMS = Path(__file__).parent / "checksums.json"
_CHUNK = 40


@cache
def published_checksums() -> Mapping[str, str]:
    """Split -> SHA-256 over the pixel hashes of its pictures, in order of id."""
    checksums: dict[str, str] = json.loads(CHECKSUMS.read_text(encoding="utf-8"))
    return checksums


def split_checksum(hashes: Mapping[str, str]) -> str:
    """SHA-256 over pixel hashes in order of numeric id."""
    return sha256("".join(hashes[key] for key in sorted(hashes, key=int)).encode()).hexdigest()


def _draw_missing(
    split: str, files: Mapping[str, Path], progress: Report | None, beside: Callable[[], object] | None = None
) -> dict[str, str]:
    """Draw the pictures whose files are missing, on all cores; their pixel hashes by id."""
    scenes = _load(split).scenes
    missing = [image_id for image_id, path in files.items() if not path.exists()]
    hashes: dict[str, str] = {}
    if missing:
        chunks = [missing[i : i + _CHUNK] for i in range(0, len(missing), _CHUNK)]
        with ProcessPoolExecutor() as pool:
            drawing = pool.map(_draw_chunk, [{i: (scenes[i], files[i]) for i in chunk} for chunk in chunks])
            if beside is not None:
                beside()
            for drawn in drawing:
                hashes |= drawn
                if progress is not None:
                    progress(len(files) - len(missing) + len(hashes), len(files))
    return hashes


def _draw_chunk(work: Mapping[str, tuple[Scene, Path]]) -> dict[str, str]:
    hashes = {}
    for image_id, (scene, path) in work.items():
        if isinstance(scene, WildScene):
            with replacing(path) as partial:
                partial.write_bytes(photograph(scene))
            hashes[image_id] = _hash_file(path)
            continue
        picture = render(scene)
        with replacing(path) as partial:
            picture.save(partial, format="PNG", compress_level=1)  # the quickest; a tenth larger
        hashes[image_id] = fingerprint_pixels(picture)
    return hashes


def _suffix(scene: Scene) -> str:
    return ".jpg" if isinstance(scene, WildScene) else ".png"


def _hashes(files: Mapping[str, Path]) -> dict[str, str]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(files, pool.map(_hash_file, files.values()), strict=True))


def _hash_file(path: Path) -> str:
    try:
        with Image.open(path) as image:
            return fingerprint_pixels(image)
    except (OSError, UnidentifiedImageError, SyntaxError):
        return f"unreadable {path.name}"


def ensure_pictures(
    split: str,
    folder: Path | None = None,
    progress: Report | None = None,
    beside: Callable[[], object] | None = None,
) -> dict[str, Path]:
    """The verified files of a split's pictures by id, rendered into the cache folder on first use. `beside` is called
    while other processes render: it may load what a fork must not copy.

    The check runs once per folder; a broken file is rendered again. Raises `BenchmarkError` where the pixels still
    are not the published ones, as with another Pillow.
    """
    folder = folder or cache_folder() / "fieldnotes" / split
    folder.mkdir(parents=True, exist_ok=True)
    files = {i: folder / f"{int(i):06d}{_suffix(scene)}" for i, scene in _load(split).scenes.items()}
    published = published_checksums().get(split)
    if published is None:
        raise BenchmarkError(f"the checksum of the {split} pictures is not published yet. Use another split.")
    verified = folder / "verified.sha256"
    hashes = _draw_missing(split, files, progress, beside)
    if verified.is_file() and verified.read_text(encoding="utf-8") == published:
        return files
    for _ in range(2):
        if split_checksum(hashes | _hashes({i: path for i, path in files.items() if i not in hashes})) == published:
            verified.write_text(published, encoding="utf-8")
            return files
        for path in files.values():
            path.unlink(missing_ok=True)
        hashes = _draw_missing(split, files, progress)
    raise BenchmarkError(
        f"the {split} pictures drawn here differ from the published ones (Pillow {pillow_version});"
        " run `make setup` to get the pinned version"
    )


def read_split(split: str, task: str = "") -> Split:
    """Queries, scenes and relevant images of a split: of text queries, or of another task ("composed", "dialogue",
    "unmatched", "wild"); of "universal" the scenes alone.

    Raises `BenchmarkError` for an unknown split.
    """
    others: Mapping[str, Collection[str]] = {
        "universal": [*UNIVERSAL_SIZES, *MADE],
        "unmatched": UNMATCHED_SIZES,
        "wild": WILD_SIZES,
    }
    splits = others.get(task, SIZES)
    if split not in splits:
        raise BenchmarkError(f"FieldNotes has no split {split!r}. Use one of {', '.join(splits)}")
    return _load(f"{task}-{split}" if task else split)


def _load(name: str) -> Split:
    """The split of this name; those of other tasks have the task before it, as in "composed-test"."""
    task, _, split = name.rpartition("-")
    loaders: Mapping[str, Callable[[str], Split]] = {
        "": load_split,
        "composed": load_composed,
        "dialogue": load_dialogue,
        "universal": load_universal_pictures,
        "unmatched": load_unmatched,
        "wild": load_wild,
    }
    return loaders[task](split)
