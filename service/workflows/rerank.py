"""One query ranked: over images that a user names, or over an index."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import ConfigError, LMMError
from fieldscope.service.wiring.bundled import FOREIGN, require_known_words, unknown_words
from fieldscope.service.wiring.calibrations import find_calibration
from fieldscope.service.wiring.feedback import note, warn
from fieldscope.service.wiring.models import load_encoder, load_scorer, open_lmm, probe_server
from fieldscope.service.wiring.own_pictures import all_fieldnotes
from fieldscope.service.wiring.queries import require_query_words
from fieldscope.service.wiring.settings import Settings
from fieldscope.service.workflows.candidates import Chosen, score
from fieldscope.service.workflows.ranked_query import RankedQuery

if TYPE_CHECKING:
    from fieldscope.agent.budget import Budget
    from fieldscope.agent.lmm.base import LMM
    from fieldscope.agent.resources import Resources
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.agent.types import RerankResult
    from fieldscope.core.types import Candidate, ImageSource, Query
    from fieldscope.retrieval.encoder import Encoder
    from fieldscope.retrieval.library import Library
    from fieldscope.retrieval.scorer import Scorer


@dataclass(frozen=True)
class Models:
    """The models that rank: those that the settings name, or an `lmm` and an `encoder` in their place. A `scorer`, by
    name or `name:argument`, gives the prior in place of the encoder's similarity."""

    settings: Settings = field(default_factory=Settings)
    lmm: LMM | None = None
    encoder: Encoder | None = None
    scorer: str | None = None

    @property
    def bundled_lmm(self) -> bool:
        """Whether the LMM is the one that comes with Fieldscope."""
        return self.lmm is None and not self.settings.lmm_url

    @property
    def bundled_clip(self) -> bool:
        """Whether the prior is that of the CLIP that comes with Fieldscope."""
        return self.encoder is None and not (self.settings.clip or self.scorer)

    def load_encoder(self) -> Encoder:
        """The CLIP. Raises `ConfigError` where it can't be loaded."""
        return self.encoder or load_encoder(self.settings)

    def load_scorer(self) -> Scorer:
        """What gives the prior. Raises `ConfigError` where it can't be loaded."""
        from fieldscope.retrieval.scorer import Similarity

        return load_scorer(self.scorer, self.settings) if self.scorer else Similarity(self.load_encoder())

    async def require_context(self, strategy: Strategy, query: Query) -> None:
        """Raise, before any work, `LMMError` for a server that is not there, and `ContextLengthError` for a query that
        does not fit into its model's context."""
        from fieldscope.eval.tuning.estimate import require_context

        settings = self.settings
        if strategy.prompts and self.lmm is None and settings.lmm_url and settings.cache_mode != "replay":
            require_context([strategy], [query], await probe_server(settings))

    def names(self, strategy: Strategy, *, prior: bool = True) -> dict[str, str | None]:
        """The models by name, for people: `clip` where there is a prior, `lmm` where the strategy asks one."""
        clip = self.encoder.fingerprint if self.encoder else self.scorer or self.settings.clip or "bundled"
        lmm = self.lmm.identity if self.lmm else self.settings.model or "bundled"
        return {"clip": clip if prior else None, "lmm": lmm if strategy.prompts else None}


async def rerank_query(
    query: Query, chosen: Chosen, strategy: Strategy, models: Models, budget: Budget | None = None
) -> RankedQuery:
    """Rank images that the user chose: the CLIP gives each a prior, then the strategy ranks them.

    A bundled CLIP that does not know the query's words or the images gives no prior where another LMM looks at them.
    Raises `VocabularyError` for words that a bundled model does not know, `ConfigError` where no image can be read,
    and what the server's check and the agent raise.
    """
    from fieldscope.agent.resources import Resources

    require_rerank_words(query, strategy, models)
    await models.require_context(strategy, query)
    bundled = models.bundled_lmm if strategy.prompts else models.bundled_clip
    flags = await asyncio.to_thread(_flags, chosen.images, chosen.images.ids()) if bundled else ()
    for flag in flags:
        warn(flag)
    prior = bundled or not models.bundled_clip or await asyncio.to_thread(_bundled_clip_knows, query.text, chosen)
    if not prior:
        note(
            "The bundled CLIP does not know these images, so the LMM ranks them without a first stage. To add one, "
            "name another CLIP with --clip."
        )
    scorer = await asyncio.to_thread(models.load_scorer) if prior else None
    candidates, skipped = await asyncio.to_thread(score, chosen, query, scorer)
    resources = Resources(chosen.images, flags=flags)
    origin = scorer.fingerprint if scorer else None
    result = await _rank(query, strategy, models, resources, origin, candidates=candidates, budget=budget)
    _warn_after(result, flags)
    return RankedQuery(result, chosen.images, skipped, models.names(strategy, prior=prior))


def require_rerank_words(query: Query, strategy: Strategy, models: Models) -> None:
    """Raise `VocabularyError` for words that a bundled model would have to read and does not know. No model is
    loaded."""
    if strategy.prompts and models.bundled_lmm:
        require_known_words([query.text], "lmm")
    if models.bundled_clip and (models.bundled_lmm or not strategy.prompts):
        require_known_words([query.text], "clip")


