"""Collections from a user's paths (folders, image files, Parquet files), and from the locators in indexes and runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fieldscope.core.errors import ConfigError
from fieldscope.retrieval.collection import Collection, FilesCollection, FolderCollection
from fieldscope.retrieval.document_lines import SUFFIX
from fieldscope.retrieval.documents import open_documents, reopen_documents
from fieldscope.retrieval.formats import readable_formats
from fieldscope.retrieval.images import DEFAULT_LIMITS, ImageLimits


def open_collection(paths: Sequence[Path], limits: ImageLimits = DEFAULT_LIMITS) -> Collection:
    """The collection that a user means by these paths: one folder (of images, or of Parquet files), Parquet files,
    image files, or one file of documents (`fieldscope.retrieval.document_lines`).

    Raises `ConfigError` where a path is missing, kinds are mixed, or there is no image.
    """
    missing = [path for path in paths if not path.exists()]
    if missing or not paths:
        what = f"{str(missing[0])!r} does not exist" if missing else "no images were given"
        raise ConfigError(f"{what}; give a folder, image files or Parquet files")
    collection: Collection
    if any(path.is_dir() for path in paths):
        if len(paths) > 1:
            raise ConfigError("several paths with a folder among them; give one folder, or files only")
        collection = FolderCollection(paths[0], limits)
        tables = [] if len(collection) else sorted(paths[0].rglob("*.parquet"))
    else:
        if len(paths) == 1 and paths[0].suffix == SUFFIX:
            return open_documents(paths[0], limits)
        collection = FilesCollection({path.as_posix(): path for path in paths}, limits)
        tables = [path for path in paths if path.suffix == ".parquet"]
        if 0 < len(tables) < len(paths):
            raise ConfigError("Parquet files and others are mixed; give one kind of file")
    if tables:
        from fieldscope.retrieval.parquet import ParquetCollection  # pyarrow is slow to import, and few need it

        collection = ParquetCollection(tables, limits=limits, beside=collection.skipped())
    if not len(collection):
        skipped = collection.skipped()
        others = "".join(f"; skipped {len(skipped):,}, such as {name!r}: {why}" for name, why in [*skipped.items()][:1])
        formats = ", ".join(readable_formats())
        raise ConfigError(f"{str(paths[0])!r} holds no images ({formats}){others}. Check the path")
    return collection


def reopen_collection(locator: Mapping[str, Any], limits: ImageLimits = DEFAULT_LIMITS) -> Collection:
    """The collection that wrote this `locator()`. Raises `ConfigError` where it is gone or of an unknown kind.

    Of a union, parts that are gone are left out, as long as there is another.
    """
    match locator:
        case {"kind": "folder", "root": str(root)}:
            return FolderCollection(Path(root), limits)
        case {"kind": "files", "files": dict(files)} if _are_texts(files.values()):
            return FilesCollection({image_id: Path(path) for image_id, path in files.items()}, limits)
        case {
            "kind": "parquet",
            "paths": list(paths),
            "image_column": str(image_column),
            "id_column": str(id_column),
        } if _are_texts(paths):
            from fieldscope.retrieval.parquet import ParquetCollection

            return ParquetCollection([Path(path) for path in paths], image_column, id_column, limits=limits)
        case {"kind": "documents", "root": str()}:
            return reopen_documents(locator, limits)
        case {"kind": "union", "parts": dict(parts)} if all(
            isinstance(part, dict) and part.get("kind") != "union" for part in parts.values()
        ):
            return _reopen_union(parts, limits)
    raise ConfigError(f"unknown kind of image collection {locator.get('kind')!r}; index the images again")


def _reopen_union(locators: Mapping[str, Mapping[str, Any]], limits: ImageLimits) -> Collection:
    from fieldscope.retrieval.union import UnionCollection

    parts: dict[str, Collection] = {}
    gone: ConfigError | None = None
    for prefix, locator in locators.items():
        try:
            parts[prefix] = reopen_collection(locator, limits)
        except ConfigError as error:
            gone = error
    if gone is not None and not parts:
        raise gone
    return UnionCollection(parts)


def _are_texts(values: Iterable[object]) -> bool:
    return all(isinstance(value, str) and "\0" not in value for value in values)
