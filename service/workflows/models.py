"""The models that rank a query: loaded for one query, or kept loaded for many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import ConfigError
from fieldscope.service.wiring.kept_encoders import kept_encoder
from fieldscope.service.wiring.models import load_encoder
from fieldscope.service.wiring.queries import require_query_words
from fieldscope.service.wiring.regions import tile_regions
from fieldscope.service.wiring.roles import open_lmms, probe_servers
from fieldscope.service.wiring.scorers import open_scorer, require_scorer, uses_scorer
from fieldscope.service.wiring.settings import Settings
from fieldscope.service.workflows.shared_images import CallLMM, SharedImages

if TYPE_CHECKING:
    from fieldscope.agent.lmm.base import LMM
    from fieldscope.agent.roles import LMMs, Role
    from fieldscope.agent.scored import CachedScorer
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.core.types import ImageSource, Query
    from fieldscope.retrieval.encoder import Encoder
    from fieldscope.retrieval.regions import RegionProposer
    from fieldscope.retrieval.scorer import Scorer

    GivenLMM = LMM | Callable[[ImageSource], LMM]
    """An LMM that a program made, or what makes one from the images."""

_SIMILARITY = "similarity"
"""The scorer that is the encoder."""


@dataclass(frozen=True)
class Models:
    """The models that the settings name; an `lmm`, or a function that makes one, an `encoder` and a `scorer` replace
    them, and `roles` the LMMs of single roles."""

    settings: Settings = field(default_factory=Settings)
    lmm: GivenLMM | None = None
    encoder: Encoder | None = None
    scorer: Scorer | None = None
    roles: Mapping[Role, GivenLMM] = field(default_factory=dict)

    def given(self, role: Role) -> GivenLMM | None:
        """The LMM that stands in for the one that the settings name for a role, if one does."""
        return self.roles.get(role) or (None if role in self.settings.roles else self.lmm)

    def bundled_lmm(self, strategy: Strategy) -> bool:
        """Whether the LMM that comes with Fieldscope has a role that the strategy asks."""
        return self.settings.bundled([role for role in strategy.roles() if self.given(role) is None])

    @property
    def bundled_clip(self) -> bool:
        """Whether the encoder is the CLIP that comes with Fieldscope."""
        return self.encoder is None and not self.settings.encoder

    @property
    def has_scorer(self) -> bool:
        """Whether there is a scoring model other than the encoder's similarity."""
        return self.scorer is not None or self.settings.scorer not in (None, _SIMILARITY)

    def scorer_gives_prior(self, strategy: Strategy) -> bool:
        """Whether the scoring model scores given images first, in place of the encoder: no stage of the strategy asks
        it."""
        return self.has_scorer and not uses_scorer(strategy)

    def bundled_judge(self, strategy: Strategy) -> bool:
        """Whether a bundled model decides on the ranking: the LMM, where the strategy asks one, or else the CLIP, where
        there is no scoring model."""
        return self.bundled_lmm(strategy) if strategy.prompts else self.bundled_clip and not self.has_scorer

    def require_scorer(self, strategy: Strategy) -> None:
        """Raise `ConfigError` where the strategy needs a scoring model and there is none, or there is one that it does
        not use."""
        require_scorer([strategy], self.scorer is not None or self.settings.scorer is not None)

    async def load_encoder(self, images: bool = False) -> Encoder:
        """The encoder, with its earlier vectors of queries, and of `images` where these are wanted. Raises
        `ConfigError` where it can't be loaded."""
        if self.encoder is not None:
            return self.encoder
        return await asyncio.to_thread(kept_encoder, self.settings, images=images)

    def regions(self, images: ImageSource, index: Path | None = None, encoder: Encoder | None = None) -> RegionProposer:
        """What proposes closer looks at these images, by the encoder that the `index` of them was made with."""
        known = encoder or self.encoder
        opening = (lambda: known) if known is not None else None
        return tile_regions(images, self.settings, index, opening, given=self.given("verifier") is not None)

    @asynccontextmanager
    async def open_scorer(self, images: ImageSource) -> AsyncIterator[CachedScorer]:
        """The scoring model over these images and the response cache. Raises what `wiring.scorers.open_scorer` does."""
        async with open_scorer(self.settings, images, self.scorer) as scorer:
            yield scorer

    @asynccontextmanager
    async def open_lmms(
        self,
        images: ImageSource,
        strategy: Strategy,
        wrappers: Iterable[Callable[[LMM], LMM]] = (),
        load: bool = False,
    ) -> AsyncIterator[LMMs]:
        """The LMM of each role that the strategy asks, over these images and the response cache; calls that the cache
        does not answer go through `wrappers`, and load the model unless `load` asks for it now. Raises what
        `wiring.roles.open_lmms` does."""
        from fieldscope.agent.roles import LMMs

        def opened(lmm: GivenLMM | None) -> LMM | None:
            return lmm(images) if callable(lmm) else lmm

        own = {role: lmm for role, given in self.roles.items() if (lmm := opened(given)) is not None}
        given, roles = LMMs(opened(self.lmm), own), strategy.roles()
        async with open_lmms(self.settings, images, roles, given, wrappers, load=load) as lmms:
            yield lmms

    async def contexts(self, strategy: Strategy) -> Mapping[Role, int]:
        """How many tokens the contexts of the roles' models have, where that is known. Raises `LMMError` for a server
        that does not answer."""
        return await probe_servers(self.settings, [role for role in strategy.roles() if self.given(role) is None])

    async def require_context(self, strategy: Strategy, query: Query) -> Mapping[Role, int]:
        """The known contexts. Raises, before any work, `LMMError` for a server that does not answer, and
        `ContextLengthError` for a query that does not fit into its model's context."""
        from fieldscope.eval.tuning.estimate import require_context

        contexts = await self.contexts(strategy) if strategy.prompts else {}
        require_context([strategy], [query], contexts)
        return contexts

    def checking_pictures(
        self, strategy: Strategy, query: Query, contexts: Mapping[Role, int], images: ImageSource, ids: Iterable[str]
    ) -> Callable[[LMM], LMM]:
        """A wrapper for LMMs, whose first call raises `ContextLengthError` where a model's context is too small for as
        many of the images as the strategy shows at once."""
        from fieldscope.service.workflows.picture_context import checked_first, require_pictures_fit

        return checked_first(partial(require_pictures_fit, self.settings, [strategy], [query], contexts, images, ids))

    def require_words(self, strategy: Strategy, query: Query, *, searching: bool = False) -> None:
        """Raise `VocabularyError` for words that a bundled model would have to read and does not know. Without a
        search, another LMM ranks alone where the bundled CLIP does not know them. No model is loaded."""
        clip = self.bundled_clip and (searching or self.bundled_judge(strategy))
        require_query_words(query, lmm=self.bundled_lmm(strategy), clip=clip)

    def names(self, lmms: LMMs | None, strategy: Strategy, *, prior: bool) -> dict[str, str | None]:
        """The models that ranked, by name, for people: `clip` where there was a prior, `lmm` where one was asked, or
        each with its roles where several were, and `scorer` where a stage asked one."""
        from fieldscope.agent.roles import joined, model_text

        names: dict[str, str | None] = {"clip": None, "lmm": None}
        scorer = self.settings.scorer if self.scorer is None else self.scorer.fingerprint
        if uses_scorer(strategy):
            names["scorer"] = scorer
        if prior and self.scorer_gives_prior(strategy):
            names["clip"] = scorer
        elif prior:
            names["clip"] = self.settings.encoder or "bundled" if self.encoder is None else self.encoder.fingerprint
        if lmms is not None:
            by_role = self.settings.names(strategy.roles())
            own = {role: lmm.identity for role in by_role if self.given(role) and (lmm := lmms.get(role))}
            names["lmm"] = model_text(joined(by_role | own))
        return names


