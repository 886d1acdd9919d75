"""From settings to models and stores, and what `bundled` means."""

from __future__ import annotations

import json
import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image as PILImage

import fieldscope.fieldnotes.collection
import fieldscope.fieldnotes.vocabulary
import fieldscope.service.wiring.feedback
import fieldscope.service.wiring.models
from fieldscope.agent.lmm.base import ImagePart, LMMRequest, Message, TextPart
from fieldscope.cache.sqlite import SqliteStore
from fieldscope.core.errors import ConfigError, LMMConnectionError, LMMRequestError, VocabularyError
from fieldscope.retrieval.collection import FilesCollection, FolderCollection
from fieldscope.service.wiring.bundled import bundled_folder, require_known_words
from fieldscope.service.wiring.models import load_encoder, open_lmm
from fieldscope.service.wiring.own_pictures import all_fieldnotes
from fieldscope.service.wiring.roles import open_lmms, require_servers
from fieldscope.service.wiring.settings import CACHE_MODES, Settings
from tests.service.conftest import FOX, Server, World


def request_about(images: FolderCollection, image_id: str) -> LMMRequest:
    parts = (ImagePart(image_id=image_id, sha256=images.pixel_hash(image_id)), TextPart(text="is it red?"))
    return LMMRequest(messages=(Message(content=parts),), top_logprobs=20)


def test_the_key_is_not_shown() -> None:
    assert "secret" not in repr(Settings(api_key="secret"))


async def test_a_server_behind_the_cache(server: Server, photos: Path, tmp_path: Path) -> None:
    images = FolderCollection(photos)
    settings = Settings(
        lmm_url=server.url, model="vl", revision="r1", api_key="secret", cache_file=tmp_path / "c.sqlite", max_side=16
    )
    for asked in (1, 1):
        async with open_lmm(settings, images) as lmm:
            assert lmm.identity == "openai:vl@r1#jpeg95<=16#root=org/vl"
            response = await lmm.generate(request_about(images, "red.png"))
        assert response.text == "Yes"
        assert len(server.bodies) == asked
    assert server.headers[0]["authorization"] == "Bearer secret"
    assert (tmp_path / "c.sqlite").exists()


async def test_a_server_that_is_away_is_identified_with_the_first_call(
    server: Server, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fieldscope.service.wiring.models, "_PATIENCE", 0.05)
    images, models = FolderCollection(photos), server.models
    settings = Settings(lmm_url=server.url, model="vl", cache_file=tmp_path / "c.sqlite")
    server.models = (200, json.dumps({"data": [{"id": "other"}]}))
    with pytest.raises(LMMRequestError, match="serves other, not vl"):
        async with open_lmm(settings, images):
            pass
    async with open_lmms(settings, images, ["verifier"], may_be_away=True) as lmms:
        lmm = lmms.get("verifier")
        assert lmm is not None
        assert lmm.identity == "openai:vl#jpeg95<=1024"
        with pytest.raises(LMMRequestError, match="serves other, not vl"):
            await lmm.generate(request_about(images, "red.png"))
        assert server.bodies == []
        server.models = models
        await lmm.generate(request_about(images, "red.png"))
        assert lmm.identity == "openai:vl#jpeg95<=1024#root=org/vl"
    with closing(SqliteStore(tmp_path / "c.sqlite")) as store:
        assert store.stats().by_model == {"openai:vl#jpeg95<=1024#root=org/vl": 1}


async def test_a_replay_knows_which_server_it_replays(server: Server, photos: Path, tmp_path: Path) -> None:
    images = FolderCollection(photos)
    settings = Settings(lmm_url=server.url, model="vl", cache_file=tmp_path / "c.sqlite")
    for root in ("one", "two"):
        server.models = (200, json.dumps({"data": [{"id": "vl", "root": root}]}))
        async with open_lmm(settings, images) as lmm:
            await lmm.generate(request_about(images, "red.png"))
        replay = open_lmm(replace(settings, lmm_url="http://127.0.0.1:9", cache_mode="replay"), images)
        if root == "one":
            async with replay as lmm:
                assert (await lmm.generate(request_about(images, "red.png"))).cached
        else:
            with pytest.raises(ConfigError, match=r"answers of 2 servers for vl .*root=one; .*root=two.*--replay RUN"):
                async with replay:
                    pass


