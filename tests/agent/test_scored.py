"""The memory of scores: what is kept, under which key, and what is asked again."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldscope.agent.score_entries import read_score
from fieldscope.agent.scored import CachedScorer
from fieldscope.cache.sqlite import SqliteStore
from fieldscope.cache.store import Entry, MemoryStore
from fieldscope.core.errors import CacheError, CacheMissError, LMMConnectionError
from fieldscope.core.fingerprint import fingerprint_pixels
from fieldscope.retrieval.encoder import QueryInputs
from fieldscope.retrieval.scorer import PairScore
from fieldscope.retrieval.scripted_scorer import Score, ScriptedScorer
from tests.agent.lmm.conftest import Pictures

QUERY = QueryInputs("a red crab")


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8))


@pytest.fixture
def pictures() -> Pictures:
    return Pictures(**{f"p{n}": noise(n) for n in range(40)})


def by_hash(pictures: Pictures, **scores: float | None) -> Score:
    """Scores by the names of the pictures; 0.5 for all others."""
    named = {pictures.pixel_hash(name): score for name, score in scores.items()}
    return lambda inputs, document: named.get(document, 0.5)


async def scores(scorer: CachedScorer, *ids: str, inputs: QueryInputs = QUERY) -> list[float | None]:
    judged = await scorer.scores(inputs, ids)
    assert list(judged) == list(ids)
    return list(judged.values())


async def test_a_score_is_asked_for_once(pictures: Pictures, tmp_path: Path) -> None:
    scorer = ScriptedScorer(by_hash(pictures, p0=0.0, p1=1.5), tokens=7)
    store = SqliteStore(tmp_path / "cache.sqlite")
    first = CachedScorer(scorer, store, pictures)
    assert await scores(first, "p0", "p1") == [0.0, 1.5]
    assert (first.pairs, first.tokens, first.hits, first.requests) == (2, 14, 0, 2)
    again = CachedScorer(scorer, store, pictures)
    judged = await again.judge(QUERY, ["p1", "p0"])
    assert [pair.value for pair in judged.values()] == [1.5, 0.0]
    assert all(pair.cached and pair.tokens == 7 and len(pair.key) == 64 for pair in judged.values())
    assert (again.pairs, again.tokens, again.hits) == (0, 0, 2)
    assert len(scorer.asked) == 2
    await again.aclose()
    store.close()


@pytest.mark.parametrize(
    "other",
    [
        QueryInputs("a red crab!"),
        QueryInputs("a red crab", instruction="find it"),
        QueryInputs("a red crab", image=noise(1)),
        QueryInputs("", image=noise(1)),
    ],
)
async def test_every_part_of_a_query_belongs_to_the_key(pictures: Pictures, other: QueryInputs) -> None:
    scorer = ScriptedScorer(by_hash(pictures))
    cached = CachedScorer(scorer, MemoryStore(), pictures)
    await scores(cached, "p0")
    await scores(cached, "p0", inputs=other)
    assert len(scorer.asked) == 2
    await scores(cached, "p0", inputs=other)
    assert len(scorer.asked) == 2


async def test_the_scorer_and_the_pixels_belong_to_the_key(pictures: Pictures) -> None:
    store = MemoryStore()
    for name in ("one", "two"):
        scorer = ScriptedScorer(by_hash(pictures), name)
        await scores(CachedScorer(scorer, store, pictures), "p0")
        assert len(scorer.asked) == 1
    changed = ScriptedScorer(by_hash(pictures), "two")
    await scores(CachedScorer(changed, store, Pictures(p0=noise(99))), "p0")
    assert len(changed.asked) == 1
    copied = ScriptedScorer(by_hash(pictures), "two")
    await scores(CachedScorer(copied, store, Pictures(another_name=noise(99))), "another_name")
    assert not copied.asked


async def test_a_text_is_not_a_picture(pictures: Pictures) -> None:
    scorer = ScriptedScorer(by_hash(pictures))
    cached = CachedScorer(scorer, MemoryStore(), pictures)
    await scores(cached, "p0")
    sha = pictures.pixel_hash("p0")
    judged = await cached.judge_texts(QUERY, {"d0": sha})
    assert list(judged) == ["d0"] and not judged["d0"].cached
    assert (await cached.judge_texts(QUERY, {"d1": sha}))["d1"].cached


@pytest.mark.parametrize("nothing", [None, math.nan, math.inf, -math.inf])
async def test_no_score_is_never_kept_and_never_0(pictures: Pictures, nothing: float | None) -> None:
    store = MemoryStore()
    judged = await CachedScorer(ScriptedScorer(by_hash(pictures, p0=nothing)), store, pictures).judge(
        QUERY, ["p0", "p1"]
    )
    assert judged["p0"].value is None and judged["p0"].error
    assert store.stats().entries == 1
    scorer = ScriptedScorer(by_hash(pictures, p0=2.0))
    assert await scores(CachedScorer(scorer, store, pictures), "p0", "p1") == [2.0, 0.5]
    assert len(scorer.asked) == 1


async def test_a_picture_that_cannot_be_read_has_no_score(pictures: Pictures) -> None:
    class Torn(Pictures):
        def load(self, image_id: str) -> Image.Image:
            return noise(77) if image_id == "p1" else super().load(image_id)  # changed since it was hashed

    torn = Torn(**pictures.pictures)
    scorer = ScriptedScorer(by_hash(pictures))
    judged = await CachedScorer(scorer, MemoryStore(), torn).judge(QUERY, ["p0", "p1", "missing"])
    assert [pair.value for pair in judged.values()] == [0.5, None, None]
    assert "changed" in (judged["p1"].error or "") and "broken" in (judged["missing"].error or "")
    assert [document for _, document in scorer.asked] == [pictures.pixel_hash("p0")]


async def test_a_server_that_fails_is_not_asked_about_the_rest(pictures: Pictures) -> None:
    scorer = ScriptedScorer(lambda inputs, document: LMMConnectionError("nobody is there"))
    cached = CachedScorer(scorer, MemoryStore(), pictures)
    judged = await cached.judge(QUERY, sorted(pictures.pictures))
    assert len(judged) == 40
    assert {(pair.value, pair.error) for pair in judged.values()} == {(None, "nobody is there")}
    assert len(scorer.asked) == 1


async def test_what_is_in_flight_is_asked_once(pictures: Pictures) -> None:
    scorer = ScriptedScorer(by_hash(pictures))
    cached = CachedScorer(scorer, MemoryStore(), pictures)
    both = await asyncio.gather(scores(cached, "p0", "p1"), scores(cached, "p1", "p0"))
    assert both == [[0.5, 0.5], [0.5, 0.5]]
    assert len(scorer.asked) == 2


async def test_a_caller_that_gives_up_leaves_the_scores_to_the_next(pictures: Pictures) -> None:
    scorer = ScriptedScorer(by_hash(pictures))
    cached = CachedScorer(scorer, MemoryStore(), pictures)
    asking = asyncio.create_task(scores(cached, "p0"))
    while not cached.in_flight:
        await asyncio.sleep(0)
    asking.cancel()
    assert await scores(cached, "p0") == [0.5]
    assert len(scorer.asked) == 1


async def test_the_modes_of_the_cache(pictures: Pictures) -> None:
    store = MemoryStore()

    def cached(value: float, mode: str) -> tuple[ScriptedScorer, CachedScorer]:
        scorer = ScriptedScorer(lambda inputs, document: value)
        return scorer, CachedScorer(scorer, store, pictures, mode)  # type: ignore[arg-type]

    assert await scores(cached(1.0, "off")[1], "p0") == [1.0]
    assert store.stats().entries == 0
    assert await scores(cached(2.0, "on")[1], "p0") == [2.0]
    assert await scores(cached(3.0, "on")[1], "p0") == [2.0]
    assert await scores(cached(4.0, "off")[1], "p0") == [4.0]
    assert await scores(cached(5.0, "refresh")[1], "p0") == [5.0]
    scorer, replay = cached(6.0, "replay")
    assert await scores(replay, "p0") == [5.0]
    with pytest.raises(CacheMissError, match=r"p1.*a red crab"):
        await scores(replay, "p0", "p1")
    assert not scorer.asked


async def test_an_entry_that_was_altered_is_asked_for_again_but_not_in_a_replay(pictures: Pictures) -> None:
    store = MemoryStore()
    judged = await CachedScorer(ScriptedScorer(by_hash(pictures)), store, pictures).judge(QUERY, ["p0"])
    entry = store.get(judged["p0"].key)
    assert entry is not None and read_score(entry) == PairScore(0.5)
    store.put(Entry(entry.key, entry.request, '{"score":9.0,"tokens":0}', entry.provenance), replace=True)
    with pytest.raises(CacheError, match="altered"):
        await scores(CachedScorer(ScriptedScorer(by_hash(pictures)), store, pictures, "replay"), "p0")
    assert await scores(CachedScorer(ScriptedScorer(by_hash(pictures)), store, pictures), "p0") == [0.5]
    assert store.get(entry.key) is not None
    assert await scores(CachedScorer(ScriptedScorer(by_hash(pictures)), store, pictures, "replay"), "p0") == [0.5]


@pytest.mark.parametrize("response", ["{}", "[]", '{"score":null}', '{"score":"0.5"}', '{"score":true}'])
def test_a_score_that_is_none_cannot_be_read(response: str) -> None:
    with pytest.raises(CacheError, match="can't be read"):
        read_score(Entry("k" * 64, "{}", response, json.dumps({"model": "m"})))


async def test_a_numpy_score_is_a_score(pictures: Pictures) -> None:
    scorer = ScriptedScorer(lambda inputs, document: np.float32(0.25))  # type: ignore[arg-type, return-value]
    store = MemoryStore()
    assert await scores(CachedScorer(scorer, store, pictures), "p0") == [0.25]
    assert store.stats().by_model == {"scorer:scripted": 1}
    assert fingerprint_pixels(noise(0)) == pictures.pixel_hash("p0")
