"""Passes side by side: in order, each on one thread, and none left at work when one has failed."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from fieldscope.agent.lmm.lanes import Lanes

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_passes_run_side_by_side_each_on_a_thread_of_its_own() -> None:
    together = threading.Barrier(2, timeout=60)

    def run(number: int) -> tuple[int, int, bool]:
        if number < 2:
            together.wait()
        return number, torch.get_num_threads(), torch.is_inference_mode_enabled()

    assert Lanes(CPU).map(run, range(5)) == [(number, 1, True) for number in range(5)]
    assert torch.get_num_threads() == 2


def test_one_pass_has_all_threads() -> None:
    assert Lanes(CPU).map(lambda number: torch.get_num_threads(), [0]) == [2]


@pytest.mark.parametrize("device", ["meta", "cuda"])
def test_elsewhere_there_is_one_lane(device: str) -> None:
    here = threading.get_ident()
    lanes = Lanes(torch.device(device))
    assert lanes.number == 1 and set(lanes.map(lambda number: threading.get_ident(), range(3))) == {here}


def test_a_failing_pass_is_raised_once_the_others_have_ended() -> None:
    ended = []

    def run(number: int) -> None:
        if number == 0:
            raise ValueError("broken")
        ended.append(number)

    with pytest.raises(ValueError, match="broken"):
        Lanes(CPU).map(run, range(4))
    assert sorted(ended) == [1, 2, 3] and torch.get_num_threads() == 2
