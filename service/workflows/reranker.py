"""`AsyncReranker`: models that stay loaded, and queries that are ranked with them from a Python program."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from fieldscope.core.errors import ConfigError
from fieldscope.service.wiring.bundled import FOREIGN, unknown_words
from fieldscope.service.wiring.calibrations import find_calibration
from fieldscope.service.wiring.feedback import Silent, listening
from fieldscope.service.wiring.models import load_encoder, open_lmm, probe_server
from fieldscope.service.wiring.own_pictures import all_fieldnotes
from fieldscope.service.wiring.queries import make_query, require_query_words
from fieldscope.service.wiring.settings import DEFAULT_CONCURRENCY, DEFAULT_STRATEGY, Settings
from fieldscope.service.workflows.caller_warnings import warn_caller

if TYPE_CHECKING:
    from fieldscope.agent.budget import Budget
    from fieldscope.agent.lmm.base import LMM
    from fieldscope.agent.lmm.cached import CacheMode
    from fieldscope.agent.resources import Retriever
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.core.types import Candidate, ImageSource, Query
    from fieldscope.retrieval.encoder import Encoder
    from fieldscope.service.workflows.given_images import Images
    from fieldscope.service.workflows.ranking import Ranking
    from fieldscope.service.workflows.reports import Evaluation

BUNDLED = "bundled"
_GIVEN = "given"


@dataclass
class _Heard(Silent):
    """Feedback that keeps warnings, for the caller to hear when the work is done."""

    warnings: list[str]

    def warn(self, message: str) -> None:
        self.warnings.append(message)


class AsyncReranker:
    """Ranks images by how well they match a query, on the caller's event loop.

    `strategy` is the name of a strategy, the path of its YAML file, or a `Strategy`. `lmm` is `"bundled"`, the URL of
    an OpenAI-compatible server (then `model` names the model that it serves), an `LMM`, or a function that makes one
    from an `ImageSource`. `encoder` is `"bundled"`, a name or folder for open_clip, or an `Encoder`; with an LMM of
    your own and without an encoder, the LMM ranks alone where the bundled CLIP does not know the images. `budget` is
    what a query may spend, unless a call says otherwise. Answers are remembered as `cache` says: `on`, `refresh`,
    `replay` (never ask a model), or `off`, in `cache_file` or the user's cache folder.

    Models are loaded by the first call that needs them, and stay loaded until `aclose` or the end of `async with`. Any
    number of calls may run at once, all on one event loop. Raises `ConfigError` for settings that can't be used.
    """

    def __init__(
        self,
        strategy: str | Path | Strategy = DEFAULT_STRATEGY,
        *,
        lmm: str | LMM | Callable[[ImageSource], LMM] = BUNDLED,
        model: str | None = None,
        encoder: str | Encoder = BUNDLED,
        budget: Budget | None = None,
        api_key: str | None = None,
        revision: str | None = None,
        cache: CacheMode = "on",
        cache_file: str | Path | None = None,
        concurrency: int = DEFAULT_CONCURRENCY,
    ) -> None:
        from fieldscope.agent.strategies.strategy import load_strategy
        from fieldscope.service.workflows.shared_images import SharedImages

        url = lmm if isinstance(lmm, str) and lmm != BUNDLED else None
        if (url is None) != (model is None):
            raise ConfigError("`lmm` and `model` go together: give the URL of a server and the model that it serves")
        self.strategy = load_strategy(str(strategy)) if isinstance(strategy, str | Path) else strategy
        self.budget = budget
        self.settings = Settings(
            lmm_url=url,
            model=model,
            revision=revision,
            api_key=api_key,
            clip=encoder if isinstance(encoder, str) and encoder != BUNDLED else None,
            cache_mode=cache,
            cache_file=Path(cache_file) if cache_file is not None else None,
            concurrency=concurrency,
        )
        self._given_lmm = None if isinstance(lmm, str) else lmm
        self._encoder = None if isinstance(encoder, str) else encoder
        # Objects stand in for the bundled models as names do: what the bundled ones do not know does not matter.
        self._settings_of_words = replace(
            self.settings,
            lmm_url=url or (_GIVEN if self._given_lmm is not None else None),
            clip=self.settings.clip or (_GIVEN if self._encoder is not None else None),
        )
        # A library's progress bar, which is never shown, asks notebooks for widgets as it is imported.
        warnings.filterwarnings("ignore", "IProgress not found")
        self._shared = SharedImages()
        self._lmm: LMM | None = None
        self._context: int | None = None
        self._open = AsyncExitStack()
        self._loading = asyncio.Lock()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Let go of the models and the cache. Calls after this raise `ConfigError`."""
        self._closed = True
        self._lmm = None
        await self._open.aclose()

    async def rerank(
        self,
        query: str | Query,
        images: Images,
        *,
        index: str | Path | None = None,
        budget: Budget | None = None,
    ) -> Ranking:
        """Rank all of `images` for a query: a folder, paths, Pillow images, the bytes of image files, or a mapping of
        ids to these. With `index`, a folder that `fieldscope index` made, they are ids of images in it.

        Images that can't be read are left out and listed in `skipped`. What makes the ranking worth less is in `flags`
        and a `FieldscopeWarning`. Raises `ConfigError` for unusable input, `VocabularyError` for words that a bundled
        model does not know, and `LMMError` where the model answered nothing at all.
        """
        heard = _Heard([])
        with listening(heard):
            ranking = await self._rerank(_as_query(query), images, index, budget)
        _warn(ranking, heard)
        return ranking

    async def search(
        self,
        index: str | Path,
        query: str | Query,
        *,
        top_k: int | None = None,
        budget: Budget | None = None,
    ) -> Ranking:
        """Find images in a folder that `fieldscope index` made, at first `top_k` (by default as many as the strategy
        says), and rank them. A `Query` may have a reference image, by its id in the index, or a dialogue.

        Raises what `rerank` raises, and `IndexMismatchError` for an index of another encoder.
        """
        heard = _Heard([])
        with listening(heard):
            ranking = await self._search(Path(index), _as_query(query), top_k, budget)
        _warn(ranking, heard)
        return ranking

    async def evaluate(
        self,
        benchmark: str | Path,
        strategies: Sequence[str | Path] = (),
        *,
        split: str | None = None,
        limit: int | None = None,
        out: str | Path | None = None,
    ) -> Evaluation:
        """Rank a benchmark's queries with each strategy (this reranker's, where none are named), and score them.

        `benchmark` is a name (`fieldnotes-rerank` ...) or the path of its files, `limit` how many queries are taken,
        from the first. Runs go to `out`, by default `runs/BENCHMARK-SPLIT`; finished queries there are not asked again.
        Raises `BenchmarkError` where there is no such benchmark, and `ConfigError` for unusable settings.
        """
        from fieldscope.eval import report
        from fieldscope.service.workflows.evaluate import (
            Contest,
            EvaluationPlan,
            load_strategies,
            open_evaluation_async,
            run_opened_async,
        )
        from fieldscope.service.workflows.reports import Evaluation, load_run

        if self._given_lmm is not None or (self._encoder is not None and self.settings.clip is None):
            raise ConfigError("an evaluation needs models by name; give `lmm` and `encoder` as texts")
        heard = _Heard([])
        with listening(heard):
            chosen = load_strategies([str(name) for name in strategies]) if strategies else [self.strategy]
            folder = Path(out) if out is not None else None
            plan = EvaluationPlan(str(benchmark), split, limit=limit, out=folder, budget=self.budget)
            opened = await open_evaluation_async(plan, [Contest(self.settings, chosen)])
            summaries = (await run_opened_async(opened)).runs
        warn_caller(dict.fromkeys([*report.warnings(summaries), *heard.warnings]))
        return Evaluation(tuple(load_run(summary.out) for summary in summaries))

    async def _rerank(self, query: Query, images: Images, index: str | Path | None, budget: Budget | None) -> Ranking:
        from fieldscope.retrieval.scorer import Similarity
        from fieldscope.service.workflows.candidates import score
        from fieldscope.service.workflows.given_images import open_given

        if query.reference_image is not None:
            raise ConfigError("a query with a reference image needs an index; use `search(index, query)`")
        if not self._own_lmm or index is not None:
            self._require_words(query)
        if index is not None:
            return await self._rerank_indexed(query, images, Path(index), budget)
        chosen = await asyncio.to_thread(open_given, images)
        ids = chosen.images.ids()
        own = await asyncio.to_thread(all_fieldnotes, chosen.images, ids)
        with_prior = not self._own_lmm or self._own_encoder or (own and not unknown_words([query.text], "clip"))
        encoder = await self._load_encoder() if with_prior else None
        scorer = Similarity(encoder) if encoder else None
        candidates, skipped = await asyncio.to_thread(score, chosen, query, scorer)
        judges = self._own_lmm if self.strategy.prompts else self._own_encoder  # whether no bundled model decides
        flags = () if own or judges else (FOREIGN,)
        return await self._rank(query, candidates, chosen.images, flags, budget, encoder, skipped=skipped)

    async def _rerank_indexed(self, query: Query, ids: object, index: Path, budget: Budget | None) -> Ranking:
        from fieldscope.core.types import Candidate
        from fieldscope.retrieval.encoder import inputs_of
        from fieldscope.retrieval.library import open_library

        encoder = await self._load_encoder()
        library = await asyncio.to_thread(open_library, index, encoder)
        wanted = [ids] if isinstance(ids, str) else ids if isinstance(ids, Sequence) else []
        names = [image_id for image_id in wanted if isinstance(image_id, str)]
        if not names or len(names) < len(wanted):
            raise ConfigError("with an index, `images` are ids of images in it; give a list of texts")
        indexed = set(library.ids)
        if missing := [image_id for image_id in names if image_id not in indexed]:
            raise ConfigError(f"{missing[0]!r} is not in the index {str(index)!r}; give ids of images in it")
        names = list(dict.fromkeys(names))
        direction = await asyncio.to_thread(encoder.encode_query, inputs_of(query))
        priors = library.index.vectors_of(names) @ direction
        candidates = [Candidate(name, float(prior)) for name, prior in zip(names, priors, strict=True)]
        own = self._no_bundled or await asyncio.to_thread(all_fieldnotes, library.collection, names)
        flags = () if own else (FOREIGN,)
        return await self._rank(query, candidates, library.collection, flags, budget, encoder)

    async def _search(self, index: Path, query: Query, top_k: int | None, budget: Budget | None) -> Ranking:
        from fieldscope.retrieval.library import open_library, read_skipped
        from fieldscope.retrieval.remembered import RememberedSearch

        self._require_words(query)
        encoder = await self._load_encoder()
        library = await asyncio.to_thread(open_library, index, encoder)
        retriever = RememberedSearch(library)
        ranking = await self._rank(
            query, None, library.collection, (), budget, encoder, retriever, top_k, read_skipped(index)
        )
        ids = (ranked.image_id for ranked in ranking.result.ranking)
        if self._no_bundled or await asyncio.to_thread(all_fieldnotes, library.collection, ids):
            return ranking
        flagged = ranking.result.model_copy(update={"flags": (FOREIGN, *ranking.result.flags)})
        return type(ranking)(flagged, ranking.images, ranking.skipped)

    async def _rank(
        self,
        query: Query,
        candidates: Sequence[Candidate] | None,
        images: ImageSource,
        flags: Sequence[str],
        budget: Budget | None,
        encoder: Encoder | None,
        retriever: Retriever | None = None,
        top_k: int | None = None,
        skipped: dict[str, str] | None = None,
    ) -> Ranking:
        from fieldscope.agent.graph import Agent
        from fieldscope.agent.resources import Resources
        from fieldscope.eval.tuning.estimate import require_context
        from fieldscope.service.workflows.ranking import Ranking
        from fieldscope.service.workflows.rerank import require_verdicts

        async with self._lmm_for(images) as lmm:
            require_context([self.strategy], [query], self._context)
            calibration = find_calibration(
                lmm.identity if lmm else None, self.strategy, encoder.fingerprint if encoder else None
            )
            resources = Resources(images, lmm, retriever, self.settings.concurrency, calibration, tuple(flags))
            result = await Agent(resources, self.strategy).rerank(query, candidates, top_k, budget or self.budget)
        require_verdicts(result)
        return Ranking(result, images, skipped or {})

    @property
    def _own_lmm(self) -> bool:
        """Whether the strategy asks an LMM, and the user named one."""
        return bool(self.strategy.prompts) and self._settings_of_words.lmm_url is not None

    @property
    def _own_encoder(self) -> bool:
        """Whether the user named an encoder."""
        return self._settings_of_words.clip is not None

    @property
    def _no_bundled(self) -> bool:
        """Whether no bundled model takes part in a search."""
        return self._own_encoder and (self._own_lmm or not self.strategy.prompts)

    def _require_words(self, query: Query) -> None:
        composed = query.reference_image is not None
        require_query_words(query, self.strategy, self._settings_of_words, composed=composed)

    async def _load_encoder(self) -> Encoder:
        async with self._loading:
            if self._encoder is None:
                self._encoder = await asyncio.to_thread(load_encoder, self.settings)
            return self._encoder

    @asynccontextmanager
    async def _lmm_for(self, images: ImageSource) -> AsyncIterator[LMM | None]:
        """The model as one call sees it, over that call's images; None where the strategy asks none."""
        from fieldscope.service.workflows.shared_images import CallLMM

        if self._closed:
            raise ConfigError("this Reranker is closed; make a new one")
        if not self.strategy.prompts:
            yield None
            return
        with self._shared.serving(images) as prefix:
            lmm = await self._load_lmm()
            # An LMM that the caller made has images of its own, and knows them by their ids.
            yield lmm if self._given_lmm is not None and not callable(self._given_lmm) else CallLMM(lmm, prefix)

    async def _load_lmm(self) -> LMM:
        async with self._loading:
            if self._lmm is None:
                if self.settings.asks_server and self.settings.cache_mode != "replay":
                    self._context = await probe_server(self.settings)
                given = self._given_lmm(self._shared) if callable(self._given_lmm) else self._given_lmm
                self._lmm = await self._open.enter_async_context(open_lmm(self.settings, self._shared, given))
            return self._lmm


def _as_query(query: str | Query) -> Query:
    return make_query(query) if isinstance(query, str) else query


def _warn(ranking: Ranking, heard: _Heard) -> None:
    ended = [f"A budget ended the work in stage {ranking.ended!r}; the ranking rests on the answers up to then."]
    warn_caller(dict.fromkeys([*ranking.flags, *heard.warnings, *(ended if ranking.ended else [])]))
