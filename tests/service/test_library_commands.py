"""`fieldscope index` and `fieldscope search`: a folder becomes searchable, rerankable and exportable."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image as PILImage

import fieldscope.service.wiring.bundled
import fieldscope.service.wiring.models
from fieldscope.agent.types import RankedCandidate, RerankResult
from fieldscope.retrieval.collection import FilesCollection
from fieldscope.service.cli.files import copy_all
from fieldscope.service.workflows.ranking import Ranking
from tests.service.conftest import CRABS, FOX, Run, Server, World

ONE_QUESTION = ("--strategy", "yes-no-fused")


@pytest.fixture
def indexed(world: World, run: Run, tmp_path: Path) -> Path:
    """An index of FieldNotes' pictures in a folder of one's own, two of them in a folder below, one file broken."""
    folder = tmp_path / "field"
    (folder / "old").mkdir(parents=True)
    for picture in world.pictures.glob("*.png"):
        shutil.copy(picture, folder)
    (folder / "000008.png").rename(folder / "old" / "000001.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    result = run("index", folder, "-o", tmp_path / "index", "--json")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    told = json.loads(result.stdout)
    assert (told["indexed"], told["encoded"], told["flags"]) == (12, 12, [])
    assert [entry["image"] for entry in told["skipped"]] == ["broken.jpg"]
    return tmp_path / "index"


def test_indexing_again_encodes_what_is_new(run: Run, indexed: Path, tmp_path: Path) -> None:
    shutil.copy(tmp_path / "field" / "000003.png", tmp_path / "field" / "copy.png")
    result = run("index", tmp_path / "field", "-o", indexed)
    assert result.exit_code == 0
    assert "13 images are searchable" in result.stdout and "1 of them were encoded" in result.stdout
    assert "skipped 1:" in result.stdout and "'broken.jpg'" in result.stdout


def test_a_foreign_folder_is_flagged_once(run: Run, photos: Path, world: World, tmp_path: Path) -> None:
    result = run("index", photos, "-o", tmp_path / "index", "--json")
    assert result.stderr.count("warning:") == result.stderr.count("\n") == 1
    assert json.loads(result.stdout)["flags"] == [fieldscope.service.wiring.bundled.FOREIGN]
    found = run("search", "--index", tmp_path / "index", "--query", FOX, "--json")
    assert found.stderr.count("warning:") == found.stderr.count("\n") == 1
    assert json.loads(found.stdout)["flags"] == [fieldscope.service.wiring.bundled.FOREIGN]


def test_search_by_text(run: Run, indexed: Path, world: World) -> None:
    result = run("search", "--index", indexed, "--query", FOX, "-k", "4", "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert len(told["ranking"]) == 4
    assert told["ranking"][0]["image"] in {"old/000001.png", "000009.png"}
    assert told["models"] == {"clip": "bundled", "lmm": None}
    assert [entry["p_match"] for entry in told["ranking"]] == [None] * 4
    assert world.asked == [] and result.stderr == ""


@pytest.mark.parametrize("line", [(), ("--rerank", *ONE_QUESTION), ("--reference", "000003.png")])
def test_a_search_encodes_and_searches_once(
    run: Run, indexed: Path, world: World, line: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fieldscope.retrieval.clip import ClipEncoder
    from fieldscope.retrieval.faiss_index import FaissIndex

    done: list[str] = []
    encode, search = ClipEncoder.encode_query, FaissIndex.search
    monkeypatch.setattr(ClipEncoder, "encode_query", lambda *args: done.append("encoded") or encode(*args))
    monkeypatch.setattr(FaissIndex, "search", lambda *args: done.append("searched") or search(*args))
    result = run("search", "--index", indexed, "--query", FOX, *line)
    assert result.exit_code == 0, result.stderr
    assert done == ["encoded", "searched"]


def test_every_file_that_is_left_out_is_counted_and_named(run: Run, indexed: Path, tmp_path: Path) -> None:
    field = tmp_path / "field"
    (field / "000003.png").rename(field / "photo.png?1445")
    for name in ("a.json", "b.json", "c.json", "d.json"):
        (field / name).write_text("{}")
    (field / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(9))
    (field / "elsewhere").symlink_to(tmp_path)
    result = run("index", field, "-o", indexed)
    assert "12 images are searchable" in result.stdout and "skipped 7:" in result.stdout
    lines = [line for line in result.stdout.splitlines() if line.startswith("  ")]
    assert len(lines) == 4  # a line for each reason
    assert any(line.startswith("  a.json, b.json, c.json and 1 more: no picture in JPEG") for line in lines)
    assert any(line.startswith("  IMG_1.HEIC: HEIC needs the package pillow-heif") for line in lines)
    assert any(line.startswith("  elsewhere: a link to a folder outside") for line in lines)
    names = {"a.json", "b.json", "c.json", "d.json", "IMG_1.HEIC", "elsewhere", "broken.jpg"}
    assert set(json.loads((indexed / "skipped.json").read_text())) == names

    found = run("search", "--index", indexed, "--query", FOX)
    assert f"7 files are not in this index; {indexed / 'skipped.json'} says why." in found.stdout
    told = json.loads(run("search", "--index", indexed, "--query", FOX, "--json").stdout)
    assert {entry["image"] for entry in told["skipped"]} == names
    ranked = run("rerank", "--query", FOX, "--images", field, "--strategy", "clip")
    assert "skipped 7:" in ranked.stdout and "IMG_1.HEIC: HEIC needs" in ranked.stdout


def test_rerank_and_export(run: Run, indexed: Path, world: World, tmp_path: Path) -> None:
    line = ("search", "--index", indexed, "--query", FOX, "--rerank", *ONE_QUESTION)
    result = run(*line, "--csv", tmp_path / "sub" / "fox.csv", "--copy-to", tmp_path / "foxes", "--min-p", "0.5")
    assert result.exit_code == 0, result.stderr
    with (tmp_path / "sub" / "fox.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 12
    assert (rows[0]["image"], rows[0]["answer"], rows[0]["query"]) == ("old/000001.png", "Yes", FOX)
    assert Path(rows[0]["path"]) == tmp_path / "field" / "old" / "000001.png"
    assert float(rows[0]["p_match"]) > 0.5 > float(rows[-1]["p_match"])
    over = [row for row in rows if float(row["p_match"]) >= 0.5]
    assert len(list((tmp_path / "foxes").iterdir())) == len(over)
    assert (tmp_path / "foxes" / "000001.png").read_bytes() == Path(rows[0]["path"]).read_bytes()
    assert "Copied" in result.stderr and "warning" not in result.stderr


BLUE_OWL = "a blue owl in the snow"


def test_nothing_matches_is_said_and_nothing_is_copied(run: Run, indexed: Path, world: World, tmp_path: Path) -> None:
    line = ("search", "--index", indexed, "--query", BLUE_OWL, "--rerank", *ONE_QUESTION)
    result = run(*line, "--copy-to", tmp_path / "owls", "--min-p", "0.01")
    assert result.exit_code == 0, result.stderr
    assert "No image seems to match (best P(match) " in result.stdout
    assert "Nearest" not in result.stdout and "shows" not in result.stdout  # it asked about no part
    assert f"No image seems to match, so none was copied to {tmp_path / 'owls'}." in result.stderr
    assert not (tmp_path / "owls").exists()
    told = json.loads(run(*line, "--json").stdout)
    assert told["nothing"]["statistic"] < told["nothing"]["threshold"]
    assert told["relative"] is True


def test_everything_is_copied_where_no_probability_is_asked_for(run: Run, indexed: Path, tmp_path: Path) -> None:
    line = ("search", "--index", indexed, "--query", BLUE_OWL, "--rerank", *ONE_QUESTION)
    assert run(*line, "--copy-to", tmp_path / "owls", "--min-p", "0").exit_code == 0
    assert len(list((tmp_path / "owls").iterdir())) == 12


def test_copies_never_replace_a_file(run: Run, indexed: Path, world: World, tmp_path: Path) -> None:
    there = tmp_path / "foxes"
    there.mkdir()
    (there / "000001.png").write_bytes(b"mine")
    line = ("search", "--index", indexed, "--query", CRABS, "-k", "12", "--copy-to", there)
    assert run(*line).exit_code == 0
    assert (there / "000001.png").read_bytes() == b"mine"
    copied = {path.name for path in there.iterdir()}
    assert len(copied) == 13
    assert {"000001-1.png", "000001-2.png"} <= copied  # of field/ and of field/old/


def test_links_out_of_the_collection_are_not_copied(run: Run, indexed: Path, world: World, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    PILImage.new("RGB", (9, 9)).save(secret)
    inside = tmp_path / "field" / "old" / "000001.png"
    inside.unlink()
    inside.symlink_to(secret)
    result = run("search", "--index", indexed, "--query", FOX, "-k", "12", "--copy-to", tmp_path / "copies")
    assert result.exit_code == 0
    assert len(list((tmp_path / "copies").iterdir())) == 11
    assert "warning: 1 of 12 images have no file of their own" in result.stderr


def test_an_index_of_another_encoder(run: Run, indexed: Path, world: World, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree((tmp_path / "models" / "clip").resolve(), other)
    config = json.loads((other / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["mean"] = [0.4, 0.4, 0.4]
    (other / "open_clip_config.json").write_text(json.dumps(config))
    result = run("search", "--index", indexed, "--query", FOX, "--clip", other)
    assert result.exit_code == 1
    assert "made with the encoder 'bundled'" in result.stderr
    assert result.stderr.count("\n") == 1
    again = run("index", tmp_path / "field", "-o", indexed, "--clip", other)
    assert again.exit_code == 1
    assert run("search", "--index", indexed, "--query", FOX).exit_code == 0  # the index is as it was


def test_search_goes_on_where_the_images_are_gone(run: Run, indexed: Path, world: World, tmp_path: Path) -> None:
    (tmp_path / "field").rename(tmp_path / "moved")
    result = run("search", "--index", indexed, "--query", FOX, "-k", "3", "--json")
    assert result.exit_code == 0
    assert [entry["path"] for entry in json.loads(result.stdout)["ranking"]] == [None] * 3
    assert "The images are not where they were" in result.stderr
    reranked = run("search", "--index", indexed, "--query", FOX, "--rerank")
    assert reranked.exit_code == 1
    assert str(tmp_path / "field") in reranked.stderr


def test_an_image_that_broke_since_is_an_unknown_verdict(run: Run, indexed: Path, tmp_path: Path) -> None:
    (tmp_path / "field" / "000003.png").write_bytes(b"gone")
    result = run("search", "--index", indexed, "--query", FOX, "--rerank", *ONE_QUESTION, "--json")
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    (broken,) = (entry for entry in told["ranking"] if entry["image"] == "000003.png")
    assert broken["answer"].startswith("unknown: '000003.png' can't be read")
    assert "1 of 12 calls gave no answer" in result.stderr


def test_a_server_reranks_what_was_found(run: Run, indexed: Path, server: Server, world: World) -> None:
    how = ("--rerank", *ONE_QUESTION, "--lmm", server.url, "--model", "vl")
    result = run("search", "--index", indexed, "--query", "a red crab", "-k", "3", *how, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["cost"]["calls"] == len(server.bodies) == 3


def test_unknown_words(run: Run, indexed: Path) -> None:
    result = run("search", "--index", indexed, "--query", "a hermit crab")
    assert result.exit_code == 1
    assert "'hermit'" in result.stderr


def ranking(images: list[str], query: str = "q") -> Ranking:
    ranked = tuple(
        RankedCandidate(image_id=name, rank=n + 1, score=-n - 0.5, prior=-n - 0.5, prior_rank=n + 1)
        for n, name in enumerate(images)
    )
    return Ranking(RerankResult(query_id="q", query_text=query, strategy="clip", ranking=ranked), FilesCollection({}))


def test_cells_are_no_formulas() -> None:
    names = ["=1+1.png", "+1.png", "-1.png", "@a.png", "\tx.png", 'a,"b".png', "plain.png"]
    rows = list(csv.DictReader(ranking(names, "=HYPERLINK()").csv().splitlines()))
    assert [row["image"] for row in rows] == [*(f"'{name}" for name in names[:5]), *names[5:]]
    assert {row["query"] for row in rows} == {"'=HYPERLINK()"}
    assert [float(row["score"]) for row in rows] == [-n - 0.5 for n in range(7)]  # numbers stay numbers


def test_copies_of_one_name_get_numbers(tmp_path: Path) -> None:
    files = []
    for n in range(3):
        (tmp_path / str(n)).mkdir()
        files.append(tmp_path / str(n) / "a.tar.png")
        files[-1].write_bytes(bytes([n]))
    copies = copy_all(files, tmp_path / "to")
    assert [copy.name for copy in copies] == ["a.tar.png", "a.tar-1.png", "a.tar-2.png"]
    assert [copy.read_bytes() for copy in copies] == [b"\0", b"\1", b"\2"]
    assert copies[0].stat().st_mtime == files[0].stat().st_mtime