@dataclass(frozen=True)
class Search:
    """What to look for in an index, and how to rank it.

    With a `reference`, an image's id or file, the query says in what the wanted images differ from it. `top_k` images
    are found at first; None leaves that to the strategy. `needs_images` says that the images are used afterwards, too.
    """

    index: Path
    query: Query
    strategy: Strategy
    reference: str | None = None
    top_k: int | None = None
    budget: Budget | None = None
    needs_images: bool = False


async def search_index(search: Search, models: Models) -> RankedQuery:
    """Find images in an index, and rank them as the strategy says; `clip` leaves them as they are found.

    Raises `VocabularyError` for words that a bundled model does not know, `IndexMismatchError` for an index that was
    made with another CLIP, `ConfigError` where it finds nothing or the images are gone that the LMM should look at,
    and what the server's check and the agent raise.
    """
    from fieldscope.agent.resources import Resources
    from fieldscope.retrieval.library import open_library, read_skipped
    from fieldscope.retrieval.remembered import RememberedSearch

    query, strategy = search.query, search.strategy
    require_query_words(query, strategy, models.settings, composed=search.reference is not None)
    await models.require_context(strategy, query)
    library = await asyncio.to_thread(lambda: open_library(search.index, models.load_encoder()))
    images = _images(library, needed=bool(strategy.prompts) or search.needs_images)
    if search.reference is not None:
        query = query.model_copy(update={"reference_image": _id_of(search.reference, library, images)})
    top_k = search.top_k or strategy.retrieve.top_k
    retriever = RememberedSearch(library)
    first = await asyncio.to_thread(retriever.search, query, top_k, (), strategy.retrieve.caption_weight)
    if not first:
        raise ConfigError(f"the index holds no image but {query.reference_image!r}; index more of them")
    seen = [candidate.image_id for candidate in first]
    if query.reference_image is not None:
        seen.insert(0, query.reference_image)
    bundled = models.bundled_clip or (bool(strategy.prompts) and models.bundled_lmm)
    flags = await asyncio.to_thread(_flags, images, seen) if bundled else ()
    for flag in flags:
        warn(flag)
    resources = Resources(images, retriever=retriever, flags=flags)
    origin = library.encoder.fingerprint
    result = await _rank(query, strategy, models, resources, origin, top_k=top_k, budget=search.budget)
    if bundled and not flags:  # other descriptions and later rounds find other images
        late = await asyncio.to_thread(_flags, images, [ranked.image_id for ranked in result.ranking])
        result = result.model_copy(update={"flags": (*late, *result.flags)})
    _warn_after(result, flags)
    return RankedQuery(result, images, read_skipped(search.index), models.names(strategy))


def require_verdicts(result: RerankResult) -> None:
    """Raise `LMMError` where the model was asked about candidates and every call failed: the ranking is then the first
    stage's."""
    asked = [question for question in (*result.verdicts, *result.comparisons) if question.state != "not_asked"]
    if asked and all(question.state == "unknown" for question in asked):
        raise LMMError(
            f"none of {len(asked)} questions about the images got an answer ({asked[0].error}), so the images stand in "
            "the first stage's order. Restart the model or its server and rerun this command"
        )


async def _rank(
    query: Query,
    strategy: Strategy,
    models: Models,
    resources: Resources,
    origin: str | None,
    *,
    candidates: Sequence[Candidate] | None = None,
    top_k: int | None = None,
    budget: Budget | None = None,
) -> RerankResult:
    """Rank the candidates, or what the resources' retriever finds, with the LMM and what was fitted to it. `origin`
    is the fingerprint of what gave the priors."""
    from fieldscope.agent.graph import Agent

    settings, images = models.settings, resources.images
    async with AsyncExitStack() as stack:
        opened = open_lmm(settings, images, models.lmm) if strategy.prompts else None
        lmm = await stack.enter_async_context(opened) if opened else None
        calibration = find_calibration(lmm.identity if lmm else None, strategy, origin)
        resources = replace(resources, lmm=lmm, max_concurrency=settings.concurrency, calibration=calibration)
        return await Agent(resources, strategy).rerank(query, candidates, top_k, budget)


def _warn_after(result: RerankResult, flags: Sequence[str]) -> None:
    """What came to light while it ranked: further flags, and where a budget ended the work."""
    for flag in result.flags:
        if flag not in flags:
            warn(flag)
    if result.ended:
        warn(
            f"The budget ran out in the stage {result.ended!r}. The ranking rests on the answers that had arrived by "
            "then."
        )


def _flags(images: ImageSource, seen: Iterable[str]) -> tuple[str, ...]:
    """The flags of what a bundled model found or judged: a warning where it was not made for these images."""
    return () if all_fieldnotes(images, seen) else (FOREIGN,)


def _bundled_clip_knows(text: str, chosen: Chosen) -> bool:
    return not unknown_words([text], "clip") and all_fieldnotes(chosen.images, chosen.images.ids())


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
