"""A large index built out of core: vectors are read once, some at a time, and an interrupted build continues."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fieldscope.core.errors import ConfigError, IndexMismatchError
from fieldscope.core.files import replace_file
from fieldscope.retrieval.background import sampled
from fieldscope.retrieval.encoder import Vectors
from fieldscope.retrieval.half_vectors import HalfVectors, Rows, nearest
from fieldscope.retrieval.id_file import write_ids
from fieldscope.retrieval.index_plan import MEMORY, IndexPlan
from fieldscope.retrieval.inverted_lists import Codec, Quantiser
from fieldscope.retrieval.large_index import LargeIndex
from fieldscope.retrieval.large_manifest import (
    CODES,
    FILE,
    LISTS,
    QUANTISER,
    VECTORS,
    LargeManifest,
    Recall,
    is_large,
    read_large,
)
from fieldscope.retrieval.manifest import claimed, writing
from fieldscope.retrieval.progress import Report

RECALL = 0.985
"""Searches look into as many lists as this recall takes. It is above the 0.98 that is promised, since it is measured on
a sample of queries."""

_K = 100
_QUERIES = 100
_PER_LIST = 64  # vectors of the sample
_BLOCK = 8192
_CANDIDATES = 20  # for each image that is wanted; half of them where that is enough
_BUILDING = "building.json"
_SEED = 20_250_110
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class VectorSource:
    """Vectors of length 1 from anywhere: `blocks` gives those from a row on, shape (any, dim), in the order of the
    `ids`. `fingerprint` changes when they do. `queries`, shape (m, dim), are those that the index is made for, where
    some are known: recall is measured with them, and else with some of the vectors themselves."""

    ids: Sequence[str]
    dim: int
    fingerprint: str
    blocks: Callable[[int], Iterator[Vectors]]
    queries: Vectors | None = None


@dataclass(frozen=True)
class Owner:
    """Who made an index, and what else belongs to it; see `LargeManifest`."""

    encoder_fingerprint: str
    encoder_name: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)


def build_large(
    folder: Path,
    source: VectorSource,
    plan: IndexPlan,
    owner: Owner,
    *,
    memory: int = MEMORY,
    progress: Report | None = None,
) -> LargeManifest:
    """Build the index in `folder`, or continue there, and measure its recall. A complete index of the same source and
    plan stays as it is, but for its owner's facts.

    Vectors are copied to the disk in half precision, a quantiser is learned from a sample of them, all are encoded, and
    searches are tried with more and more lists until they reach `RECALL`. At most about `memory` bytes are held.
    Progress is counted in vectors, of which each is copied and encoded. Raises `IndexMismatchError` for vectors that
    are not finite or do not match the ids, `ConfigError` where the disk refuses.
    """
    if plan.kind == "flat":
        raise ConfigError("a flat index is built in memory; give a plan with inverted lists")
    count = len(source.ids)
    report = progress or (lambda *_: None)
    with claimed(folder), writing(folder):
        identity = {"source": source.fingerprint, "plan": asdict(plan), "dim": source.dim, "count": count}
        if is_large(folder) and _building(folder) == identity:
            manifest = read_large(folder)
            known = Owner(manifest.encoder_fingerprint, manifest.encoder_name, manifest.attributes)
            if known == owner:
                return manifest
        if _building(folder) != identity:
            for name in (FILE, VECTORS, QUANTISER, LISTS, CODES):
                (folder / name).unlink(missing_ok=True)
            replace_file(folder / _BUILDING, json.dumps(identity))
        _copy(folder / VECTORS, source, lambda done: report(done, 2 * count))
        vectors = HalfVectors(folder / VECTORS, count, source.dim)
        ids = write_ids(folder, source.ids)
        quantiser = _learned(folder / QUANTISER, vectors, plan, memory)
        _encode(folder, vectors, quantiser, lambda done: report(count + done, 2 * count))
        manifest = LargeManifest(
            source=source.fingerprint,
            encoder_fingerprint=owner.encoder_fingerprint,
            encoder_name=owner.encoder_name,
            count=count,
            dim=source.dim,
            codec=quantiser.codec,
            code_bytes=quantiser.code_bytes,
            lists=len(quantiser.centres),
            probes=1,
            candidates=_K,
            recall=Recall(k=_K, queries=1, recall=0.0, without_rescoring=0.0),
            sample=tuple(sampled(ids)),
            attributes=dict(owner.attributes),
        )
        manifest = _measured(folder, manifest, vectors, source.queries)
        manifest.write(folder)
    return manifest


def _building(folder: Path) -> dict[str, Any] | None:
    try:
        identity = json.loads((folder / _BUILDING).read_bytes())
    except (OSError, ValueError):
        return None
    return identity if isinstance(identity, dict) else None


def _copy(path: Path, source: VectorSource, report: Callable[[int], None]) -> None:
    """Append the source's vectors that the file does not have yet."""
    row_bytes = 2 * source.dim
    done = min(path.stat().st_size // row_bytes, len(source.ids)) if path.is_file() else 0
    with path.open("ab") as stream:
        stream.truncate(done * row_bytes)
        report(done)
        for block in source.blocks(done):
            if block.ndim != 2 or block.shape[1] != source.dim or not np.isfinite(block).all():
                raise IndexMismatchError(
                    f"vectors of shape {block.shape} are not finite, or not of length {source.dim}; make them again"
                )
            stream.write(block.astype(np.float16).tobytes())
            done += len(block)
            report(min(done, len(source.ids)))
    if done != len(source.ids):
        path.unlink()
        raise IndexMismatchError(f"{len(source.ids):,} ids came with {done:,} vectors; give one for each id")


def _learned(path: Path, vectors: HalfVectors, plan: IndexPlan, memory: int) -> Quantiser:
    if not path.is_file():
        for name in (LISTS, CODES):  # of another quantiser
            path.with_name(name).unlink(missing_ok=True)
        dim = vectors.rows(np.zeros(1, np.int64)).shape[1]
        size = min(len(vectors), plan.lists * _PER_LIST, max(memory // 4 // (4 * dim), plan.lists))
        rows = np.sort(np.random.default_rng(_SEED).permutation(len(vectors))[:size])
        codec: Codec = "sq" if plan.kind == "sq" else "pq"
        Quantiser.learned(vectors.rows(rows), codec, plan.code_bytes, min(plan.lists, size)).write(path)
    return Quantiser.read(path)


def _encode(folder: Path, vectors: HalfVectors, quantiser: Quantiser, report: Callable[[int], None]) -> None:
    """Append the lists and codes of the vectors that have none yet."""
    paths = ((folder / LISTS, 4), (folder / CODES, quantiser.code_bytes))
    done = min(path.stat().st_size // size if path.is_file() else 0 for path, size in paths)
    with paths[0][0].open("ab") as lists_file, paths[1][0].open("ab") as codes_file:
        lists_file.truncate(4 * done)
        codes_file.truncate(quantiser.code_bytes * done)
        report(done)
        for start, block in vectors.blocks(_BLOCK, done):
            lists, codes = quantiser.encode(block)
            lists_file.write(lists.tobytes())
            codes_file.write(codes.tobytes())
            report(start + len(block))


def _measured(folder: Path, manifest: LargeManifest, vectors: HalfVectors, given: Vectors | None) -> LargeManifest:
    """The manifest with as many lists and candidates as a search needs for the wanted recall, and that recall."""
    rng = np.random.default_rng(_SEED + 1)
    k = min(_K, manifest.count)
    if given is None:
        queries = vectors.rows(np.sort(rng.permutation(len(vectors))[:_QUERIES]))
    else:
        queries = given[np.sort(rng.permutation(len(given))[:_QUERIES])]
    _, exact = nearest(vectors, queries, k)
    index = LargeIndex(folder, manifest)
    for probes, most in _settings(manifest.lists):
        wanted = min(most * k, manifest.count)
        found = index.candidates(queries, wanted, k, probes)
        reached = recall(index.rescored(queries, found, k)[1], exact)
        _LOG.info("%d lists and %d candidates: recall %.4f", probes, wanted, reached)
        if reached >= RECALL:
            break
    fewer = found[:, : max(wanted // 2, k)]
    if (enough := recall(index.rescored(queries, fewer, k)[1], exact)) >= RECALL:
        wanted, reached = fewer.shape[1], enough
    bare = recall(found[:, :k], exact)
    measured = Recall(k=k, queries=len(queries), recall=reached, without_rescoring=bare)
    return manifest.model_copy(update={"probes": probes, "candidates": wanted, "recall": measured})


def _settings(lists: int) -> Iterator[tuple[int, int]]:
    """Numbers of lists and of candidates for each wanted image, from cheap to dear; all lists come last."""
    probes = max(lists // 128, 1)
    while probes < lists:
        yield probes, _CANDIDATES
        probes = max(round(probes * 1.2), probes + 1)
    for times in (1, 2, 4, 8):
        yield lists, times * _CANDIDATES


def recall(found: Rows, exact: Rows) -> float:
    """The share of the exact nearest rows, shape (n, k), among those that were found, shape (n, any)."""
    hits = (len(np.intersect1d(some, all_of_them)) for some, all_of_them in zip(found, exact, strict=True))
    return sum(hits) / exact.size


def skip_rows(blocks: Iterator[Vectors], rows: int) -> Iterator[Vectors]:
    """What is left of blocks of vectors behind their first rows."""
    for block in blocks:
        if rows < len(block):
            yield block[rows:]
        rows = max(rows - len(block), 0)
