"""A Ray cluster: blocks of images worked on by its workers, and objects that live in one of them.

The only file that imports Ray. What runs on a worker is an object that is made there by `make(*arguments)`; both travel
to the worker, and so do this process's FIELDSCOPE_ variables. A worker that dies is started again, and only what it was
doing is done again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import uuid4

from fieldscope.core import errors
from fieldscope.core.errors import ConfigError, FieldscopeError, one_line
from fieldscope.retrieval.encoding import BATCH

BLOCK = 512
"""The most images that a worker gets at once, and that are done again where it dies."""

_TURNS = 4  # blocks for each worker, where there are enough images, so that all workers end at about the same time

_KEYS = ("OPENAI_API_KEY",)
_AT_ONCE = 1000  # calls of an object that run at the same time
_FOREVER = {"max_restarts": -1, "max_task_retries": -1}

Block = Sequence[str]


class Done(NamedTuple):
    """What a worker made of an image: its `data`, or None and why there is none. Where an error ended the work on a
    block, `raised` is its name, and `why` its words: Ray keeps no more of it than that it was an error."""

    image_id: str
    data: bytes | None
    why: str = ""
    raised: str = ""


BlockWork = Callable[[Block], Iterable[Done]]


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process is connected to."""

    gpus: int
    cpus: int

    @property
    def workers(self) -> int:
        """How many work at once: one for each GPU or, where there are none, for each processor core that Ray has."""
        return max(self.gpus or self.cpus, 1)

    def each_block(
        self, image_ids: Sequence[str], make: Callable[..., BlockWork], *arguments: object
    ) -> Iterator[list[Done]]:
        """What the workers make of images, block by block as they are finished; a block is some batches of
        `fieldscope.retrieval.encoding`. Raises what the work raises."""
        import pyarrow
        from ray.data import ActorPoolStrategy, from_arrow

        if not image_ids:
            return
        batches = len(image_ids) // (BATCH * self.workers * _TURNS)
        size = min(max(batches, 1) * BATCH, BLOCK)
        blocks = [
            pyarrow.table({"image_id": list(image_ids[first : first + size])})
            for first in range(0, len(image_ids), size)
        ]
        made = from_arrow(blocks).map_batches(
            _Blocks,
            fn_constructor_args=(make, arguments, _environment()),
            batch_size=None,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=min(self.workers, len(blocks))),
            **self._needs,
        )
        with _errors_of_workers():
            for table in made.iter_batches(batch_size=None, batch_format="pyarrow"):
                done = [Done(**row) for row in table.to_pylist()]
                for one in done:
                    if one.raised:
                        raise getattr(errors, one.raised)(one.why)
                yield done

    def host(self, make: Callable[..., object], *arguments: object) -> Hosted:
        """An object that lives on a worker."""
        import ray

        host = ray.remote(_Host).options(max_concurrency=_AT_ONCE, **self._needs, **_FOREVER)
        return Hosted(host.remote(make, arguments, _environment()))

    @contextmanager
    def sharing(self, make: Callable[..., object], *arguments: object) -> Iterator[str]:
        """The name under which workers find (`shared`) an object that lives on this machine, in its own process."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        name = uuid4().hex
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        host = ray.remote(_Host).options(
            name=name, num_cpus=0, max_concurrency=_AT_ONCE, scheduling_strategy=here, **_FOREVER
        )
        actor = host.remote(make, arguments, _environment())  # lives as long as this handle
        try:
            yield name
        finally:
            ray.kill(actor)

    @property
    def _needs(self) -> dict[str, int]:
        """What a worker takes of its machine."""
        return {"num_gpus": 1} if self.gpus else {"num_cpus": 1}


@dataclass(frozen=True)
class Hosted:
    """An object that lives on a worker."""

    actor: Any

    async def call(self, method: str, *arguments: object) -> Any:
        """What its asynchronous method returns. Raises what that raises."""
        with _errors_of_workers():
            return await self.actor.call.remote(method, arguments)


def shared(name: str) -> Hosted:
    """On a worker: what was shared under this name. Raises `ConfigError` anywhere else."""
    try:
        import ray

        return Hosted(ray.get_actor(name))
    except (ImportError, ValueError, RuntimeError) as error:
        raise ConfigError("`ray` is a store for workers of a Ray cluster; name a file instead") from error


@contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """The cluster at an address (`HOST:PORT`, or `ray://HOST:PORT`) or, where that is empty, the one that runs on this
    machine, else one that is started here. Raises `ConfigError` where Ray is not installed, or the cluster is not
    there."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # or Ray tells its makers how it is used
    try:
        import ray
        from ray.data import DataContext
    except ImportError as error:
        raise ConfigError("Ray is not installed; install it with `pip install 'fieldscope[ray]'`") from error
    joined = ray.is_initialized()
    with redirect_stdout(sys.stderr):  # Ray writes that a worker died where a command's result belongs
        if not joined:
            try:
                ray.init(
                    address=address or None,
                    namespace=f"fieldscope-{os.getpid()}",
                    log_to_driver=False,
                    logging_level="ERROR",
                )
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise ConfigError(
                    f"there is no Ray cluster at {address or 'this machine'} ({one_line(error)}); start one with "
                    "`ray start --head`, and check the address"
                ) from error
        try:
            context = DataContext.get_current()
            context.enable_progress_bars = context.print_on_execution_start = False
            resources = ray.cluster_resources()
            yield Cluster(int(resources.get("GPU", 0)), int(resources.get("CPU", 1)))
        finally:
            if not joined:
                ray.shutdown()


