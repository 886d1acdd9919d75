"""An index searched for one query, and what was found ranked."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import ConfigError
from fieldscope.service.wiring.feedback import note
from fieldscope.service.wiring.instructions import warn_of_unread_instruction
from fieldscope.service.workflows.models import KeptModels, Models
from fieldscope.service.workflows.ranking import Ranking
from fieldscope.service.workflows.rerank import foreign_flags, rank
from fieldscope.service.workflows.selecting import select

if TYPE_CHECKING:
    from fieldscope.agent.budget import Budget
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.agent.types import Predicate
    from fieldscope.core.types import ImageSource, Query
    from fieldscope.retrieval.library import Library
    from fieldscope.service.metadata.filter import Filter
    from fieldscope.service.metadata.records import Records
    from fieldscope.service.wiring.settings import Settings
    from fieldscope.service.workflows.promise import Promise


async def search_each(
    queries: Sequence[Query],
    index: Path,
    strategy: Strategy,
    settings: Settings,
    *,
    top_k: int | None = None,
    budget: Budget | None = None,
    needs_images: bool = True,
    promise: Promise | None = None,
    predicates: Sequence[Predicate] = (),
    metadata: Path | None = None,
    wanted: Filter | None = None,
) -> list[Ranking]:
    """Search an index for each query in turn, with models that are loaded once. Raises as `search_index` does, which
    has the options."""
    models = KeptModels(settings) if len(queries) > 1 else Models(settings)
    try:
        return [
            await search_index(
                query,
                index,
                strategy,
                models,
                top_k=top_k,
                budget=budget,
                needs_images=needs_images,
                promise=promise,
                predicates=predicates,
                metadata=metadata,
                wanted=wanted,
            )
            for query in queries
        ]
    finally:
        if isinstance(models, KeptModels):
            await models.aclose()


async def search_index(
    query: Query,
    index: Path,
    strategy: Strategy,
    models: Models,
    *,
    top_k: int | None = None,
    budget: Budget | None = None,
    needs_images: bool = True,
    promise: Promise | None = None,
    predicates: Sequence[Predicate] = (),
    metadata: Path | None = None,
    wanted: Filter | None = None,
) -> Ranking:
    """Find images in an index, and rank them as the strategy says; `clip` leaves them as they are found.

    With a reference image, by its id or file, the query says in what the wanted images differ from it; a file that is
    not in the index is an image beside it. `top_k` images
    are found at first; None leaves that to the strategy. `needs_images` says that the images are used afterwards, too.
    Only images that satisfy `wanted` are searched; `metadata` is a table that is joined to the images, and kept beside
    the index.
    Raises `VocabularyError` for words that a bundled model does not know, `IndexMismatchError` for an index that was
    made with another CLIP, `ConfigError` where it finds nothing, the images are gone that are needed, or the filter
    does not fit the metadata, and what the server's check and the agent raise.
    """
    from fieldscope.agent.resources import Resources
    from fieldscope.core.types import Search
    from fieldscope.retrieval.library import open_library, read_skipped
    from fieldscope.retrieval.remembered import RememberedSearch

    models.require_scorer(strategy)
    models.require_words(strategy, query, searching=True)
    contexts = await models.require_context(strategy, query)
    library = await asyncio.to_thread(open_library, index, await models.load_encoder())
    records = await asyncio.to_thread(_records, library, index, metadata)
    if wanted is not None:
        library = library.filtered(select(wanted, records, library.ids))
    images = _images(library, needed=bool(strategy.prompts) or needs_images)
    fitting = models.checking_pictures(strategy, query, contexts, images, library.ids)
    if query.reference_image is not None:
        reference = _id_of(query.reference_image, library, images)
        library, images, reference = _with_picture(reference, library, images)
        query = query.model_copy(update={"reference_image": reference})
    top_k = top_k or strategy.retrieve.top_k
    warn_of_unread_instruction([strategy], library.encoder)
    retriever = RememberedSearch(library)
    settings = strategy.retrieve
    search = Search(
        query,
        top_k,
        caption_weight=settings.caption_weight,
        instruction=settings.instruction,
        tiles=settings.tiles,
    )
    first = await asyncio.to_thread(retriever.search, search)
    if not first:
        raise ConfigError(f"the index holds no image but {query.reference_image!r}; index more of them")
    seen = [candidate.image_id for candidate in first]
    if query.reference_image is not None:
        seen.insert(0, query.reference_image)
    bundled = models.bundled_clip or models.bundled_judge(strategy)
    flags = await foreign_flags(images, seen) if bundled else ()
    regions = models.regions(images, index, library.encoder)
    resources = Resources(images, retriever=retriever, flags=flags, regions=regions)
    origin = library.encoder.fingerprint
    ranking = await rank(
        query,
        strategy,
        models,
        resources,
        origin,
        top_k=top_k,
        budget=budget,
        wrappers=[fitting],
        promise=promise,
        predicates=predicates,
    )
    result = ranking.result
    if bundled and not flags:  # other descriptions and later rounds find other images
        late = await foreign_flags(images, [ranked.image_id for ranked in result.ranking])
        result = result.model_copy(update={"flags": (*late, *result.flags)})
    return replace(ranking, result=result, skipped=read_skipped(index), records=records)


def _records(library: Library, index: Path, metadata: Path | None) -> Records:
    """The metadata beside the index, joined again where a table is given."""
    from fieldscope.service.metadata.store import gather, read_records

    if metadata is None:
        return read_records(index)
    gathered = gather(library.collection, metadata, index)
    for line in gathered.notes:
        note(line)
    return gathered.records


def _images(library: Library, *, needed: bool) -> ImageSource:
    """The indexed images; none where they are gone and only their ids are needed."""
    from fieldscope.retrieval.collection import FilesCollection

    try:
        return library.collection
    except ConfigError as error:
        if needed:
            raise
        note(f"The images are not where they were: {error}")
        return FilesCollection({})


def _with_picture(reference: str, library: Library, images: ImageSource) -> tuple[Library, ImageSource, str]:
    """The index and its images with a picture of the query's beside them, if it is a file that is not among them, and
    the picture's id."""
    from fieldscope.core.documents import QUERY_PICTURE
    from fieldscope.retrieval.collection import Collection, FilesCollection
    from fieldscope.retrieval.union import UnionCollection

    if reference in library.ids or not Path(reference).is_file() or not isinstance(images, Collection):
        return library, images, reference
    file = Path(os.path.realpath(reference))
    beside = UnionCollection({"": images, QUERY_PICTURE: FilesCollection({file.as_posix(): file})})
    return replace(library, beside=beside), beside, f"{QUERY_PICTURE}{file.as_posix()}"


def _id_of(reference: str, library: Library, images: ImageSource) -> str:
    """The id of the image that a user names by its id or by its file; the name itself where it is neither."""
    from fieldscope.retrieval.collection import FilesCollection, FolderCollection

    if reference in library.ids:
        return reference
    file = Path(os.path.realpath(reference))
    if isinstance(images, FolderCollection) and file.is_relative_to(images.root):
        return file.relative_to(images.root).as_posix()
    if isinstance(images, FilesCollection):
        files = ((image_id, Path(os.path.realpath(path))) for image_id, path in images.files.items())
        return next((image_id for image_id, path in files if path == file), reference)
    return reference
