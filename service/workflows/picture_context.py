"""Whether as many pictures as a strategy shows at once fit into a model's context.

A server is asked before the first call that reaches it, so that work whose answers are all remembered asks nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from fieldscope.core.errors import ContextLengthError, ImageError, LMMError
from fieldscope.service.wiring.prompt_tokens import QUESTION, prompt_tokens

if TYPE_CHECKING:
    from PIL import Image as PILImage

    from fieldscope.agent.lmm.base import LMM, LMMRequest, LMMResponse
    from fieldscope.agent.roles import Role
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.core.types import ImageSource, Query
    from fieldscope.service.wiring.settings import Settings

MOST_TOKENS = 5_000
"""More than any model is known to read of a picture (`fieldscope.eval.tuning.picture_tokens`): so many fit surely."""

_TRIED = 5  # pictures, of which the middle one by its size is shown


class CheckedLMM:
    """An LMM that is asked once a check has passed; what the check raises, every call raises."""

    def __init__(self, lmm: LMM, check: Callable[[], Awaitable[None]]) -> None:
        self._lmm = lmm
        self._check = check

    @property
    def identity(self) -> str:
        return self._lmm.identity

    async def generate(self, request: LMMRequest) -> LMMResponse:
        await self._check()
        return await self._lmm.generate(request)

    async def aclose(self) -> None:
        await self._lmm.aclose()


def checked_first(check: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[LMM], LMM]:
    """A wrapper for LMMs, whose first call makes the check, once for all that are wrapped."""
    made: list[asyncio.Task[None]] = []

    async def once() -> None:
        if not made:
            made.append(asyncio.create_task(check()))
        await asyncio.shield(made[0])  # others wait for it, too

    return lambda lmm: CheckedLMM(lmm, once)


async def require_pictures_fit(
    settings: Settings,
    strategies: Iterable[Strategy],
    queries: Sequence[Query],
    contexts: Mapping[Role, int],
    images: ImageSource,
    ids: Iterable[str],
) -> None:
    """Raise `ContextLengthError` where the most pictures that a stage shows at once don't fit into its model's context.

    Where that is not certain by the known `contexts`, the server is asked a short question about so many copies of one
    of the images, and counts the tokens: one call for each model. A server that does not answer that, or does not
    count, is left to the run.
    """
    from fieldscope.eval.tuning.estimate import largest_requests

    needs = [need for need in largest_requests(strategies, queries) if need.images and need.role in contexts]
    for chosen, roles in settings.by_model(contexts).items():
        context = min(contexts[role] for role in roles)
        doubtful = [
            need
            for need in needs
            if need.role in roles and need.words + MOST_TOKENS * need.images + need.answer > context
        ]
        picture = await asyncio.to_thread(middle_picture, images, ids) if doubtful else None
        if picture is None:
            continue
        largest = max(doubtful, key=lambda need: need.images)
        try:
            read = await prompt_tokens(chosen, [picture] * largest.images)
        except ContextLengthError as error:
            raise ContextLengthError(
                f"the stage {largest.stage!r} of {largest.strategy} shows {largest.images} images at once, and "
                f"{chosen.model} can't read so many. Serve it with a larger context, or show fewer at once; it says: "
                f"{error}"
            ) from error
        except LMMError:
            continue
        each = (read - len(QUESTION.split())) / largest.images
        for need in doubtful:
            need.require(context, each)


def middle_picture(images: ImageSource, ids: Iterable[str]) -> PILImage.Image | None:
    """The middle one by its size of the first images that can be read; None where none can."""
    pictures = []
    for image_id in islice(ids, _TRIED):
        try:
            pictures.append(images.load(image_id))
        except ImageError:
            continue
    pictures.sort(key=lambda picture: picture.width * picture.height)
    return pictures[len(pictures) // 2] if pictures else None
