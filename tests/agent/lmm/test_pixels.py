"""What is sent is what was hashed."""

from pathlib import Path

import pytest
from PIL import Image

from fieldscope.agent.call import ask as ask_once
from fieldscope.agent.call import image_parts
from fieldscope.agent.lmm.base import LMMRequest, Message, TextPart
from fieldscope.agent.lmm.cached import CachedLMM
from fieldscope.agent.lmm.local import LocalLMM
from fieldscope.agent.lmm.openai import OpenAILMM
from fieldscope.cache.store import MemoryStore
from fieldscope.retrieval.collection import FolderCollection


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (16, 16), "red").save(tmp_path / "a.png")
    return tmp_path


async def about(images: FolderCollection) -> LMMRequest:
    parts = await image_parts(images, ["a.png"])
    return LMMRequest(messages=(Message(content=(*parts, TextPart(text="is it red ?"))),), max_tokens=2)


def forget(images: FolderCollection) -> None:
    """Many other pictures were looked at since, so that this one must be read again."""
    images._decoded.put("another", Image.new("RGB", (1, 1)), 10**9)


async def test_a_file_that_was_replaced_is_not_sent_to_a_server_for_the_old_one(folder: Path, server) -> None:
    images, store = FolderCollection(folder), MemoryStore()
    lmm = CachedLMM(OpenAILMM(server.url, "served", images), store)
    request = await about(images)
    Image.new("RGB", (16, 16), "blue").save(folder / "a.png")
    forget(images)
    answer = await ask_once(lmm, request)
    assert answer.state == "unknown" and "'a.png' was changed after it was first read" in (answer.error or "")
    assert server.requests == [] and store.stats().entries == 0
    Image.new("RGB", (16, 16), "red").save(folder / "a.png", compress_level=9)  # other bytes, the same pixels
    forget(images)
    assert (await ask_once(lmm, request)).state == "answered"
    await lmm.aclose()


async def test_a_file_that_was_replaced_is_not_shown_to_a_local_model_for_the_old_one(
    folder: Path, tiny_llava: Path
) -> None:
    images, store = FolderCollection(folder), MemoryStore()
    lmm = CachedLMM(LocalLMM.from_path(tiny_llava, images, dtype="float32"), store)
    request = await about(images)
    Image.new("RGB", (16, 16), "blue").save(folder / "a.png")
    forget(images)
    answer = await ask_once(lmm, request)
    assert answer.state == "unknown" and "was changed after it was first read" in (answer.error or "")
    assert store.stats().entries == 0
    await lmm.aclose()
