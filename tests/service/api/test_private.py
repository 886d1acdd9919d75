"""What the service keeps is its user's alone, and no key and no folder of the machine is in what it says."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import Result

from fieldscope.agent.lmm.openai import OpenAILMM
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.cache.sqlite import SqliteStore
from fieldscope.cache.store import Entry
from fieldscope.core.errors import ConfigError, StrategyError
from fieldscope.core.paths import without_folders
from fieldscope.core.private import close_to_others, private_file, shown_address
from fieldscope.retrieval.collection import FilesCollection
from fieldscope.service.server.api.keys import KeyFile
from tests.service.api.facts import COLLECTION
from tests.service.api.whole import open_app

ID = f"fieldscope://{COLLECTION}/01.png"
BODY = {"query": "crab", "documents": [ID, "a red crab"], "strategy": "yes-no"}


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def readable(folder: Path) -> list[str]:
    """What others could read or enter below a folder."""
    return [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) & 0o077
    ]


async def used(client: httpx.AsyncClient) -> None:
    """Everything that leaves something behind: a rerank with an upload, a job, a trace with its page, a thumbnail."""
    from tests.service.api.desk import RED, data_url, picture

    reply = await client.post("/v1/rerank", json={**BODY, "documents": [data_url(picture(RED)), ID]})
    assert reply.status_code == 200
    trace = reply.json()["id"]
    job = (await client.post("/v1/jobs", json={"calls": [{"url": "/v1/rerank", "body": BODY}]})).json()
    await client.get(job["events"])
    page = await client.get(f"/v1/traces/{trace}/page", follow_redirects=True)
    assert page.status_code == 200
    assert (await client.get(f"/v1/collections/{COLLECTION}/thumbnails/01.png")).status_code == 200


async def test_nothing_that_the_service_keeps_is_readable_by_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIELDSCOPE_CACHE", str(tmp_path / "cache"))
    KeyFile(tmp_path / "data" / "keys.json")
    async with open_app(tmp_path, ScriptedLMM(lambda request: 0.7)) as client:
        await used(client)
        kept = {path.name for path in tmp_path.rglob("*")}
        assert {"jobs.sqlite", "index.sqlite", "index.sqlite-wal", "results.jsonl", "pictures"} <= kept
        assert readable(tmp_path / "data") == [] and readable(tmp_path / "cache") == []
    assert readable(tmp_path / "data") == [] and readable(tmp_path / "cache") == []
    assert os.umask(0o022) == 0o022


async def test_what_older_versions_left_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDSCOPE_CACHE", str(tmp_path / "cache"))
    outside = tmp_path / "outside.txt"
    outside.write_text("not the service's")
    outside.chmod(0o644)
    old = tmp_path / "data" / "traces" / "2026-01-01" / "yes-no-1"
    old.mkdir(parents=True)
    (old / "results.jsonl").write_text("{}")
    (old / "link").symlink_to(outside)
    for path in (tmp_path / "data", *(tmp_path / "data").rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)
    async with open_app(tmp_path, ScriptedLMM(lambda request: 0.7)):
        assert readable(tmp_path / "data") == []
        assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    assert stat.S_IMODE(outside.stat().st_mode) == 0o644


def test_a_cache_that_was_open_to_others_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    SqliteStore(path).close()
    path.chmod(0o644)
    store = SqliteStore(path)
    store.put(Entry("k", "{}", "{}", '{"model": "m"}'))
    assert readable(tmp_path) == []
    store.close()
    tmp_path.chmod(0o755)
    private_file(tmp_path / "new")
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755, "a folder of the user's own stays as it is"
    close_to_others(tmp_path / "missing")


async def test_a_key_that_is_made_while_the_service_runs_is_needed_at_once(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "data" / "keys.json")
    async with open_app(tmp_path, ScriptedLMM(lambda request: 0.7)) as client:
        assert (await client.get("/v1/strategies")).status_code == 200
        secret = keys.add("alice")
        assert (await client.get("/v1/strategies")).status_code == 401
        assert (await client.get("/v1/strategies", headers={"X-API-Key": secret})).status_code == 200
        other = keys.add("bob")
        keys.remove("alice")
        assert (await client.get("/v1/strategies", headers={"X-API-Key": secret})).status_code == 401
        assert (await client.get("/v1/strategies", headers={"X-API-Key": other})).status_code == 200
        keys.remove("bob")
        for headers in ({}, {"X-API-Key": other}):
            assert (await client.get("/v1/strategies", headers=headers)).status_code == 401


def test_a_key_file_that_is_replaced_by_one_of_the_same_size_and_time_is_read_again(tmp_path: Path) -> None:
    keys, other = KeyFile(tmp_path / "keys.json"), KeyFile(tmp_path / "other.json")
    first, second = keys.add("a"), other.add("b")
    assert keys.owner(first) == "a"
    status = keys.path.stat()
    os.utime(other.path, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.path.replace(keys.path)
    assert (keys.owner(first), keys.owner(second)) == (None, "b")


SECRET = "sk-very-secret"


@pytest.mark.parametrize(
    "url",
    [f"http://user:{SECRET}@localhost:8000", f"http://{SECRET}@localhost/v1", f"http://localhost/v1?key={SECRET}"],
)
def test_an_address_with_a_key_in_it_is_refused_and_not_printed(url: str, run: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        OpenAILMM(url, "vl", FilesCollection({}))
    assert SECRET not in str(refused.value) and "FIELDSCOPE_API_KEY" in str(refused.value)
    for options in ((), ("--json",)):
        printed: Result = run("config", "--lmm", url, "--model", "vl", *options)
        assert SECRET not in printed.output and "localhost" in printed.output


def test_a_key_that_is_part_of_a_strategy_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    verify = "verify:\n  top_k: 5\n  extra_body: {nested: {Api-Key: sk-very-secret}}\n"
    text = (Path(load_strategy.__code__.co_filename).parent / "yes-no.yaml").read_text(encoding="utf-8")
    file.write_text(text.partition("verify:")[0] + verify, encoding="utf-8")
    with pytest.raises(StrategyError, match="'Api-Key' would be written to every run") as refused:
        load_strategy(file, prompts="fieldnotes")
    assert SECRET not in str(refused.value)


def test_sentences_without_folders() -> None:
    said = {
        "'/home/alice/My Pictures/a.png' is no folder": "'a.png' is no folder",
        "can't read /var/lib/fs/c.sqlite: denied": "can't read c.sqlite: denied",
        "~/x/y is gone": "y is gone",
        "http://localhost:8000/v1/models answered 404": "http://localhost:8000/v1/models answered 404",
        "1/2 of a and/or b": "1/2 of a and/or b",
        "fieldscope://fieldnotes/1": "fieldscope://fieldnotes/1",
    }
    assert {sentence: without_folders(sentence) for sentence in said} == said
    assert shown_address("http://u:p@h:1/v1?key=k#f") == "http://h:1/v1"


async def test_no_folder_is_in_any_reply_or_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDSCOPE_CACHE", str(tmp_path / "cache"))

    async with open_app(tmp_path, ScriptedLMM(lambda request: 0.7)) as client:
        await used(client)
        (tmp_path / "pictures" / "01.png").unlink()
        (tmp_path / "pictures" / "02.png").write_bytes(b"no picture")
        broken = tmp_path / "data" / "runs" / "broken"
        broken.mkdir(parents=True)
        (broken / "manifest.json").write_text("{")
        for picture in ("01.png", "02.png", "../x.png"):
            reply = await client.post("/v1/rerank", json={**BODY, "documents": [{"image": picture}]})
            assert str(tmp_path) not in reply.text
        served = await client.get("/served/")
        pages = ["/", "/served/", "/runs/broken/index.html", "/runs/none/index.html", "/nothing.html", "/v1/runs",
                 "/v1/collections", "/readyz", f"/v1/collections/{COLLECTION}/thumbnails/02.png"]  # fmt: skip
        while pages:
            address = pages.pop()
            reply = await client.get(address)
            assert str(tmp_path) not in reply.text, address
        assert served.status_code == 200


def test_a_settings_file_with_a_key_is_masked(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "fieldscope.toml"
    file.write_text(f'api_key = "{SECRET}"\nlmm = "http://u:{SECRET}@localhost/v1"\nmodel = "vl"\n')
    printed = run("config", "--config", file, "--json")
    assert SECRET not in printed.output
    assert json.loads(printed.stdout)["lmm"]["value"] == "http://localhost/v1"