class _Blocks:
    """Work on blocks in a worker's process."""

    def __init__(self, make: Callable[..., BlockWork], arguments: tuple[object, ...], environment: dict[str, str]):
        self._made = make, arguments, environment
        self._work: BlockWork | None = None

    def __call__(self, block: Any) -> Any:
        import pyarrow

        try:
            done = list(self._worked(block["image_id"].to_pylist()))
        except FieldscopeError as error:
            done = [Done("", None, str(error), type(error).__name__)]
        text = pyarrow.string()
        kinds = [("image_id", text), ("data", pyarrow.large_binary()), ("why", text), ("raised", text)]
        return pyarrow.Table.from_pylist([one._asdict() for one in done], pyarrow.schema(kinds))

    def _worked(self, block: Block) -> Iterable[Done]:
        if self._work is None:  # here, since what a constructor raises starts the worker again
            make, arguments, environment = self._made
            os.environ.update(environment)
            self._work = make(*arguments)
        return self._work(block)


class _Host:
    """An object with asynchronous methods, in a worker's process."""

    def __init__(self, make: Callable[..., object], arguments: tuple[object, ...], environment: dict[str, str]):
        os.environ.update(environment)
        self._object = make(*arguments)

    async def call(self, method: str, arguments: tuple[object, ...]) -> Any:
        return await getattr(self._object, method)(*arguments)


def _environment() -> dict[str, str]:
    """The variables that a worker takes over."""
    return {name: value for name, value in os.environ.items() if name.startswith("FIELDSCOPE_") or name in _KEYS}


@contextmanager
def _errors_of_workers() -> Iterator[None]:
    """Raise what was raised on a worker, and what Ray itself says as a `ConfigError`."""
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        cause: BaseException | None = error
        while cause is not None:
            own = getattr(cause, "cause", None)
            if isinstance(own, FieldscopeError) and type(own).__module__ == FieldscopeError.__module__:
                raise own from error
            cause = own if isinstance(own, BaseException) else cause.__cause__
        raise ConfigError(
            f"work on the Ray cluster failed ({one_line(str(error).strip().splitlines()[-1])}); see Ray's logs on that "
            "machine, and rerun this command: what was finished is kept"
        ) from error
