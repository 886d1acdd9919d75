"""From settings to an encoder that is loaded only for what it has not encoded before."""

from __future__ import annotations

from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.paths import cache_folder
from fieldscope.service.wiring.bundled import bundled_folder
from fieldscope.service.wiring.models import load_encoder
from fieldscope.service.wiring.settings import Settings

if TYPE_CHECKING:
    from fieldscope.retrieval.encoder import Encoder

FILE = "vectors.sqlite"
"""In the user's cache folder: vectors of queries and of images that were reranked, by encoder."""

_FROM_FILES = ("open_clip", "path", "sentence-transformers")
"""Encoders whose argument may be a folder on this machine."""

_LIBRARIES = ("torch", "open_clip_torch", "transformers", "sentence-transformers")
"""An encoder's fingerprint may depend on what these read from its files."""


def kept_encoder(settings: Settings, *, images: bool = False) -> Encoder:
    """The encoder of the first stage. One from a folder on this machine, such as the bundled one, is not loaded before
    it has to encode something new: its vectors of queries are kept, and with `images` those of images, unless the
    response cache is off or refreshed. Raises what `load_encoder` does."""
    folder = _folder(settings)
    if folder is None or settings.cache_mode not in ("on", "replay"):
        return load_encoder(settings)
    from fieldscope.retrieval.kept_encoder import KeptEncoder
    from fieldscope.retrieval.vector_file import VectorFile

    file = VectorFile(cache_folder() / FILE)
    return KeptEncoder.open(_key(settings, folder), partial(load_encoder, settings), file, images=images)


def _folder(settings: Settings) -> Path | None:
    """Where the encoder's files lie; None for one that is not known by its files: a server's, a name that a library
    looks up, another package's."""
    from fieldscope.retrieval.encoder import split_encoder

    if settings.encoder is None:
        return bundled_folder("clip")
    kind, argument = split_encoder(settings.encoder)
    folder = Path(argument.removeprefix("local-dir:")).expanduser()
    return folder.resolve() if kind in _FROM_FILES and argument and folder.is_dir() else None


def _key(settings: Settings, folder: Path) -> str:
    """What changes when the encoder may have: its files by name, size and the times when they were written and
    replaced, and the releases of the libraries that read them."""
    from fieldscope.core.fingerprint import fingerprint
    from fieldscope.retrieval.encoder import split_encoder

    files = {
        path.relative_to(folder).as_posix(): [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (stat := path.stat())
    }
    kind, _ = split_encoder(settings.encoder or "bundled")
    return fingerprint({"kind": kind, "folder": str(folder), "files": files, "libraries": _versions()})


def _versions() -> dict[str, str]:
    """The releases of the libraries that are installed."""
    found: dict[str, str] = {}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
