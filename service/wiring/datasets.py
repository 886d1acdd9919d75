"""Data sets in folders: their benchmarks, each with the gallery that its queries are searched in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import BenchmarkError, IndexMismatchError
from fieldscope.core.fingerprint import fingerprint
from fieldscope.core.paths import cache_folder
from fieldscope.core.types import Candidate, Query, Search
from fieldscope.service.wiring.benchmarks import BenchmarkRequest, Workload
from fieldscope.service.wiring.bundled import require_known_words, unknown_words
from fieldscope.service.wiring.feedback import keeping, note, progress, warn
from fieldscope.service.wiring.models import load_encoder
from fieldscope.service.wiring.settings import BUNDLED, Settings

if TYPE_CHECKING:
    from fieldscope.agent.resources import Retriever
    from fieldscope.eval.datasets.dataset import Dataset
    from fieldscope.retrieval.collection import Collection
    from fieldscope.retrieval.encoder import Encoder
    from fieldscope.retrieval.library import Library

Load = Callable[[Path, str | None, Mapping[str, str]], "Dataset"]


@dataclass(frozen=True)
class Galleries:
    """A retriever that searches each query in its own gallery. `whole` holds all images, reference images among them,
    and `gallery_of` says which gallery a query is searched in: the only one, where it is empty."""

    whole: Library
    galleries: Mapping[str, Library]
    gallery_of: Mapping[str, str]

    @property
    def encoder(self) -> Encoder:
        return self.whole.encoder

    def search(self, search: Search) -> Sequence[Candidate]:
        vector = self.whole.query_vector(search.query, search.instruction)
        return self._gallery(search.query).search(search, vector)

    def order(self, query: Query) -> list[str]:
        """All images of a query's gallery in the order of its own words."""
        return [candidate.image_id for candidate in self.search(Search(query, len(self._gallery(query).ids)))]

    def _gallery(self, query: Query) -> Library:
        return self.galleries[self.gallery_of.get(query.id, next(iter(self.galleries)))]


def library_of(retriever: Retriever | None) -> Library | None:
    """The index that a benchmark's retriever searches; None for one that is not Fieldscope's, and where there is
    none."""
    from fieldscope.retrieval.library import Library

    if isinstance(retriever, Galleries):
        return retriever.whole
    return retriever if isinstance(retriever, Library) else None


def open_flickr30k(request: BenchmarkRequest) -> Workload:
    """The benchmark "flickr30k"."""
    from fieldscope.eval.datasets.karpathy import FLICKR30K, load_karpathy

    return _opened(request, partial(load_karpathy, FLICKR30K))


def open_coco(request: BenchmarkRequest) -> Workload:
    """The benchmark "coco"."""
    from fieldscope.eval.datasets.karpathy import COCO, load_karpathy

    return _opened(request, partial(load_karpathy, COCO))


def open_fashioniq(request: BenchmarkRequest) -> Workload:
    """The benchmark "fashioniq"."""
    from fieldscope.eval.datasets.fashioniq import load_fashioniq

    return _opened(request, load_fashioniq)


def open_cirr(request: BenchmarkRequest) -> Workload:
    """The benchmark "cirr"."""
    from fieldscope.eval.datasets.cirr import load_cirr

    return _opened(request, load_cirr)


def open_circo(request: BenchmarkRequest) -> Workload:
    """The benchmark "circo"."""
    from fieldscope.eval.datasets.circo import load_circo

    return _opened(request, load_circo)


def open_visdial(request: BenchmarkRequest) -> Workload:
    """The benchmark "visdial"."""
    from fieldscope.eval.datasets.visdial import load_visdial

    return _opened(request, load_visdial)


def open_mbeir(request: BenchmarkRequest) -> Workload:
    """The benchmark "mbeir"."""
    from fieldscope.eval.datasets.mbeir import load_mbeir

    return _opened(request, load_mbeir)