async def test_with_the_cache_off_nothing_is_kept(server: Server, photos: Path, tmp_path: Path) -> None:
    images = FolderCollection(photos)
    settings = Settings(lmm_url=server.url, model="vl", cache_mode="off", cache_file=tmp_path / "c.sqlite")
    async with open_lmm(settings, images) as lmm:
        await lmm.generate(request_about(images, "red.png"))
        await lmm.generate(request_about(images, "red.png"))
    assert len(server.bodies) == 2
    assert not (tmp_path / "c.sqlite").exists()


def test_the_modes_are_those_of_the_cache() -> None:
    from typing import get_args

    from fieldscope.agent.lmm.cached import CacheMode

    assert get_args(CacheMode) == CACHE_MODES


def test_a_server_is_asked_for_once_and_never_in_replay(nobody: str) -> None:
    require_servers(Settings(), ["verifier"])
    require_servers(Settings(lmm_url=nobody, model="vl", cache_mode="replay"), ["verifier"])
    with pytest.raises(LMMConnectionError, match="can't reach"):
        require_servers(Settings(lmm_url=nobody, model="vl"), ["verifier"])


def test_an_installation_without_the_models_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fieldscope.fieldnotes.vocabulary, "MODELS", tmp_path)
    for kind, option in (("clip", "--encoder"), ("lmm", "--lmm")):
        with pytest.raises(ConfigError, match=option):
            bundled_folder(kind)  # type: ignore[arg-type]


@pytest.mark.usefixtures("world")
def test_words_are_checked_per_model() -> None:
    require_known_words([FOX, "A purple fox, sleeping."], "clip")
    with pytest.raises(VocabularyError, match=r"LMM has never seen this word: 'purple'"):
        require_known_words([FOX, "A purple fox, sleeping."], "clip", "lmm")
    with pytest.raises(VocabularyError, match=r"these words: 'b0', .* and 3 more"):
        require_known_words([f"b{n}" for n in range(15)], "clip")


def test_the_bundled_clip_is_the_default() -> None:
    name = str(bundled_folder("clip"))
    assert load_encoder(Settings()).fingerprint == load_encoder(Settings(encoder=name)).fingerprint


def test_own_pictures_are_told_by_their_pixels(world: World, photos: Path, tmp_path: Path) -> None:
    with PILImage.open(world.pictures / "000001.png") as image:
        image.save(tmp_path / "copy.bmp")  # other bytes, same pixels
    files = {
        "own": world.pictures / "000002.png",
        "copy": tmp_path / "copy.bmp",
        "red": photos / "red.png",
        "broken": photos / "broken.png",
    }
    images = FilesCollection(files)
    (world.pictures / "verified.sha256").unlink()
    assert not all_fieldnotes(images, ["own"])  # nobody has verified what lies in the cache folder
    fieldscope.fieldnotes.collection.ensure_pictures("test")
    assert all_fieldnotes(images, ["own", "copy", "broken"])
    assert not all_fieldnotes(images, ["own", "red"])
    assert not all_fieldnotes(images, [f"{n}" for n in range(5001)])
    assert len(json.loads((world.pictures / "hashes.json").read_text())["hashes"]) == 12
    (world.pictures / "hashes.json").write_text("{")
    assert all_fieldnotes(images, ["own", "copy"])
    assert len(json.loads((world.pictures / "hashes.json").read_text())["hashes"]) == 12


def test_missing_pictures_are_drawn_beside_other_work_and_verified(world: World) -> None:
    missing, called = world.pictures / "000003.png", []
    pixels = PILImage.open(missing).tobytes()
    missing.unlink()
    (world.pictures / "verified.sha256").unlink()
    for _ in range(2):
        files = fieldscope.fieldnotes.collection.ensure_pictures("test", beside=lambda: called.append(missing.exists()))
        assert PILImage.open(files["3"]).tobytes() == pixels
    assert len(called) == 1, "nothing is missing the second time"
    assert (world.pictures / "verified.sha256").is_file()
    missing.write_bytes((world.pictures / "000004.png").read_bytes())
    (world.pictures / "verified.sha256").unlink()
    fieldscope.fieldnotes.collection.ensure_pictures("test")
    assert PILImage.open(missing).tobytes() == pixels, "another picture in its place is drawn again"


def test_how_the_user_calls_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "fieldscope"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [str(program)])
    monkeypatch.setenv("PATH", os.defpath)
    assert fieldscope.service.wiring.feedback.program() == "bin/fieldscope"
    monkeypatch.setenv("PATH", str(program.parent))
    assert fieldscope.service.wiring.feedback.program() == "fieldscope"
    monkeypatch.setattr("sys.argv", ["/somewhere/pytest"])
    assert fieldscope.service.wiring.feedback.program() == "fieldscope"
