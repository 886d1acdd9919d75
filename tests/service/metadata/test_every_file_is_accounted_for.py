"""A folder with all kinds of names and formats: each file is searched, or named with its reason."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from tests.service.conftest import Run, World


def encoded(kind: str, colour: str = "#a03010") -> bytes:
    stream = io.BytesIO()
    PILImage.new("RGB", (40, 30), colour).save(stream, kind)
    return stream.getvalue()


def deep() -> bytes:
    stream = io.BytesIO()
    PILImage.fromarray(np.full((30, 40), 4000, dtype=np.uint16)).save(stream, "TIFF")
    return stream.getvalue()


SEARCHED = {
    "plain.jpg": encoded("JPEG"),
    "SHOUTED.JPG": encoded("JPEG", "#104010"),
    "with space & ümläut 狐.png": encoded("PNG"),
    "photo.png?1445": encoded("PNG", "#111111"),
    "no_ending": encoded("WEBP"),
    "moving.gif": encoded("GIF"),
    "old.bmp": encoded("BMP"),
    "twelve-bits.tiff": deep(),
    "wrong_ending.txt": encoded("JPEG", "#2050f0"),
    "below/plain.jpg": encoded("JPEG", "#f0f010"),
    "new.avif": encoded("AVIF"),
}
NAMED = {
    "phone.HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(9), "pillow-heif"),
    "camera.CR2": (encoded("TIFF"), "raw file"),
    "camera.dng": (encoded("TIFF"), "raw file"),
    "clip.MP4": (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(99), "a video"),
    "clip.AVI": (b"RIFF\x10\0\0\0AVI LIST" + bytes(99), "a video"),
    "clip_without_ending": (b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + bytes(99), "a video"),
    "cut.jpg": (encoded("JPEG")[:200], "can't be read as an image"),
    "empty.jpg": (b"", "can't be read as an image"),
    "empty": (b"", "empty"),
    "notes.txt": (b"seen at dusk", "no picture in JPEG"),
    "table.csv": (b"file,station\nplain.jpg,A1\n", "no picture in JPEG"),
    ".hidden.jpg": (encoded("JPEG"), "hidden"),
    "new.jxl": (b"\xff\x0a" + bytes(30), "JPEG XL"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "everything"
    (made / "below").mkdir(parents=True)
    for name, data in {**SEARCHED, **{name: data for name, (data, _) in NAMED.items()}}.items():
        (made / name).write_bytes(data)
    (made / "elsewhere.jpg").symlink_to("/etc/hostname")
    os.mkfifo(made / "pipe")
    return made


def test_each_file_is_searched_or_named_and_the_counts_add_up(
    run: Run, world: World, folder: Path, tmp_path: Path
) -> None:
    indexed = run("index", folder, "-o", tmp_path / "index", "--metadata", folder / "table.csv", "--json")
    assert indexed.exit_code == 0, indexed.stderr
    told = json.loads(indexed.stdout)
    reasons = {entry["image"]: entry["reason"] for entry in told["skipped"]}
    files = [path for path in folder.rglob("*") if not path.is_dir()]
    assert told["indexed"] + len(reasons) == len(files) == len(SEARCHED) + len(NAMED) + 2
    assert reasons.keys() == {*NAMED, "elsewhere.jpg", "pipe"}
    for name, (_, reason) in NAMED.items():
        assert reason in reasons[name], name
    found = run("search", "--index", tmp_path / "index", "--query", "a fox", "-k", "99", "--json")
    ranking = json.loads(found.stdout)["ranking"]
    assert {entry["image"] for entry in ranking} == SEARCHED.keys()
    assert next(entry for entry in ranking if entry["image"] == "plain.jpg")["metadata"]["station"] == "A1"
    assert f"skipped {len(reasons)}:" in run("index", folder, "-o", tmp_path / "index").stdout


@pytest.mark.parametrize("name", ["camera.CR2", "clip.MP4"])
def test_a_raw_file_that_is_named_by_itself_is_not_ranked_by_its_thumbnail(
    run: Run, world: World, folder: Path, name: str
) -> None:
    images = [folder / "plain.jpg", folder / name]
    ranked = run("rerank", "--query", "a fox", "--images", *images, "--strategy", "clip", "--json")
    told = json.loads(ranked.stdout)
    assert [Path(entry["image"]).name for entry in told["ranking"]] == ["plain.jpg"]
    assert NAMED[name][1] in told["skipped"][0]["reason"]