def open_folder(request: BenchmarkRequest) -> Workload:
    """The benchmark "folder": a data set of one's own."""
    from fieldscope.eval.datasets.folder import load_folder

    return _opened(request, load_folder)


def _opened(request: BenchmarkRequest, load: Load) -> Workload:
    """The data set in the folder that the argument names, with a warning for each oddity. Raises `BenchmarkError`."""
    if not request.argument:
        raise BenchmarkError("this benchmark is in files of yours; give their folder with --data FOLDER")
    dataset = load(Path(request.argument), request.split, request.choices)
    for oddity in dataset.benchmark.oddities:
        warn(oddity)
    return searched(dataset, request.settings, search=request.search)


def searched(dataset: Dataset, settings: Settings, *, search: bool = True) -> Workload:
    """A data set with what searches each of its queries in its own gallery."""
    if not search:
        return Workload(dataset.benchmark, found=dataset.images.ids())
    whole = _library(dataset, settings)
    if any(query.instruction for query in dataset.benchmark.queries) and "instruction" not in whole.encoder.uses:
        note("The encoder reads no instruction, so it searches by the queries without the tasks' instructions.")
    keeps = dataset.benchmark.protocol.keeps_reference
    distinct = {ids: whole.within(ids, keeps_reference=keeps) for ids in dict.fromkeys(dataset.galleries.values())}
    galleries = {name: distinct[ids] for name, ids in dataset.galleries.items()}
    retriever = Galleries(whole, galleries, dataset.gallery_of)
    benchmark = replace(dataset.benchmark, beyond=retriever.order)
    return Workload(benchmark, retriever, whole.encoder.fingerprint, found=tuple(whole.ids))


def _library(dataset: Dataset, settings: Settings) -> Library:
    """The index of all pictures, made on first use, and brought up to date where files have changed.

    Raises `VocabularyError` where the bundled CLIP does not know the queries' words.
    """
    from fieldscope.retrieval.library import build_index, open_library

    if settings.encoder is None:
        _require_words(dataset.benchmark.queries)
    encoder, name = load_encoder(settings), dataset.benchmark.name
    images = dataset.indexed if dataset.indexed is not None else dataset.images
    beside = dataset.images if dataset.indexed is not None else None
    of = fingerprint({"images": images.locator()})
    folder = cache_folder() / "datasets" / f"{name}-{of[:16]}-{encoder.fingerprint[:16]}"
    with suppress(IndexMismatchError):  # not there yet, or damaged
        if _is_current(folder, images):
            return replace(open_library(folder, encoder), beside=beside)
    with keeping("the images so far are kept"), progress(f"encoding the images of {name}") as report:
        build_index(
            images,
            encoder,
            folder,
            encoder_name=settings.encoder or BUNDLED,
            index_kind=dataset.index_kind,
            progress=report,
        )
    return replace(open_library(folder, encoder), beside=beside)


def _is_current(folder: Path, images: Collection) -> bool:
    """Whether an index holds the pictures as they are now, but for those that it says it left out. Raises
    `IndexMismatchError` where there is none."""
    from fieldscope.retrieval.library import read_skipped
    from fieldscope.retrieval.manifest import read_manifest

    manifest, skipped = read_manifest(folder), read_skipped(folder)
    ids = [image for image in images.ids() if image not in skipped]
    return list(manifest.ids) == ids and manifest.attributes.get("stamps") == [images.stamp(image) for image in ids]


def _require_words(queries: Sequence[Query]) -> None:
    """Raise `VocabularyError` for words that the bundled CLIP has never seen. Those of a change that the bundled LMM
    knows are only noted, since the CLIP also searches by the reference image."""
    from fieldscope.retrieval.encoder import query_text

    changes = [query.text for query in queries if query.reference_image is not None]
    require_known_words([query_text(query) for query in queries if query.reference_image is None], "clip")
    require_known_words(changes, "lmm")
    if unknown := unknown_words(changes, "clip"):
        named = ", ".join(map(repr, unknown))
        note(f"The bundled CLIP does not know {named}; it searches by the reference image and the other words.")
