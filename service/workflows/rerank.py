"""One query ranked: over images that a user chose, or over images of an index by their ids."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import ConfigError, LMMError
from fieldscope.service.metadata.store import read_records
from fieldscope.service.wiring.bundled import FOREIGN, unknown_words
from fieldscope.service.wiring.calibrations import find_calibration
from fieldscope.service.wiring.feedback import note, warn
from fieldscope.service.wiring.instructions import warn_of_unread_instruction
from fieldscope.service.wiring.own_pictures import all_fieldnotes
from fieldscope.service.wiring.predicates import given_flags
from fieldscope.service.wiring.prompt_pictures import with_examples
from fieldscope.service.wiring.scorers import uses_scorer
from fieldscope.service.workflows.candidates import Chosen, judge, score
from fieldscope.service.workflows.models import Models
from fieldscope.service.workflows.ranking import MadeWith, Ranking
from fieldscope.service.workflows.selecting import select, select_chosen

if TYPE_CHECKING:
    from fieldscope.agent.budget import Budget
    from fieldscope.agent.lmm.base import LMM
    from fieldscope.agent.resources import Resources
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.agent.types import Predicate, RerankResult
    from fieldscope.core.types import Candidate, ImageSource, Query
    from fieldscope.service.metadata.filter import Filter
    from fieldscope.service.workflows.promise import Promise


async def rerank_query(
    query: Query,
    chosen: Chosen,
    strategy: Strategy,
    models: Models,
    budget: Budget | None = None,
    promise: Promise | None = None,
    predicates: Sequence[Predicate] = (),
    metadata: Path | None = None,
    wanted: Filter | None = None,
) -> Ranking:
    """Rank images that the user chose: the CLIP gives each a prior, or a scoring model that no stage of the strategy
    asks, then the strategy ranks them.

    Only images that satisfy `wanted` are ranked, by their rows in the table `metadata` and by EXIF.

    A bundled CLIP that does not know the query's words or the images gives no prior where another model looks at them.
    Raises `VocabularyError` for words that a bundled model does not know, `ConfigError` where no image can be read,
    and what the server's check and the agent raise.
    """
    from fieldscope.agent.resources import Resources

    chosen, records = await asyncio.to_thread(select_chosen, chosen, metadata, wanted)
    if strategy.retrieve.tiles:
        raise ConfigError(
            f"strategy {strategy.name!r} has `retrieve.tiles`, which needs an index with tiles; index the images with "
            "`fieldscope index --tiles` and search them there, or leave the setting out"
        )
    models.require_words(strategy, query)
    contexts = await models.require_context(strategy, query)
    fitting = models.checking_pictures(strategy, query, contexts, chosen.images, chosen.images.ids())
    bundled = models.bundled_judge(strategy)
    flags = await foreign_flags(chosen.images, chosen.images.ids()) if bundled else ()
    instruction = strategy.retrieve.instruction
    if models.scorer_gives_prior(strategy):
        async with models.open_scorer(chosen.images) as scorer:
            candidates, skipped = await judge(chosen, query, scorer, instruction)
            origin: str | None = scorer.fingerprint
    else:
        models.require_scorer(strategy)
        knows = bundled or not models.bundled_clip or await asyncio.to_thread(_bundled_clip_knows, query.text, chosen)
        candidates, skipped, origin = await _score(chosen, query, models, strategy, knows)
    resources = Resources(chosen.images, flags=flags, regions=models.regions(chosen.images))
    ranking = await rank(
        query,
        strategy,
        models,
        resources,
        origin,
        candidates=candidates,
        budget=budget,
        wrappers=[fitting],
        promise=promise,
        predicates=predicates,
    )
    return replace(ranking, skipped=skipped, records=records)


async def _score(
    chosen: Chosen, query: Query, models: Models, strategy: Strategy, knows: bool
) -> tuple[list[Candidate], dict[str, str], str | None]:
    """Candidates with their similarity as the prior, or with none where the encoder does not know them; what was
    skipped; and the fingerprint of what gave the priors."""
    from fieldscope.retrieval.scorer import Similarity

    if not knows:
        note(
            "The bundled CLIP does not know these images, so they are ranked without a first stage. To add one, name "
            "another model with --encoder."
        )
    scorer = Similarity(await models.load_encoder(images=True)) if knows else None
    if scorer is not None:
        warn_of_unread_instruction([strategy], scorer.encoder)
    candidates, skipped = await asyncio.to_thread(score, chosen, query, scorer, strategy.retrieve.instruction)
    return candidates, skipped, scorer.fingerprint if scorer else None


async def rerank_indexed(
    query: Query,
    index: Path,
    ids: object,
    strategy: Strategy,
    models: Models,
    budget: Budget | None = None,
    promise: Promise | None = None,
    wanted: Filter | None = None,
) -> Ranking:
    """Rank images of an index, by their ids, those that satisfy `wanted`; their vectors in it give the priors.

    Raises `VocabularyError` for words that a bundled model does not know, `IndexMismatchError` for an index that was
    made with another CLIP, `ConfigError` for ids that are not in it, and what the server's check and the agent raise.
    """
    from fieldscope.agent.resources import Resources
    from fieldscope.core.types import Candidate
    from fieldscope.retrieval.encoder import inputs_of
    from fieldscope.retrieval.library import open_library

    models.require_words(strategy, query, searching=True)
    contexts = await models.require_context(strategy, query)
    encoder = await models.load_encoder()
    library = await asyncio.to_thread(open_library, index, encoder)
    names = _ids_in(index, library.ids, ids)
    records = await asyncio.to_thread(read_records, index)
    if wanted is not None:
        names = select(wanted, records, names)
    warn_of_unread_instruction([strategy], encoder)
    inputs = inputs_of(query, instruction=strategy.retrieve.instruction)
    direction = await asyncio.to_thread(encoder.encode_query, inputs)
    tiles = strategy.retrieve.tiles
    priors = library.similarities(names, direction, tiles=tiles)
    usual = library.background(direction, tiles=tiles)
    candidates = [
        Candidate(name, float(prior), usual.standing(float(prior)) if usual else None)
        for name, prior in zip(names, priors, strict=True)
    ]
    bundled = models.bundled_clip or models.bundled_judge(strategy)
    flags = await foreign_flags(library.collection, names) if bundled else ()
    resources = Resources(library.collection, flags=flags, regions=models.regions(library.collection, index, encoder))
    fitting = models.checking_pictures(strategy, query, contexts, library.collection, names)
    ranking = await rank(
        query,
        strategy,
        models,
        resources,
        encoder.fingerprint,
        candidates=candidates,
        budget=budget,
        wrappers=[fitting],
        promise=promise,
    )
    return replace(ranking, records=records)


def require_verdicts(result: RerankResult) -> None:
    """Raise `LMMError` where a model was asked about candidates and every call failed: the ranking is then the first
    stage's."""
    scores = [score for score in result.scores if score.state != "not_asked"]
    if scores and all(score.state == "unknown" for score in scores):
        raise LMMError(
            f"the scoring model gave none of {len(scores)} scores ({scores[0].error}), so the images stand in the "
            "first stage's order. Check it with `fieldscope doctor --scorer`, and rerun this command"
        )
    asked = [question for question in (*result.verdicts, *result.comparisons) if question.state != "not_asked"]
    if asked and all(question.state == "unknown" for question in asked):
        raise LMMError(
            f"none of {len(asked)} questions about the images got an answer ({asked[0].error}), so the images stand in "
            "the first stage's order. Restart the model or its server and rerun this command"
        )