class KeptModels(Models):
    """Models that the first call that needs them loads, and that stay loaded until `aclose`. Any number of calls may
    use them at once, on one event loop."""

    def __init__(
        self,
        settings: Settings,
        lmm: GivenLMM | None = None,
        encoder: Encoder | None = None,
        roles: Mapping[Role, GivenLMM] | None = None,
        scorer: Scorer | None = None,
    ) -> None:
        super().__init__(settings, lmm, encoder, scorer, roles or {})
        self._shared = SharedImages()
        self._opened = AsyncExitStack()
        self._loading = asyncio.Lock()
        self._loaded_encoder: Encoder | None = None
        self._loaded_lmms: LMMs | None = None
        self._loaded_scorer: CachedScorer | None = None
        self._contexts: Mapping[Role, int] | None = None
        self._closed = False

    async def load_encoder(self, images: bool = False) -> Encoder:
        self._require_open()
        async with self._loading:
            if self._loaded_encoder is None:
                given = self.encoder
                loaded = await asyncio.to_thread(load_encoder, self.settings) if given is None else given
                self._loaded_encoder = loaded
            return self._loaded_encoder

    @asynccontextmanager
    async def open_lmms(
        self,
        images: ImageSource,
        strategy: Strategy,
        wrappers: Iterable[Callable[[LMM], LMM]] = (),
        load: bool = False,
    ) -> AsyncIterator[LMMs]:
        """The LMMs as one call sees them, over that call's images, loaded with the first call. The strategy is the same
        in each call. The wrappers are those of the first call."""
        from fieldscope.agent.roles import ROLES, LMMs

        self._require_open()
        with self._shared.serving(images) as prefix:
            async with self._loading:
                if self._loaded_lmms is None:
                    opening = super().open_lmms(self._shared, strategy, wrappers, load=True)
                    self._loaded_lmms = await self._opened.enter_async_context(opening)
            loaded, called = self._loaded_lmms, self._loaded_lmms.wrapped(lambda lmm: CallLMM(lmm, prefix))
            # An LMM that the caller made has images of its own, and knows them by their ids.
            made = {role for role in ROLES if (given := self.given(role)) is not None and not callable(given)}
            sides = {role: (loaded if role in made else called).get(role) for role in ROLES}
            yield LMMs(None, {role: lmm for role, lmm in sides.items() if lmm is not None})

    @asynccontextmanager
    async def open_scorer(self, images: ImageSource) -> AsyncIterator[CachedScorer]:
        self._require_open()
        async with self._loading:
            if self._loaded_scorer is None:
                self._loaded_scorer = await self._opened.enter_async_context(super().open_scorer(images))
        yield self._loaded_scorer.over(images)

    async def contexts(self, strategy: Strategy) -> Mapping[Role, int]:
        self._require_open()
        async with self._loading:
            if self._contexts is None:
                self._contexts = await super().contexts(strategy)
            return self._contexts

    async def aclose(self) -> None:
        """Let go of the models and the cache. Calls after this raise `ConfigError`."""
        self._closed = True
        self._loaded_encoder = self._loaded_lmms = self._loaded_scorer = None
        await self._opened.aclose()

    def _require_open(self) -> None:
        """Raise `ConfigError` where the models are closed."""
        if self._closed:
            raise ConfigError("this Reranker is closed; make a new one")
