"""`fieldscope rerank`: one's own images for one query."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image as PILImage

import fieldscope.fieldnotes.vocabulary
import fieldscope.service.wiring.bundled
import fieldscope.service.wiring.models
from tests.service.conftest import BUNDLED_LMM, CRABS, FOX, MODELS, Run, Server, World, completion

ONE_QUESTION = ("--strategy", "yes-no-fused")
ASK_A_SERVER = ("rerank", "--query", "a hermit crab", "--model", "vl", *ONE_QUESTION)


@pytest.fixture
def folder(world: World, tmp_path: Path) -> Path:
    """FieldNotes' own pictures, written out as files, and three that are not: broken, huge, and no picture."""
    made = tmp_path / "out"
    made.mkdir()
    for picture in world.pictures.glob("*.png"):
        shutil.copy(picture, made)
    (made / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    PILImage.new("1", (10_000, 10_000)).save(made / "huge.png")
    (made / "notes.txt").write_text("not for us")
    return made


def test_a_folder_with_broken_images(run: Run, folder: Path, world: World) -> None:
    result = run("rerank", "--query", CRABS, "--images", folder, *ONE_QUESTION, "--json")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    told = json.loads(result.stdout)
    assert (told["query"], told["strategy"]) == (CRABS, "yes-no-fused")
    assert told["models"] == {"clip": "bundled", "lmm": "bundled"}
    assert told["flags"] == []
    assert {entry["image"] for entry in told["ranking"][:2]} == {"000001.png", "000002.png"}
    assert [entry["rank"] for entry in told["ranking"]] == list(range(1, 13))
    best = told["ranking"][0]
    assert set(best) >= {"rank", "image", "path", "score", "p_match", "p_yes", "answer", "prior", "prior_rank"}
    assert Path(best["path"]) == folder / best["image"]
    assert best["p_yes"] == pytest.approx(0.9)
    assert best["answer"] == "Yes"
    reasons = {entry["image"]: entry["reason"] for entry in told["skipped"]}
    assert set(reasons) == {"broken.jpg", "huge.png", "notes.txt"}
    assert "can't be read" in reasons["broken.jpg"]
    assert "10000 x 10000 pixels" in reasons["huge.png"]
    assert told["cost"]["calls"] == len(world.asked) == 12


def test_the_bundled_models_see_what_is_there(
    run: Run, folder: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fieldscope.service.wiring.models, "bundled_lmm", BUNDLED_LMM)
    monkeypatch.setattr(fieldscope.fieldnotes.vocabulary, "MODELS", MODELS)
    result = run("rerank", "--query", CRABS, "--images", folder, "--strategy", "yes-no", "--json")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    told = json.loads(result.stdout)
    assert {entry["image"] for entry in told["ranking"][:2]} == {"000001.png", "000002.png"}
    assert told["ranking"][1]["p_yes"] > 0.5 > told["ranking"][2]["p_yes"]


def test_for_people(run: Run, folder: Path, world: World) -> None:
    result = run("rerank", "--query", FOX, "--images", folder, *ONE_QUESTION, "--top-k", "3")
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines()]
    assert [row[0] for row in rows if row and row[0].isdigit()] == ["1", "2", "3"]
    assert next(row for row in rows if row and row[0] == "1")[-2:] == ["000008.png", "Yes"]
    assert "skipped 3:" in result.stdout
    assert len(world.asked) == 12  # all were looked at


def test_the_prior_alone(run: Run, folder: Path, world: World) -> None:
    told = json.loads(run("rerank", "--query", FOX, "--images", folder, "--strategy", "clip", "--json").stdout)
    assert told["models"] == {"clip": "bundled", "lmm": None}
    assert told["ranking"][0]["image"] in {"000008.png", "000009.png"}
    assert world.asked == []


