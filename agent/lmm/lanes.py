"""Passes of a model side by side on a CPU, each on one thread of its own.

One pass on several threads splits every operation among them. The small operations between the matrix products (norms,
activations, rotary positions) are too short for that. `python -m checks.local_speed` measures it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


class Lanes:
    """As many as torch has threads for one operation, in the thread that asks; one on any other device."""

    def __init__(self, device: torch.device) -> None:
        self._on_cpu = device.type == "cpu"
        self._threads: ThreadPoolExecutor | None = None

    @property
    def number(self) -> int:
        """How many passes run side by side."""
        return torch.get_num_threads() if self._on_cpu else 1

    def map(self, run: Callable[[T], R], passes: Sequence[T]) -> list[R]:
        """What `run` makes of each pass, in order, in inference mode. Raises what it raises, once none is running."""
        lanes = self.number
        if lanes == 1 or len(passes) <= 1:
            return [run(one) for one in passes]
        self._threads = self._threads or ThreadPoolExecutor(lanes, "lane")
        running = [self._threads.submit(_alone, run, one) for one in passes]
        wait(running)
        torch.set_num_threads(lanes)  # OpenMP's number is each thread's own, but MKL's is the process's
        return [future.result() for future in running]


def _alone(run: Callable[[T], R], one: T) -> R:
    torch.set_num_threads(1)
    with torch.inference_mode():
        return run(one)
