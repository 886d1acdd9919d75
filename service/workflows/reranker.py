"""`AsyncReranker`: models that stay loaded, and queries that are ranked with them from a Python program."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from fieldscope.core.errors import ConfigError
from fieldscope.core.validation import unknown_name
from fieldscope.service.metadata.filter import Given, read_filter
from fieldscope.service.wiring.feedback import warn
from fieldscope.service.wiring.prompts import prompts_for
from fieldscope.service.wiring.queries import make_query
from fieldscope.service.wiring.settings import (
    BUNDLED,
    DEFAULT_CONCURRENCY,
    DEFAULT_STRATEGY,
    RoleModel,
    Settings,
    read_model,
    require_role_models,
)
from fieldscope.service.workflows.caller_warnings import CallerWarnings
from fieldscope.service.workflows.models import KeptModels
from fieldscope.service.workflows.promise import CONFIDENCE, LabelledRun

if TYPE_CHECKING:
    from fieldscope.agent.budget import Budget
    from fieldscope.agent.lmm.base import LMM
    from fieldscope.agent.lmm.cached import CacheMode
    from fieldscope.agent.roles import Role
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.core.types import ImageSource, Query
    from fieldscope.retrieval.encoder import Encoder
    from fieldscope.retrieval.scorer import Scorer
    from fieldscope.service.workflows.given_images import Images
    from fieldscope.service.workflows.promise import Promise
    from fieldscope.service.workflows.ranking import Ranking
    from fieldscope.service.workflows.reports import Evaluation


class AsyncReranker:
    """Ranks images by how well they match a query, on the caller's event loop.

    `strategy` is the name of a strategy, the path of its YAML file, or a `Strategy`. `lmm` is `"bundled"`, the URL of
    an OpenAI-compatible server (then `model` names the model that it serves), an `LMM`, or a function that makes one
    from an `ImageSource`. `roles` gives single roles (reasoner, captioner, verifier, judge) an LMM of their own: a text
    `URL#MODEL`, a `RoleModel`, an `LMM`, or a function that makes one. `encoder` is `"bundled"`, a name or folder for
    open_clip, any other that `--encoder` takes, or an `Encoder`; with an LMM of your own and without an encoder, the
    LMM ranks alone where the bundled CLIP does not know the images. `scorer` is a scoring model for strategies that use
    one, or for the prior of given images: `URL#MODEL` of a server of rerankers, `path:FOLDER`, another scorer by its
    name, or a `Scorer`. `budget` is what a query may spend, unless a call says otherwise. Answers and scores are
    remembered as `cache` says: `on`, `refresh`, `replay` (never ask a model), or `off`, in `cache_file` or the user's
    cache folder. `prompts` is a prompt set's name or a folder of your own prompts; by default the set was written for
    the LMM: `fieldnotes` for the bundled one, `instruct` for all others. `instruction` says what a match is, to a model
    of the first stage that reads one; it replaces the strategy's own (`retrieve.instruction`). `precision_from` is the
    folder of a finished run of this strategy over labelled queries, from which calls with a `precision` choose their
    threshold.

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
        scorer: str | Scorer | None = None,
        budget: Budget | None = None,
        api_key: str | None = None,
        revision: str | None = None,
        cache: CacheMode = "on",
        cache_file: str | Path | None = None,
        concurrency: int = DEFAULT_CONCURRENCY,
        prompts: str | Path | None = None,
        roles: Mapping[Role, str | RoleModel | LMM | Callable[[ImageSource], LMM]] | None = None,
        instruction: str | None = None,
        precision_from: str | Path | None = None,
    ) -> None:
        from fieldscope.agent.roles import ROLES
        from fieldscope.service.workflows.evaluate import load_strategies

        if unknown := [role for role in roles or () if role not in ROLES]:
            raise ConfigError(unknown_name("role", unknown[0], ROLES))
        url = lmm if isinstance(lmm, str) and lmm != BUNDLED else None
        if (url is None) != (model is None):
            raise ConfigError("`lmm` and `model` go together: give the URL of a server and the model that it serves")
        if not isinstance(strategy, str | Path) and prompts is not None:
            raise ConfigError("a `Strategy` has its prompts; give `prompts` to `load_strategy`, or a strategy by name")
        self.budget = budget
        named = {
            role: read_model(own) if isinstance(own, str) else own
            for role, own in (roles or {}).items()
            if isinstance(own, str | RoleModel)
        }
        settings = Settings(
            lmm_url=url,
            model=model,
            revision=revision,
            api_key=api_key,
            encoder=encoder if isinstance(encoder, str) else None,
            cache_mode=cache,
            cache_file=Path(cache_file) if cache_file is not None else None,
            concurrency=concurrency,
            roles=named,
            prompts=str(prompts) if prompts is not None else None,
            scorer=scorer if isinstance(scorer, str) else None,
        )
        require_role_models(settings)
        self._models = KeptModels(
            settings,
            None if isinstance(lmm, str) else lmm,
            None if isinstance(encoder, str) else encoder,
            {role: own for role, own in (roles or {}).items() if not isinstance(own, str | RoleModel)},
            None if isinstance(scorer, str) else scorer,
        )
        made = [role for role in ROLES if self._models.given(role) is not None]
        self._prompts = prompts_for(settings, made)
        named_or_given = (
            load_strategies([str(strategy)], self._prompts)[0] if isinstance(strategy, str | Path) else strategy
        )
        self._instruction = instruction
        self._labelled_at = Path(precision_from) if precision_from is not None else None
        self._labelled: LabelledRun | None = None
        self.strategy = named_or_given.instructed(instruction)
        # A library's progress bar, which is never shown, asks notebooks for widgets as it is imported.
        warnings.filterwarnings("ignore", "IProgress not found")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Let go of the models and the cache. Calls after this raise `ConfigError`."""
        await self._models.aclose()

    async def rerank(
        self,
        query: str | Query,
        images: Images,
        *,
        index: str | Path | None = None,
        budget: Budget | None = None,
        precision: float | None = None,
        confidence: float = CONFIDENCE,
        metadata: str | Path | None = None,
        filter: Given | None = None,
    ) -> Ranking:
        """Rank all of `images` for a query: a folder, paths, Pillow images, the bytes of image files, or a mapping of
        ids to these. With `index`, a folder that `fieldscope index` made, they are ids of images in it.

        With a `precision`, the ranking's `kept` has the images above the threshold that promises it with this
        confidence, on average over queries like those of `precision_from`.

        `metadata` is a table that is joined to the images by file name, and `filter` a condition on its columns, on
        EXIF time and place, or several of them (docs/metadata.md): only images that satisfy it are ranked. Metadata
        never reaches a model.

        Images that can't be read are left out and listed in `skipped`. What makes the ranking worth less is in `flags`
        and a `FieldscopeWarning`. Raises `ConfigError` for unusable input, `VocabularyError` for words that a bundled
        model does not know, and `LMMError` where the model answered nothing at all.
        """
        from fieldscope.service.workflows.given_images import open_given
        from fieldscope.service.workflows.rerank import require_verdicts, rerank_indexed, rerank_query

        wanted = None if filter is None else read_filter(filter)
        table = None if metadata is None else Path(metadata)
        if table is not None and index is not None:
            raise ConfigError("an index has its metadata beside it; give the table to `fieldscope index --metadata`")
        promise = await self._promise(precision, confidence)
        query, models, budget = _as_query(query), self._models, budget or self.budget
        if query.reference_image is not None:
            raise ConfigError("a query with a reference image needs an index; use `search(index, query)`")
        with CallerWarnings():
            if index is not None:
                ranking = await rerank_indexed(
                    query, Path(index), images, self.strategy, models, budget, promise, wanted
                )
            else:
                chosen = await asyncio.to_thread(open_given, images)
                ranking = await rerank_query(
                    query, chosen, self.strategy, models, budget, promise, metadata=table, wanted=wanted
                )
            require_verdicts(ranking.result)
        return ranking

    async def search(
        self,
        index: str | Path,
        query: str | Query,
        *,
        top_k: int | None = None,
        budget: Budget | None = None,
        precision: float | None = None,
        confidence: float = CONFIDENCE,
        metadata: str | Path | None = None,
        filter: Given | None = None,
    ) -> Ranking:
        """Find images in a folder that `fieldscope index` made, at first `top_k` (by default as many as the strategy
        says), and rank them. A `Query` may have a reference image, by its id in the index, or a dialogue. `precision`
        and `confidence` are as in `rerank`, and so is `filter`, over the metadata beside the index; a table `metadata`
        replaces it.

        Raises what `rerank` raises, and `IndexMismatchError` for an index of another encoder.
        """
        from fieldscope.service.workflows.rerank import require_verdicts
        from fieldscope.service.workflows.search import search_index

        wanted = None if filter is None else read_filter(filter)
        promise = await self._promise(precision, confidence)
        query, models, budget = _as_query(query), self._models, budget or self.budget
        with CallerWarnings():
            ranking = await search_index(
                query,
                Path(index),
                self.strategy,
                models,
                top_k=top_k,
                budget=budget,
                promise=promise,
                metadata=None if metadata is None else Path(metadata),
                wanted=wanted,
            )
            require_verdicts(ranking.result)
        return ranking

    async def _promise(self, precision: float | None, confidence: float) -> Promise | None:
        """Raises `ConfigError` where it can't be promised. The labelled run is read once."""
        if precision is None:
            return None
        if self._labelled_at is None:
            raise ConfigError(
                "a promised precision needs a labelled run. Evaluate this strategy on labelled queries, and give the "
                "run's folder as `precision_from`."
            )
        if self._labelled is None:
            self._labelled = await asyncio.to_thread(LabelledRun, self._labelled_at)
        return self._labelled.promise(precision, confidence, self.strategy)

    async def evaluate(
        self,
        benchmark: str | Path,
        strategies: Sequence[str | Path] = (),
        *,
        split: str | None = None,
        limit: int | None = None,
        out: str | Path | None = None,
        choices: Mapping[str, str] | None = None,
    ) -> Evaluation:
        """Rank a benchmark's queries with each strategy (this reranker's, where none are named), and score them.

        `benchmark` is a name (`fieldnotes-rerank` ...) or the path of its files, `limit` how many queries are taken,
        from the first. Runs go to `out`, by default `runs/BENCHMARK-SPLIT`; finished queries there are not asked again.
        `choices` are named settings of a data set's protocol, such as `{"reference": "kept"}`.
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

        given = (self._models.lmm, self._models.encoder, self._models.scorer)
        if any(model is not None for model in given) or self._models.roles:
            raise ConfigError(
                "an evaluation needs models by name; give `lmm`, `encoder`, `scorer` and `roles` as texts"
            )
        with CallerWarnings():
            names = [str(name) for name in strategies]
            loaded = load_strategies(names, self._prompts) if names else [self.strategy]
            chosen = [strategy.instructed(self._instruction) for strategy in loaded]
            folder = Path(out) if out is not None else None
            plan = EvaluationPlan(
                str(benchmark), split, limit=limit, out=folder, budget=self.budget, choices=choices or {}
            )
            opened = await open_evaluation_async(plan, [Contest(self._models.settings, chosen)])
            summaries = (await run_opened_async(opened)).runs
            for line in report.warnings(summaries):
                warn(line)
        return Evaluation(tuple(load_run(summary.out) for summary in summaries))


def _as_query(query: str | Query) -> Query:
    return make_query(query) if isinstance(query, str) else query
