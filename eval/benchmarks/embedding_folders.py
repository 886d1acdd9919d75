"""Folders of image embeddings: where a benchmark has them, and which of them an encoder's queries are compared with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from fieldscope.core.errors import BenchmarkError, IndexMismatchError
from fieldscope.eval.benchmarks.inquire_models import PUBLISHED, is_of_another, made_by
from fieldscope.retrieval.manifest import is_index, read_manifest

Layout = Literal["plain", "shards", "library"]

_PLACES = ("", "embeddings", "embs", "inat24/embs", "inat24/embeddings")
_OF_SEVERAL = {"embs", "embeddings"}  # folders in which each model may have one of its own


def layout_of(folder: Path) -> Layout | None:
    """How the vectors in a folder are laid out (`fieldscope.eval.benchmarks.embeddings`); None where there are none."""
    if (folder / "embeddings.npy").is_file():
        return "plain"
    if any((folder / "img_emb").glob("*.npy")):
        return "shards"
    return "library" if is_index(folder) and any(folder.glob("vectors-*.npy")) else None


def find_embeddings(places: Sequence[Path], encoder: str | None, named: Path | None = None) -> Path:
    """The folder with the vectors that an encoder's queries are compared with.

    It lies in one of the benchmark's `places`, or is the one that the user `named`, or lies in that. Of several, the
    encoder's is known by its name (`fieldscope.eval.benchmarks.inquire_models`) or, for what `fieldscope index` made,
    by its manifest. Raises `BenchmarkError` where there are none, or where it is open which to take.
    """
    folders = list(_below(named, several=True)) if named is not None else _in_places(places)
    if not folders:
        raise _without_embeddings(places[0], named)
    where = str(named or places[0])
    if len(folders) > 1:
        fitting = _fitting(encoder, folders)
        if len(fitting) != 1:
            names = ", ".join(sorted(folder.name for folder in folders))
            raise BenchmarkError(
                f"{where!r} has embeddings of several models ({names}), and none of them is known to be made by "
                f"{encoder or 'the bundled encoder'}. Name the model of one with --encoder, or one with --embeddings."
            )
        return fitting[0]
    (folder,) = folders
    if encoder is not None and is_of_another(encoder, folder.name):
        maker = PUBLISHED[folder.name].names[0]
        raise BenchmarkError(
            f"the embeddings in {str(folder)!r} are those of {maker}, and queries of {encoder} can't be compared with "
            "them. Name that model with --encoder, or another folder with --embeddings."
        )
    return folder


def encoder_of(folder: Path) -> str | None:
    """The name of the encoder whose queries are compared with the vectors in a folder, where INQUIRE's list or an
    index's manifest has it."""
    if folder.name in PUBLISHED:
        return PUBLISHED[folder.name].names[0]
    return _indexed_with(folder)


def _fitting(encoder: str | None, folders: Sequence[Path]) -> list[Path]:
    """The folders that are known to hold this encoder's vectors."""
    if encoder is None:
        return []
    names = made_by(encoder, [folder.name for folder in folders])
    if names:
        return [folder for folder in folders if folder.name in names]
    return [folder for folder in folders if _indexed_with(folder) == encoder]


def _indexed_with(folder: Path) -> str | None:
    if layout_of(folder) != "library":
        return None
    try:
        return read_manifest(folder).encoder_name or None
    except IndexMismatchError:
        return None  # opening it says what is wrong


def _in_places(places: Sequence[Path]) -> list[Path]:
    folders: dict[Path, Path] = {}
    for place in (place / below for place in places for below in _PLACES):
        for folder in _below(place, several=place.name in _OF_SEVERAL):
            folders[folder.resolve()] = folder
    return list(folders.values())


def _below(place: Path, several: bool) -> Iterator[Path]:
    """A folder with vectors itself, or where it may hold those of several models, the folders in it that have some."""
    if place.is_dir():
        yield from filter(layout_of, (place, *(sorted(place.iterdir()) if several else ())))


def _without_embeddings(benchmark: Path, named: Path | None) -> BenchmarkError:
    if named is not None:
        return BenchmarkError(
            f"{str(named)!r} has no embeddings. Name a folder with embeddings.npy and ids.csv, with img_emb and "
            "metadata, or with an index that `fieldscope index` made."
        )
    return BenchmarkError(
        f"{str(benchmark)!r} has no embeddings. Put them into {str(benchmark / 'embeddings')!r}: embeddings.npy with "
        "ids.csv, INQUIRE's own folders, or an index that `fieldscope index` made."
    )
