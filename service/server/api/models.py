"""The models of the service, and what they can judge: the bundled ones know one small vocabulary and its images."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fieldscope.agent.roles import ROLES, joined, model_text
from fieldscope.core.errors import FieldscopeError
from fieldscope.core.private import shown_address, shown_model
from fieldscope.core.types import Query
from fieldscope.retrieval.encoder import query_text
from fieldscope.service.server.api.errors import ApiError
from fieldscope.service.server.api.vectors import ResidentImages
from fieldscope.service.wiring.bundled import FOREIGN, require_known_words, unknown_words
from fieldscope.service.wiring.instructions import UNREAD, is_unread
from fieldscope.service.wiring.roles import probe_servers
from fieldscope.service.wiring.scorers import uses_scorer

if TYPE_CHECKING:
    from fieldscope.agent.lmm.base import LMM
    from fieldscope.agent.roles import LMMs, Role
    from fieldscope.agent.scored import CachedScorer
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.agent.types import Predicate
    from fieldscope.retrieval.encoder import Encoder
    from fieldscope.service.wiring.settings import Settings

BUNDLED = "bundled"

_PROBE_SECONDS = 5.0
_PROBE_VALID = 5.0  # seconds, so that checks of readiness do not keep the model's server busy


@dataclass
class Models:
    """The LMM of each role, the CLIP and the scoring model (None without one) with their names.

    `lmm_named` says whether the settings name the LMMs, and `clip_bundled` whether the CLIP is the bundled one; `own`
    has the pixel hashes of the images that the bundled models know.
    """

    settings: Settings
    lmms: LMMs
    encoder: Encoder | None
    lmm_named: bool
    clip_name: str | None
    clip_bundled: bool
    scorer: CachedScorer | None = None
    own: frozenset[str] = frozenset()
    _probed: tuple[float, str] = field(default=(-_PROBE_VALID, ""), init=False)

    def name(self, strategy: Strategy) -> str:
        """The model that decides under a strategy: the LMM, or each with its roles where there are several, or if the
        strategy does not ask an LMM, the scoring model that it asks, or the CLIP."""
        if uses_scorer(strategy) and not strategy.prompts:
            return shown_model(self.settings.scorer or "none")
        if self.lmm_named:
            return model_text(joined(self.settings.names(strategy.roles()))) or self.clip_name or "none"
        return model_text(self.lmms.identity(strategy.roles())) or self.clip_name or "none"

    async def scorer_of(self, strategy: Strategy) -> CachedScorer | None:
        """What the strategy's stage `score` asks; None where it has none. Raises `ApiError` where the service has no
        scoring model, and `LMMError` where its server does not answer."""
        if not uses_scorer(strategy):
            return None
        if self.scorer is None:
            raise ApiError(
                409,
                "no_scorer",
                f"strategy {strategy.name!r} needs a scoring model. Start the service with --scorer, or choose another "
                "strategy",
            )
        await self.scorer.identify()
        return self.scorer

    def lmm(self, role: Role) -> LMM:
        """The LMM of a role; the service opens one for each."""
        lmm = self.lmms.get(role)
        assert lmm is not None
        return lmm

    def lmm_bundled(self, strategy: Strategy) -> bool:
        """Whether the bundled LMM has a role that the strategy asks."""
        return self.lmm_named and self.settings.bundled(strategy.roles())

    def prior_encoder(self, query: Query, strategy: Strategy, foreign: bool) -> Encoder | None:
        """The CLIP whose similarity is the prior of given documents; None if it can't judge them.

        Raises `VocabularyError` if a bundled model must read unknown words: the LMM always, the CLIP unless another LMM
        can rank without it, or there is a reference image beside the words.
        """
        if self.lmm_bundled(strategy):
            require_known_words(_words(query), "lmm")
        if self.encoder is None or not self.clip_bundled:
            return self.encoder
        decides = not strategy.prompts and not uses_scorer(strategy)
        if decides or self.lmm_bundled(strategy):
            if query.reference_image is None:
                require_known_words([query_text(query)], "clip")
            return self.encoder
        return None if foreign or unknown_words([query_text(query)], "clip") else self.encoder

    def require_search_words(self, query: Query, strategy: Strategy) -> None:
        """Raise `VocabularyError` for words of a search that are unknown to a bundled model which reads them. A change
        to a reference image may have words that are unknown to the CLIP, which searches by the image, too."""
        if self.lmm_bundled(strategy):
            require_known_words(_words(query), "lmm")
        if self.clip_bundled and query.reference_image is None:
            require_known_words([query_text(query)], "clip")

    def require_question_words(self, predicates: Iterable[Predicate], strategy: Strategy) -> None:
        """Raise `VocabularyError` for words of a request's own questions that a bundled LMM does not know."""
        if self.lmm_bundled(strategy):
            require_known_words([predicate.question for predicate in predicates], "lmm")

    def readable(self, texts: Mapping[str, str]) -> dict[str, str]:
        """Those of a call's texts that have only words which the CLIP knows."""
        return {
            document: text
            for document, text in texts.items()
            if not self.clip_bundled or not unknown_words([text], "clip")
        }

    def require_readable(self, texts: Iterable[str]) -> None:
        """Raise `VocabularyError` if these texts have words that are unknown to a bundled CLIP."""
        if self.encoder is not None and self.clip_bundled:
            require_known_words(texts, "clip")

    def foreign(self, images: ResidentImages, image_ids: Iterable[str]) -> bool:
        """Whether any of these images is unknown to the bundled models. Raises `ImageError`."""
        return any(images.pixel_hash(image_id) not in self.own for image_id in image_ids)

    def flags(self, strategy: Strategy, encoder: Encoder | None, foreign: bool) -> tuple[str, ...]:
        """The warnings of a ranking: a bundled model judged images that it does not know, or the encoder does not read
        the instruction."""
        used = self.lmm_bundled(strategy) or (encoder is not None and self.clip_bundled)
        unread = encoder is not None and is_unread(strategy, encoder)
        return (*((FOREIGN,) if foreign and used else ()), *((UNREAD,) if unread else ()))

    async def ready(self) -> str:
        """ "ok", or why an LMM can't be asked now. Servers are probed every few seconds at most."""
        if not (self.lmm_named and self._servers()) or self.settings.cache_mode == "replay":
            return "ok"
        at, state = self._probed
        if time.monotonic() - at >= _PROBE_VALID:
            self._probed = (time.monotonic(), state or "ok")  # concurrent checks get the last state
            state = await self._probe()
            self._probed = (time.monotonic(), state)
        return state

    async def _probe(self) -> str:
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                await probe_servers(self.settings, ROLES)
        except TimeoutError:
            addresses = " or ".join(dict.fromkeys(shown_address(url) for url in self._servers()))
            return f"{addresses} did not answer in {_PROBE_SECONDS:g} s. Check that the server runs"
        except FieldscopeError as error:
            return " ".join(str(error).split())
        return "ok"

    def _servers(self) -> list[str]:
        """The addresses of the servers that are asked."""
        return [chosen.lmm_url or "" for chosen in self.settings.by_model(ROLES) if chosen.asks_server]


def _words(query: Query) -> list[str]:
    return [query.text, *(text for turn in query.dialogue for text in (turn.question, turn.answer))]
