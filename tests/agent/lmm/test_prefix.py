"""Keys and values that are kept: joined as a batch, dropped when there are too many, and never mixed up."""

import asyncio

import pytest
import torch

from fieldscope.agent.lmm.local import LocalLMM
from fieldscope.agent.lmm.prefix import PrefixCache, States, join


def states(length: int, fill: float = 1.0) -> States:
    """Two layers of two heads, four wide: 2 x 2 x 2 x 4 floats a token."""
    return tuple((torch.full((1, 2, length, 4), fill), torch.full((1, 2, length, 4), -fill)) for _ in range(2))


def test_prefixes_of_unequal_length_are_padded_on_the_left() -> None:
    layers, mask = join([states(1, 5.0), states(3, 7.0)])
    assert mask.tolist() == [[0, 0, 1], [1, 1, 1]]
    for keys, values in layers:
        assert keys.shape == values.shape == (2, 2, 3, 4)
        assert keys[0, 0, :, 0].tolist() == [0.0, 0.0, 5.0] and values[1, 1, :, 3].tolist() == [-7.0] * 3


def test_the_prefix_that_was_used_longest_ago_goes_first() -> None:
    cache = PrefixCache(most_bytes=2 * 128)  # two prefixes of one token
    cache.put(1, states(1, 1.0))
    cache.put(2, states(1, 2.0))
    assert cache.get(1) is not None
    cache.put(3, states(1, 3.0))
    kept = {key: found[0][0][0, 0, 0, 0].item() for key in (1, 2, 3) if (found := cache.get(key))}
    assert kept == {1: 1.0, 3: 3.0}


@pytest.mark.parametrize("shown", [["p0"], ["p1", "p2"]])
async def test_an_answer_is_the_same_however_the_pictures_came_to_be_kept(tiny_llava, pictures, ask, shown) -> None:
    fresh = LocalLMM.from_path(tiny_llava, pictures, device="cpu", dtype="float32")
    first = await fresh.generate(ask("is a crab red ?", *shown, top_logprobs=20))
    await fresh.aclose()
    warm = LocalLMM.from_path(tiny_llava, pictures, device="cpu", dtype="float32")
    others = [ask("is it blue ?", *shown), ask("is it red ?", "p3"), ask("red ?", *reversed(shown))]
    await asyncio.gather(*(warm.generate(request) for request in others))
    later = await warm.generate(ask("is a crab red ?", *shown, top_logprobs=20))
    await warm.aclose()
    assert later.usage == first.usage
    for mine, theirs in zip(later.answer_logprobs, first.answer_logprobs, strict=True):
        assert mine.token == theirs.token and mine.logprob == pytest.approx(theirs.logprob, abs=1e-4)