@pytest.mark.parametrize("spaced", [True, False])
def test_files_one_by_one_and_those_that_are_missing(run: Run, world: World, spaced: bool) -> None:
    files = [world.pictures / "000008.png", world.pictures / "000009.png", world.pictures / "none.png"]
    images = ["--images", *files] if spaced else [part for file in files for part in ("--images", file)]
    result = run("rerank", "--query", FOX, *images, *ONE_QUESTION, "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert [entry["image"] for entry in told["ranking"]] == [str(file) for file in files[:2]]
    assert [entry["image"] for entry in told["skipped"]] == [str(files[2])]
    assert "does not exist" in told["skipped"][0]["reason"]


def test_nothing_that_can_be_read(run: Run, photos: Path, world: World) -> None:
    result = run("rerank", "--query", FOX, "--images", photos / "broken.png")
    assert result.exit_code == 1
    assert "none of the 1 images can be read" in result.stderr
    assert "'" in result.stderr.partition("first: ")[2]


def test_foreign_images_are_flagged_once(run: Run, photos: Path, world: World) -> None:
    result = run("rerank", "--query", FOX, "--images", photos, *ONE_QUESTION, "--json")
    assert result.exit_code == 0
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == ["warning"]
    assert json.loads(result.stdout)["flags"] == [fieldscope.service.wiring.bundled.FOREIGN]


def test_one_foreign_image_among_ones_own(run: Run, photos: Path, world: World) -> None:
    result = run("rerank", "--query", FOX, *ONE_QUESTION, "--images", world.pictures / "000008.png", photos / "red.png")
    assert result.stderr.count("warning:") == 1


def test_unknown_words_are_named_before_any_model_is_loaded(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("load_encoder", "bundled_lmm"):
        monkeypatch.delattr(fieldscope.service.wiring.models, name)
    monkeypatch.setattr(fieldscope.service.wiring.models, "load_encoder", None, raising=False)
    result = run("rerank", "--query", "a Hermit crab using plastic trash as its shell", "--images", folder)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "'hermit', 'using', 'as', 'its', 'shell'" in result.stderr
    assert "'plastic'" not in result.stderr


@pytest.mark.parametrize("text", ["", "  \t ", "\udcff"])
def test_a_query_without_words(run: Run, folder: Path, text: str) -> None:
    result = run("rerank", "--query", text, "--images", folder)
    assert result.exit_code == 1
    assert "the query must be words" in result.stderr


def test_a_server_looks_at_anything(run: Run, photos: Path, server: Server, world: World) -> None:
    line = (*ASK_A_SERVER, "--images", photos, "--lmm", server.url)
    result = run(*line, "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["models"] == {"clip": None, "lmm": "vl"}
    assert told["flags"] == []
    assert told["ranking"][-1]["image"] == "blue.png"
    assert {entry["prior"] for entry in told["ranking"]} == {0}
    assert [entry["image"] for entry in told["skipped"]] == ["broken.png"]
    assert result.stderr.startswith("note: ") and result.stderr.count("\n") == 1
    assert "--encoder" in result.stderr
    assert json.loads(run(*line, "--json").stdout)["cost"]["cache_hits"] == 3


def test_a_server_and_a_clip_of_ones_own(run: Run, photos: Path, server: Server, world: World) -> None:
    line = (*ASK_A_SERVER, "--images", photos, "--lmm", server.url)
    result = run(*line, "--clip", world.cache.parent / "models" / "clip", "--json")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    assert len({entry["prior"] for entry in json.loads(result.stdout)["ranking"]}) == 3


def test_large_pictures_travel_small(run: Run, photos: Path, server: Server, world: World) -> None:
    line = ("rerank", "--query", "crab", "--images", photos / "red.png", "--lmm", server.url, "--model", "vl")
    assert run(*line, "--strategy", "yes-no").exit_code == 0
    assert run(*line, "--strategy", "yes-no", "--max-side", "8").exit_code == 0
    urls = [body["messages"][-1]["content"][0]["image_url"]["url"] for body in server.bodies]
    assert len(urls) == 2 and len(urls[1]) < len(urls[0])


def test_a_server_that_gives_no_verdict_at_all(run: Run, photos: Path, server: Server, world: World) -> None:
    server.answer = lambda body: (200, completion("Yes"))
    line = (*ASK_A_SERVER, "--images", photos, "--lmm", server.url)
    result = run(*line, "--json")
    assert result.exit_code == 1
    assert len(json.loads(result.stdout)["ranking"]) == 3
    assert "3 of 3 calls gave no answer" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: none of 3 questions about the images got an answer (")
    assert "no log-probabilities" in result.stderr


def test_parquet_files(run: Run, world: World, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pictures = sorted(world.pictures.glob("*.png"))
    table = pa.table({"image": [p.read_bytes() for p in pictures], "inat24_image_id": [int(p.stem) for p in pictures]})
    pq.write_table(table, tmp_path / "pictures.parquet")
    result = run("rerank", "--query", FOX, "--images", tmp_path / "pictures.parquet", *ONE_QUESTION, "--json")
    best = json.loads(result.stdout)["ranking"][0]
    assert (best["image"], best["path"]) == ("8", None)
    assert result.stderr == ""