async def rank(
    query: Query,
    strategy: Strategy,
    models: Models,
    resources: Resources,
    origin: str | None,
    *,
    candidates: Sequence[Candidate] | None = None,
    top_k: int | None = None,
    budget: Budget | None = None,
    wrappers: Iterable[Callable[[LMM], LMM]] = (),
    promise: Promise | None = None,
    predicates: Sequence[Predicate] = (),
) -> Ranking:
    """Rank the candidates, or what the resources' retriever finds, with the LMM and what was fitted to it; warn of
    what comes to light. `origin` is the fingerprint of what gives the priors, None where there are none; `predicates`
    are asked in place of those that the model would derive. Raises `ConfigError`, before anything is asked, where a
    promise is not for this setting."""
    from fieldscope.agent.graph import Agent
    from fieldscope.agent.image_scorer import ImageScorer
    from fieldscope.retrieval.looked_at import with_looks

    images = with_looks(resources.images)
    pictures = with_examples(images, strategy.prompts)
    async with AsyncExitStack() as stack:
        timed = budget is not None and budget.deadline is not None  # which is for calls, and not for loading a model
        opening = models.open_lmms(pictures, strategy, wrappers, load=timed)
        lmms = await stack.enter_async_context(opening) if strategy.prompts else None
        composed = query.reference_image is not None
        scorer: ImageScorer | None = None
        if uses_scorer(strategy):
            opened = await stack.enter_async_context(models.open_scorer(resources.images))
            scorer = ImageScorer(opened, resources.images)
        model = lmms.identity(strategy.roles(composed)) if lmms else None
        scored_by = scorer.fingerprint if scorer else None
        calibration = find_calibration(model, strategy, origin, scored_by)
        if promise is not None:
            promise.require_setting(model, calibration, origin, scored_by)
        asked = replace(
            resources,
            images=images,
            lmm=lmms,
            max_concurrency=models.settings.concurrency,
            calibration=calibration,
            scorer=scorer,
        )
        result = await Agent(asked, strategy).rerank(query, candidates, top_k, budget, predicates=predicates)
    result = result.model_copy(update={"flags": (*result.flags, *given_flags(result, calibration is not None))})
    for flag in result.flags:
        if flag not in resources.flags:
            warn(flag)
    if result.ended:
        warn(
            f"The budget ran out in the stage {result.ended!r}. The ranking rests on the answers that had arrived by "
            "then."
        )
    names = models.names(lmms, strategy, prior=origin is not None)
    made_with = MadeWith(strategy, model, origin, calibration)
    return Ranking(result, resources.images, models=names, promise=promise, made_with=made_with)


async def foreign_flags(images: ImageSource, ids: Iterable[str]) -> tuple[str, ...]:
    """Warn of images that the bundled models were not made for, which one of them finds or judges, and flag them."""
    if await asyncio.to_thread(all_fieldnotes, images, ids):
        return ()
    warn(FOREIGN)
    return (FOREIGN,)


def _bundled_clip_knows(text: str, chosen: Chosen) -> bool:
    return not unknown_words([text], "clip") and all_fieldnotes(chosen.images, chosen.images.ids())


def _ids_in(index: Path, indexed: Sequence[str], ids: object) -> list[str]:
    """What a user gave, each once, as ids of images in the index. Raises `ConfigError` for anything else."""
    wanted = [ids] if isinstance(ids, str) else ids if isinstance(ids, Sequence) else []
    names = [image_id for image_id in wanted if isinstance(image_id, str)]
    if not names or len(names) < len(wanted):
        raise ConfigError("with an index, `images` are ids of images in it; give a list of texts")
    known = set(indexed)
    if missing := [image_id for image_id in names if image_id not in known]:
        raise ConfigError(f"{missing[0]!r} is not in the index {str(index)!r}; give ids of images in it")
    return list(dict.fromkeys(names))
