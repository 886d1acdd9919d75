"""An evaluation by two workers ranks as one process does, and asks nothing that is committed."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fieldscope.service.cli.main import cli
from tests.ray.conftest import on_ray
from tests.service.conftest import Server, completion, serving

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

QUERIES = {
    f"q{number}": text for number, text in enumerate(("a red fox", "a blue crab", "a white owl", "a yellow duck"))
}


@pytest.fixture
def mine(pictures: Path, tmp_path: Path) -> Path:
    """Four queries over twelve of the pictures."""
    folder = tmp_path / "mine"
    (folder / "images").mkdir(parents=True)
    for number in range(12):
        shutil.copy(pictures / f"{number:03}.png", folder / "images")
    lines = [f"{query}\t{text}\n" for query, text in QUERIES.items()]
    (folder / "queries.tsv").write_text("".join(["id\ttext\n", *lines]))
    judged = [f"{query}\t{number:03}\t1\n" for number, query in enumerate(QUERIES)]
    (folder / "qrels.tsv").write_text("".join(["query-id\tcorpus-id\tscore\n", *judged]))
    return folder


def run(*words: object) -> Result:
    done = CliRunner().invoke(cli, list(map(str, words)))
    assert done.exit_code == 0, done.output
    return done


def test_two_workers_rank_as_one_process_and_ask_nothing_twice(
    cluster: str, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(Server()) as server:
        monkeypatch.setenv("FIELDSCOPE_STORE", str(tmp_path / "one.sqlite"))
        evaluation = ("eval", "folder", "--data", mine, "--strategy", "yes-no", "--lmm", server.url, "--model", "vl")
        run(*evaluation, "--out", tmp_path / "one")
        asked = [json.dumps(body, sort_keys=True) for body in server.bodies if "messages" in body]
        server.bodies.clear()
        monkeypatch.setenv("FIELDSCOPE_STORE", str(tmp_path / "two.sqlite"))
        spread = (*evaluation, "--ray", cluster)
        on_ray("-m", "fieldscope", *spread, "--out", tmp_path / "two")
        asked_by_two = [json.dumps(body, sort_keys=True) for body in server.bodies if "messages" in body]
        assert (tmp_path / "two" / "yes-no" / "run.trec").read_bytes() == (
            tmp_path / "one" / "yes-no" / "run.trec"
        ).read_bytes()
        assert set(asked_by_two) == set(asked)
        server.bodies.clear()
        on_ray("-m", "fieldscope", *spread, "--out", tmp_path / "three")
        assert not [body for body in server.bodies if body.get("max_tokens", 1) and "image_url" in json.dumps(body)]


def test_workers_caption_what_one_process_captions(
    cluster: str, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIELDSCOPE_STORE", str(tmp_path / "store.sqlite"))
    index = tmp_path / "index"
    run("index", mine / "images", "-o", index)
    with serving(Server(answer=lambda body: (200, caption_of(body)))) as server:
        words = ("caption", index, "--lmm", server.url, "--model", "vl")
        on_ray("-m", "fieldscope", *words, "--ray", cluster)
        made = (index / "captions" / "manifest.json").read_text()
        asked = len(server.bodies)
        run(*words)
        assert (index / "captions" / "manifest.json").read_text() == made
        assert len([body for body in server.bodies[asked:] if "image_url" in json.dumps(body)]) == 0


def caption_of(body: dict[str, Any]) -> str:
    """A chat completion that depends on the picture, in words that the bundled encoder knows."""
    digest = hashlib.sha256(json.dumps(body["messages"]).encode()).digest()
    return completion(list(QUERIES.values())[digest[0] % len(QUERIES)])
