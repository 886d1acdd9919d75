"""Vectors of images under one encoder, kept in a folder, so that no image is encoded twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from fieldscope.core.errors import ConfigError, ImageError, IndexMismatchError
from fieldscope.core.fingerprint import fingerprint_pixels
from fieldscope.core.types import ImageSource
from fieldscope.retrieval.batches import read_batches
from fieldscope.retrieval.collection import Collection
from fieldscope.retrieval.encoder import Encoder, Vectors
from fieldscope.retrieval.manifest import claimed, read_index, write_index
from fieldscope.retrieval.progress import Report
from fieldscope.retrieval.shards import Encoded, Shards

_STAMPS = "stamps"
_BATCH = 64  # images in memory, and lost at most where the process is killed


def image_vectors(
    images: ImageSource, ids: Sequence[str], encoder: Encoder, folder: Path, progress: Report | None = None
) -> Mapping[str, Vectors]:
    """The vector of each of these images, shape (dim,), by its id.

    What `folder` holds of them is not encoded again, nor are equal pixels under another id or in another file. Each
    finished batch survives `kill -9`, and a second process waits for the first. Raises `ConfigError` where an image
    can't be read: a missing vector is no score.
    """
    with claimed(folder):
        shards = Shards(folder, encoder.fingerprint)
        stored = {entry.image_id: entry for entry in _stored(folder, encoder)}
        known = stored | {entry.image_id: entry for entry in shards.read()}
        by_pixels = {_pixels(entry): entry.vector for entry in known.values()}
        wanted = dict.fromkeys(ids)
        marks = {image_id: _mark(images, image_id) for image_id in wanted}
        unread = [i for i in wanted if i not in known or not marks[i] or known[i].stamp.partition(" ")[2] != marks[i]]
        skipped: dict[str, str] = {}
        done, report = len(wanted) - len(unread), progress or (lambda *_: None)
        report(done, len(wanted))
        for batch in read_batches(images, unread, _BATCH, skipped):
            hashes = {image_id: fingerprint_pixels(image) for image_id, image in batch}
            fresh = {hashes[image_id]: image for image_id, image in batch if hashes[image_id] not in by_pixels}
            if fresh:
                by_pixels |= dict(zip(fresh, encoder.encode_images(list(fresh.values())), strict=True))
            entries = [Encoded(i, f"{hashes[i]} {marks[i]}", by_pixels[hashes[i]]) for i, _ in batch]
            if new := [entry for entry in entries if not _same(known.get(entry.image_id), entry)]:
                shards.write(new)
            known |= {entry.image_id: entry for entry in new}
            done += len(entries)
            report(done, len(wanted))
        if skipped:
            image_id, reason = next(iter(skipped.items()))
            raise ConfigError(
                f"{len(skipped):,} of {len(wanted):,} images can't be read, so they have no similarity (the first is "
                f"{image_id}: {reason}); fetch the files again"
            )
        if not all(_same(stored.get(image_id), entry) for image_id, entry in known.items()):
            _store(folder, encoder, list(known.values()))
        shards.clear()
    return {image_id: known[image_id].vector for image_id in wanted}


def _mark(images: ImageSource, image_id: str) -> str:
    """What changes when the stored image does; empty where only its pixels can tell."""
    try:
        return images.stamp(image_id) if isinstance(images, Collection) else ""
    except ImageError:
        return ""  # reading it says why


def _pixels(entry: Encoded) -> str:
    """The hash of an image's pixels. Its stamp has it before the file's mark."""
    return entry.stamp.partition(" ")[0]


def _same(before: Encoded | None, entry: Encoded) -> bool:
    return before is not None and before.stamp == entry.stamp


def _stored(folder: Path, encoder: Encoder) -> Iterator[Encoded]:
    """What an earlier call has finished; nothing where there is none, or where it is damaged."""
    try:
        manifest, vectors = read_index(folder, encoder)
    except IndexMismatchError:
        return
    stamps = manifest.attributes.get(_STAMPS)
    if isinstance(stamps, list) and len(stamps) == len(manifest.ids):
        yield from map(Encoded, manifest.ids, stamps, vectors)


def _store(folder: Path, encoder: Encoder, entries: Sequence[Encoded]) -> None:
    write_index(
        folder,
        [entry.image_id for entry in entries],
        np.stack([entry.vector for entry in entries]),
        encoder.fingerprint,
        attributes={_STAMPS: [entry.stamp for entry in entries]},
    )
