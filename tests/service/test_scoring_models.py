"""`--scorer`: a scoring model behind a server, on the command line, in Python and in the service's file."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fieldscope.cache.sqlite import SqliteStore
from fieldscope.core.errors import ConfigError
from fieldscope.core.fingerprint import fingerprint_pixels
from fieldscope.retrieval.scripted_scorer import ScriptedScorer
from fieldscope.service.server.settings import read_settings
from fieldscope.service.wiring.models import load_scorer
from fieldscope.service.wiring.settings import NO_KEY, Settings
from fieldscope.service.workflows.reranker import AsyncReranker
from tests.retrieval.rerankers import MODEL, Reranker, read_text
from tests.service.conftest import Run

NAMES = ("red", "green", "blue")
Rank = Callable[..., Any]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`red.png`, `green.png` and `blue.png`, with an empty cache."""
    monkeypatch.setenv("FIELDSCOPE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in NAMES:
        Image.new("RGB", (9, 9), name).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def reranker(photos: Path) -> Iterator[Reranker]:
    """A server that likes green best, then blue."""
    order = {f"image:{fingerprint_pixels(Image.new('RGB', (9, 9), name))}": name for name in NAMES}
    scores = {"red": 0.1, "green": 0.9, "blue": 0.5}
    with Reranker(score=lambda query, document: scores.get(order.get(document, ""), 0.05)).serving() as served:
        yield served


@pytest.fixture
def rank(run: Run, photos: Path, reranker: Reranker) -> Rank:
    """`rank("--cache", "replay")` ranks the photos by the served scorer and returns what it printed and wrote."""

    def made(*more: str) -> Any:
        line = ("rerank", "--query", "grass", "--images", photos, "--strategy", "clip", "--json")
        return run(*line, "--scorer", f"{reranker.url}#{MODEL}", *more)

    return made


def scores(result: Any) -> dict[str, float]:
    assert result.exit_code == 0, result.stderr
    return {entry["image"]: entry["prior"] for entry in json.loads(result.stdout)["ranking"]}


def order(result: Any) -> list[str]:
    return list(scores(result))


def test_a_served_scorer_ranks_images_and_is_asked_once(rank: Rank, reranker: Reranker) -> None:
    first = rank()
    assert order(first) == ["green.png", "blue.png", "red.png"]
    assert json.loads(first.stdout)["models"] == {"clip": f"{reranker.url}#{MODEL}", "lmm": None}
    assert f"gets images as content parts, as vLLM takes them, at {reranker.url}/v1/rerank" in first.stderr
    assert len(reranker.asked) == 2 + 3  # two small pictures show the form
    again = rank()
    assert scores(again) == scores(first) and again.stderr == ""
    assert len(reranker.asked) == 5


def test_the_cache_s_modes_hold_for_scores(rank: Rank, reranker: Reranker) -> None:
    missing = rank("--cache", "replay")
    assert missing.exit_code == 1 and "was never recorded" in missing.stderr
    assert not reranker.asked
    rank("--cache", "off")
    rank("--cache", "off")
    assert len(reranker.asked) == 10
    first = rank()
    assert len(reranker.asked) == 15
    reranker.score = lambda query, document: 0.5 + len(document) / 1e9
    assert scores(rank()) == scores(first)
    refreshed = rank("--cache", "refresh")
    assert len(reranker.asked) == 20 and scores(refreshed) != scores(first)
    replayed = rank("--cache", "replay")
    assert scores(replayed) == scores(refreshed) and len(reranker.asked) == 20


def test_another_model_at_the_same_address_is_asked_anew(rank: Rank, reranker: Reranker) -> None:
    rank()
    reranker.pages["/version"] = {"version": "9.9.9"}
    rank()
    assert len(reranker.asked) == 10
    result = rank("--cache", "replay")
    assert result.exit_code == 1 and "scores of 2 servers" in result.stderr


def test_scores_stand_in_the_response_cache_under_their_own_names(
    rank: Rank, run: Run, tmp_path: Path, reranker: Reranker
) -> None:
    rank()
    stats = json.loads(run("cache", "stats", "--json").stdout)
    ((name, count),) = stats["by_model"].items()
    assert name.startswith(f"scorer:{MODEL}#jpeg95<=1024#/v1/rerank parts#root=") and count == 4
    assert json.loads(run("cache", "verify", "--json").stdout)["bad"] == {}

    store = SqliteStore(Path(stats["path"]))
    entry = next(entry for entry in store.entries() if "score" in entry.response)
    altered = type(entry)(entry.key, entry.request, '{"score":1.0,"tokens":0}', entry.provenance)
    moved = type(entry)("0" * 64, entry.request, entry.response, entry.provenance)
    store.put_all([altered, moved], replace=True)
    assert store.share("9", "scorer:").entries == 5 and store.share("9", "openai:").entries == 0  # what prune removes
    store.close()
    verified = run("cache", "verify", "--json")
    assert set(json.loads(verified.stdout)["bad"]) == {entry.key, "0" * 64}
    assert run("cache", "prune", "--bad", "--yes").exit_code == 0
    asked = len(reranker.asked)
    rank()
    assert len(reranker.asked) == asked + 1


def test_an_image_without_a_score_is_left_out_with_the_reason(rank: Rank, reranker: Reranker) -> None:
    blue = fingerprint_pixels(Image.new("RGB", (9, 9), "blue"))
    scored = reranker.score
    reranker.score = lambda query, document: float("nan") if document.endswith(blue) else scored(query, document)
    result = rank()
    assert order(result) == ["green.png", "red.png"]
    (skipped,) = json.loads(result.stdout)["skipped"]
    assert skipped["image"] == "blue.png" and "no finite number" in skipped["reason"]


def test_a_server_that_stops_is_an_error_and_what_came_is_kept(rank: Rank, reranker: Reranker) -> None:
    reranker.reply = lambda number, path, body: (500, {}, {"detail": "out of memory"}) if number >= 2 else None
    result = rank("--attempts", "1")
    assert result.exit_code == 1
    assert "the scoring model stopped answering" in result.stderr and "out of memory" in result.stderr


def test_a_server_of_texts_says_so(rank: Rank, reranker: Reranker) -> None:
    reranker.read = read_text
    result = rank()
    assert result.exit_code == 1
    assert "takes texts only" in result.stderr


def test_a_server_that_counts_no_tokens_and_sees_nothing_is_warned_of(rank: Rank, reranker: Reranker) -> None:
    reranker.tokens, reranker.score = None, lambda query, document: 0.5
    told = rank().stderr
    assert "does not count tokens" in told and "nothing in common the same score" in told


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (("rerank", "--query", "a", "--images", ".", "--scorer", "http://localhost:1"), "write URL#MODEL"),
        (("rerank", "--query", "a", "--images", ".", "--scorer", "nonsense"), "unknown scorer 'nonsense'"),
        (("search", "--index", "x", "--query", "a", "--scorer", "http://h#m"), "--scorer needs --rerank"),
        (
            ("search", "--index", "x", "--query", "a", "--rerank", "--strategy", "yes-no", "--scorer", "http://h#m"),
            "no stage of 'yes-no' uses the scoring model",
        ),
    ],
)
def test_a_scorer_that_cannot_be_used_is_refused(run: Run, photos: Path, line: tuple[str, ...], words: str) -> None:
    result = run(*(photos if word == "." else word for word in line))
    assert result.exit_code in (1, 2)
    assert words in result.stderr


