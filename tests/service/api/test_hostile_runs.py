"""Run folders that somebody else made: whatever is in their files, the service and the viewer answer, and run nothing
of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from fieldscope.agent.lmm.scripted import ScriptedLMM
from tests.service.api.facts import COLLECTION
from tests.service.api.whole import open_app

BODY = {"query": "crab", "documents": [f"fieldscope://{COLLECTION}/0{n}.png" for n in (1, 2)], "strategy": "yes-no"}
SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(1)>"
DEEP = '{"a":' * 5_000 + "1" + "}" * 5_000
FILES = ("manifest.json", "results.jsonl", "metrics.json", "collection.json", "images.jsonl", "inputs.jsonl",
         "qrels.trec", "annotations.jsonl")  # fmt: skip
CONTENTS = {
    "nothing": "",
    "deep": DEEP,
    "deep lists": "[" * 100_000,
    "a list": "[1, 2]",
    "a number": "7",
    "null": "null",
    "a huge number": "9" * 5_000,
    "infinite": "Infinity",
    "no text": "\udcff\udcfe",
    "script": json.dumps(SCRIPT),
    "an empty object": "{}",
}


class Shown:
    """A service with one run among those that it shows."""

    def __init__(self, client: httpx.AsyncClient, folder: Path) -> None:
        self.client, self.folder = client, folder

    async def answers(self) -> list[str]:
        """Every page of the run, and the lists that name it; none of them may fail."""
        (result, *_) = json.loads(json.dumps([self.trace]))
        query = f"/runs/hostile/queries/{result}"
        texts = []
        for address in ("/", "/v1/runs", "/runs/hostile/index.html", "/runs/hostile/prompts.html",
                        "/runs/hostile/annotations.html", "/runs/hostile/annotations.csv", f"{query}/index.html",
                        f"{query}/images/x.html"):  # fmt: skip
            reply = await self.client.get(address)
            assert reply.status_code < 500, (address, reply.text[:300])
            if reply.headers["content-type"].startswith("text/html"):
                assert "<script>alert" not in reply.text and "<img src=x" not in reply.text
            texts.append(reply.text)
        return texts

    trace: str = ""


@pytest.fixture
async def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shown]:
    monkeypatch.setenv("FIELDSCOPE_CACHE", str(tmp_path / "cache"))
    async with open_app(tmp_path, ScriptedLMM(lambda request: 0.7)) as client:
        reply = await client.post("/v1/rerank", json=BODY)
        trace = reply.json()["id"]
        await client.get(f"/v1/traces/{trace}/page")
        (made,) = (tmp_path / "data" / "traces").glob("*/*/manifest.json")
        shutil.copytree(made.parent, tmp_path / "data" / "runs" / "hostile")
        service = Shown(client, tmp_path / "data" / "runs" / "hostile")
        service.trace = trace
        yield service


@pytest.mark.parametrize("name", FILES)
async def test_any_content_of_any_file_is_a_page(shown: Shown, name: str) -> None:
    before = (shown.folder / name).read_bytes() if (shown.folder / name).exists() else None
    for content in CONTENTS.values():
        (shown.folder / name).write_bytes(f"{content}\n".encode("utf-8", "surrogateescape"))
        await shown.answers()
    if before is not None:
        (shown.folder / name).write_bytes(before)


def mutated(value: Any, change: Callable[[Any], Any]) -> list[Any]:
    """Copies of a JSON value, each with one of its parts changed."""
    if isinstance(value, dict):
        return [change(value)] + [{**value, key: new} for key in value for new in mutated(value[key], change)]
    if isinstance(value, list) and value:
        return [change(value)] + [[new, *value[1:]] for new in mutated(value[0], change)]
    return [change(value)]


ELSE = (None, [], {}, -1, 10**400, float("nan"), float("inf"), SCRIPT, "../../x", True)


@pytest.mark.parametrize("new", ELSE)
@pytest.mark.parametrize("name", ["manifest.json", "results.jsonl"])
async def test_any_part_of_it_may_be_something_else(shown: Shown, name: str, new: Any) -> None:
    """Each value in one of ten parts, so that together they are in every one."""
    file = shown.folder / name
    whole = json.loads(file.read_text(encoding="utf-8").splitlines()[0] if name.endswith("l") else file.read_text())
    found = mutated(whole, lambda _: new)
    for changed in found[next(n for n, value in enumerate(ELSE) if value is new) :: len(ELSE)]:
        file.write_text(f"{json.dumps(changed)}\n", encoding="utf-8")
        await shown.answers()


async def test_links_lead_nowhere_else(shown: Shown, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("a secret of this machine")
    for name in FILES:
        (shown.folder / name).unlink(missing_ok=True)
        (shown.folder / name).symlink_to(secret)
    for text in await shown.answers():
        assert "a secret of this machine" not in text
    (shown.folder / "loop").symlink_to(shown.folder)
    (shown.folder.parent / "gone").symlink_to(tmp_path / "nowhere")
    await shown.answers()
