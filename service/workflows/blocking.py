"""The synchronous side of the Python API: the same calls, which wait for their results.

The work runs on an event loop in a thread of its own. So calls work inside a running event loop (a notebook), and
models stay loaded between them.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from fieldscope.core.errors import ConfigError
from fieldscope.service.wiring.settings import DEFAULT_STRATEGY
from fieldscope.service.workflows.caller_warnings import keeping_warnings, warn_caller
from fieldscope.service.workflows.promise import CONFIDENCE
from fieldscope.service.workflows.reranker import AsyncReranker

if TYPE_CHECKING:
    from fieldscope.agent.budget import Budget
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.core.types import Query
    from fieldscope.service.metadata.filter import Given
    from fieldscope.service.workflows.given_images import Images
    from fieldscope.service.workflows.ranking import Ranking
    from fieldscope.service.workflows.reports import Evaluation

P = ParamSpec("P")
T = TypeVar("T")


class LoopThread:
    """An event loop in a thread, started by the first call. Safe to use from several threads.

    It is asyncio's own: anyio's portal cancels a task again and again until it ends, which LangGraph, waiting for its
    stages to end, does not survive.
    """

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for `work`. Ctrl-C, or whatever else interrupts the caller, cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._started())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """End the loop, and cancel what still runs on it."""
        with self._starting:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_serve, args=(self._loop,), name="fieldscope", daemon=True).start()
            return self._loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    with asyncio.Runner(loop_factory=lambda: loop) as runner:  # which cancels what is left when it closes
        runner.get_loop().run_forever()


def with_arguments_of(
    original: Callable[Concatenate[Any, P], None],
) -> Callable[[Callable[..., None]], Callable[Concatenate[Any, P], None]]:
    """Decorate a method that hands its arguments on to `original`: type checkers, editors and `help` show those of
    `original`."""

    def decorate(method: Callable[..., None]) -> Callable[Concatenate[Any, P], None]:
        return functools.update_wrapper(method, original, assigned=(), updated=())

    return decorate


class Reranker:
    """Ranks images by how well they match a query. `AsyncReranker` is its asynchronous twin, and says what the options
    mean.

    Models are loaded by the first call that needs them, and stay loaded until `close` or the end of `with`.
    """

    @with_arguments_of(AsyncReranker.__init__)
    def __init__(self, *args: Any, **options: Any) -> None:
        self._reranker = AsyncReranker(*args, **options)
        self._thread = LoopThread()
        self._closed = False

    @property
    def strategy(self) -> Strategy:
        """How it ranks."""
        return self._reranker.strategy

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the models and the cache. Calls after this raise `ConfigError`."""
        if not self._closed:
            self._closed = True
            try:
                self._thread.run(self._reranker.aclose())
            finally:
                self._thread.close()

    def rerank(
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
        """As `AsyncReranker.rerank`."""
        return self._run(
            lambda: self._reranker.rerank(
                query,
                images,
                index=index,
                budget=budget,
                precision=precision,
                confidence=confidence,
                metadata=metadata,
                filter=filter,
            )
        )

    def search(
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
        """As `AsyncReranker.search`."""
        return self._run(
            lambda: self._reranker.search(
                index,
                query,
                top_k=top_k,
                budget=budget,
                precision=precision,
                confidence=confidence,
                metadata=metadata,
                filter=filter,
            )
        )

    def evaluate(
        self,
        benchmark: str | Path,
        strategies: Sequence[str | Path] = (),
        *,
        split: str | None = None,
        limit: int | None = None,
        out: str | Path | None = None,
        choices: Mapping[str, str] | None = None,
    ) -> Evaluation:
        """As `AsyncReranker.evaluate`."""
        return self._run(
            lambda: self._reranker.evaluate(benchmark, strategies, split=split, limit=limit, out=out, choices=choices)
        )

    def _run(self, work: Callable[[], Awaitable[T]]) -> T:
        if self._closed:
            raise ConfigError("this Reranker is closed; make a new one")

        async def kept() -> tuple[T, list[str]]:
            with keeping_warnings() as warnings:
                return await work(), warnings

        result, warnings = self._thread.run(kept())
        warn_caller(warnings)
        return result


def rerank(
    query: str | Query,
    images: Images,
    strategy: str | Path | Strategy = DEFAULT_STRATEGY,
    *,
    index: str | Path | None = None,
    precision: float | None = None,
    confidence: float = CONFIDENCE,
    metadata: str | Path | None = None,
    filter: Given | None = None,
    **options: Any,
) -> Ranking:
    """Rank images for one query; `options` are those of `Reranker`. For several queries keep a `Reranker`, which loads
    its models once. Raises what `AsyncReranker.rerank` raises."""
    with Reranker(strategy, **options) as reranker:
        return reranker.rerank(
            query,
            images,
            index=index,
            precision=precision,
            confidence=confidence,
            metadata=metadata,
            filter=filter,
        )


def search(
    index: str | Path,
    query: str | Query,
    strategy: str | Path | Strategy = DEFAULT_STRATEGY,
    *,
    top_k: int | None = None,
    precision: float | None = None,
    confidence: float = CONFIDENCE,
    metadata: str | Path | None = None,
    filter: Given | None = None,
    **options: Any,
) -> Ranking:
    """Find images in a folder that `fieldscope index` made, and rank them; `options` are those of `Reranker`. Raises
    what `AsyncReranker.search` raises."""
    with Reranker(strategy, **options) as reranker:
        return reranker.search(
            index,
            query,
            top_k=top_k,
            precision=precision,
            confidence=confidence,
            metadata=metadata,
            filter=filter,
        )


def evaluate(
    benchmark: str | Path,
    strategies: Sequence[str | Path] = (DEFAULT_STRATEGY,),
    *,
    split: str | None = None,
    limit: int | None = None,
    out: str | Path | None = None,
    choices: Mapping[str, str] | None = None,
    **options: Any,
) -> Evaluation:
    """Rank a benchmark's queries with each strategy, and score them; `options` are those of `Reranker`. Raises what
    `AsyncReranker.evaluate` raises."""
    with Reranker(**options) as reranker:
        return reranker.evaluate(benchmark, strategies, split=split, limit=limit, out=out, choices=choices)