def test_a_key_goes_to_no_other_host(monkeypatch: pytest.MonkeyPatch) -> None:
    variable = "FIELDSCOPE_API_KEY_SCORER"
    monkeypatch.delenv(variable, raising=False)
    scorer = "http://scorer:1#m"
    key_of = {
        Settings(api_key="k", scorer=scorer): "k",
        Settings(api_key="k", scorer=f"openai:{scorer}"): "k",
        Settings(api_key="k", scorer=scorer, encoder="http://scorer:1#e"): "k",
        Settings(api_key="k", scorer=scorer, encoder="http://other:1#e"): NO_KEY,
        Settings(api_key="k", scorer=scorer, lmm_url="http://lmm:1", model="m"): NO_KEY,
        Settings(api_key="k", scorer=scorer, lmm_url="http://scorer:1", model="m"): "k",
        Settings(api_key="k", scorer=scorer, lmm_url="http://scorer:1,http://lmm:1", model="m"): "k",
    }
    assert {settings: settings.key_for("http://scorer:1", variable) for settings in key_of} == key_of
    monkeypatch.setenv(variable, "own")
    assert {settings.key_for("http://scorer:1", variable) for settings in key_of} == {"own"}


def test_the_scorer_s_own_key_is_sent(rank: Rank, reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDSCOPE_API_KEY_SCORER", "sk-scorer")
    rank()
    assert {headers["authorization"] for headers in reranker.headers} == {"Bearer sk-scorer"}
    reranker.reply = lambda number, path, body: (401, {}, {"detail": "who?"})
    result = rank("--cache", "refresh")
    assert result.exit_code == 1 and "FIELDSCOPE_API_KEY_SCORER" in result.stderr
    assert "sk-scorer" not in result.stderr


async def test_a_program_gives_a_scorer(photos: Path) -> None:
    scores = {fingerprint_pixels(Image.new("RGB", (9, 9), name)): float(n) for n, name in enumerate(NAMES)}
    scorer = ScriptedScorer(lambda inputs, document: scores[document])
    async with AsyncReranker("clip", scorer=scorer) as reranker:
        both = await asyncio.gather(reranker.rerank("a", photos), reranker.rerank("a", photos))
        assert [[image.image_id for image in ranking] for ranking in both] == [["blue.png", "green.png", "red.png"]] * 2
        assert len(scorer.asked) == 3
        with pytest.raises(ConfigError, match="`scorer`"):
            await reranker.evaluate("fieldnotes-rerank", limit=1)


def test_the_service_s_file_and_variables_name_a_scorer(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    file = tmp_path / "fieldscope.toml"
    file.write_text('scorer = "path:model"\n', encoding="utf-8")
    assert read_settings(file=file, environ={}).settings.models.scorer == f"path:{tmp_path / 'model'}"
    environ = {"FIELDSCOPE_SCORER": "http://h:1#m", "FIELDSCOPE_API_KEY_SCORER": "k"}
    assert read_settings(file=file, environ=environ).settings.models.scorer == "http://h:1#m"


def test_the_bundled_settings_need_no_scorer(photos: Path) -> None:
    assert Settings().scorer is None
    with pytest.raises(ConfigError, match="does not name a model"):
        load_scorer("http://h:1", Settings())
