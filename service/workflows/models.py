"""The models that rank a query: loaded for one query, or kept loaded for many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fieldscope.core.errors import ConfigError
from fieldscope.service.wiring.models import load_encoder, load_scorer, open_lmm, probe_server
from fieldscope.service.wiring.queries import require_query_words
from fieldscope.service.wiring.settings import Settings
from fieldscope.service.workflows.shared_images import CallLMM, SharedImages

if TYPE_CHECKING:
    from fieldscope.agent.lmm.base import LMM
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.core.types import ImageSource, Query
    from fieldscope.retrieval.encoder import Encoder
    from fieldscope.retrieval.scorer import Scorer


@dataclass(frozen=True)
class Models:
    """The models that the settings name; an `lmm`, or a function that makes one, and an `encoder` replace them. A
    `scorer`, by name or `name:argument`, gives the prior in place of the encoder's similarity."""

    settings: Settings = field(default_factory=Settings)
    lmm: LMM | Callable[[ImageSource], LMM] | None = None
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

    def bundled_judge(self, strategy: Strategy) -> bool:
        """Whether a bundled model decides on the ranking: the LMM, where the strategy asks one, or else the CLIP."""
        return self.bundled_lmm if strategy.prompts else self.bundled_clip

    async def load_encoder(self) -> Encoder:
        """The CLIP. Raises `ConfigError` where it can't be loaded."""
        return await asyncio.to_thread(load_encoder, self.settings) if self.encoder is None else self.encoder

    async def load_scorer(self) -> Scorer:
        """What gives the prior. Raises `ConfigError` where it can't be loaded."""
        from fieldscope.retrieval.scorer import Similarity

        if self.scorer:
            return await asyncio.to_thread(load_scorer, self.scorer, self.settings)
        return Similarity(await self.load_encoder())

    @asynccontextmanager
    async def open_lmm(self, images: ImageSource) -> AsyncIterator[LMM]:
        """The LMM over these images and the response cache. Raises what `wiring.models.open_lmm` does."""
        async with open_lmm(self.settings, images, self.lmm(images) if callable(self.lmm) else self.lmm) as lmm:
            yield lmm

    async def context(self) -> int | None:
        """How many tokens the context of a server's model has; None where that is not known. Raises `LMMError` for a
        server that does not answer."""
        if self.lmm is not None or self.settings.cache_mode == "replay":
            return None
        return await probe_server(self.settings)

    async def require_context(self, strategy: Strategy, query: Query) -> None:
        """Raise, before any work, `LMMError` for a server that does not answer, and `ContextLengthError` for a query
        that does not fit into its model's context."""
        from fieldscope.eval.tuning.estimate import require_context

        if strategy.prompts:
            require_context([strategy], [query], await self.context())

    def require_words(self, strategy: Strategy, query: Query, *, searching: bool = False) -> None:
        """Raise `VocabularyError` for words that a bundled model would have to read and does not know. Without a
        search, another LMM ranks alone where the bundled CLIP does not know them. No model is loaded."""
        clip = self.bundled_clip and (searching or self.bundled_judge(strategy))
        require_query_words(query, lmm=bool(strategy.prompts) and self.bundled_lmm, clip=clip)

    def names(self, lmm: LMM | None, *, prior: bool) -> dict[str, str | None]:
        """The models that ranked, by name, for people: `clip` where there was a prior, `lmm` where one was asked."""
        names: dict[str, str | None] = {"clip": None, "lmm": None}
        if prior:
            named = self.scorer or self.settings.clip or "bundled"
            names["clip"] = named if self.encoder is None else self.encoder.fingerprint
        if lmm is not None:
            names["lmm"] = lmm.identity if self.lmm is not None else self.settings.model or "bundled"
        return names


class KeptModels(Models):
    """Models that the first call that needs them loads, and that stay loaded until `aclose`. Any number of calls may
    use them at once, on one event loop."""

    def __init__(
        self, settings: Settings, lmm: LMM | Callable[[ImageSource], LMM] | None = None, encoder: Encoder | None = None
    ) -> None:
        super().__init__(settings, lmm, encoder)
        self._shared = SharedImages()
        self._opened = AsyncExitStack()
        self._loading = asyncio.Lock()
        self._loaded_encoder: Encoder | None = None
        self._loaded_lmm: LMM | None = None
        self._context: tuple[int | None] | None = None  # None where the server was not asked yet
        self._closed = False

    async def load_encoder(self) -> Encoder:
        self._require_open()
        async with self._loading:
            if self._loaded_encoder is None:
                self._loaded_encoder = await super().load_encoder()
            return self._loaded_encoder

    @asynccontextmanager
    async def open_lmm(self, images: ImageSource) -> AsyncIterator[LMM]:
        """The LMM as one call sees it, over that call's images."""
        self._require_open()
        with self._shared.serving(images) as prefix:
            async with self._loading:
                if self._loaded_lmm is None:
                    self._loaded_lmm = await self._opened.enter_async_context(super().open_lmm(self._shared))
            # An LMM that the caller made has images of its own, and knows them by their ids.
            own = self.lmm is not None and not callable(self.lmm)
            yield self._loaded_lmm if own else CallLMM(self._loaded_lmm, prefix)

    async def context(self) -> int | None:
        self._require_open()
        async with self._loading:
            if self._context is None:
                self._context = (await super().context(),)
            return self._context[0]

    async def aclose(self) -> None:
        """Let go of the models and the cache. Calls after this raise `ConfigError`."""
        self._closed = True
        self._loaded_encoder = self._loaded_lmm = None
        await self._opened.aclose()

    def _require_open(self) -> None:
        """Raise `ConfigError` where the models are closed."""
        if self._closed:
            raise ConfigError("this Reranker is closed; make a new one")
