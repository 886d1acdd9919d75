"""No file of a folder is dropped without a word: it is an image, whatever it is called, or skipped with the reason."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from PIL import Image as PILImage

from fieldscope.core.errors import BrokenImageError, ConfigError
from fieldscope.retrieval.clip import ClipEncoder
from fieldscope.retrieval.collection import FolderCollection
from fieldscope.retrieval.formats import FORMATS, HEIC, why_undecoded
from fieldscope.retrieval.images import open_image
from fieldscope.retrieval.library import build_index, read_skipped
from fieldscope.retrieval.opening import open_collection
from fieldscope.retrieval.union import UnionCollection

PICTURE = PILImage.new("RGB", (16, 12), "teal")


def encoded(kind: str) -> bytes:
    stream = io.BytesIO()
    PICTURE.save(stream, kind)
    return stream.getvalue()


def heic(major: bytes = b"heic", compatible: bytes = b"mif1heic") -> bytes:
    body = b"ftyp" + major + bytes(4) + compatible
    return (len(body) + 4).to_bytes(4, "big") + body + bytes(100)


def write(folder: Path, **files: bytes) -> None:
    for name, data in files.items():
        (folder / name).write_bytes(data)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.jfif", "JPEG"),
        ("a.JPE", "JPEG"),
        ("a.avif", "AVIF"),
        ("photo.jpg?1445", "JPEG"),
        ("photo", "PNG"),
        ("photo.png.download", "PNG"),
        ("notes.txt", "WEBP"),
        ("4", "GIF"),
        ("a.jp2", "JPEG2000"),
        ("a.ppm", "PPM"),
        ("a.dib", "DIB"),
        ("a.qoi", "QOI"),
        ("a.mpo", "MPO"),
        ("wrong.jpg", "AVIF"),
    ],
)
def test_a_picture_is_told_by_its_content(name: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(encoded(kind))
    collection = open_collection([tmp_path])
    assert (list(collection.ids()), dict(collection.skipped())) == ([name], {})
    assert collection.load(name).size == (16, 12)
    assert collection.stamp(name)


def written_formats() -> list[str]:
    PILImage.init()
    return sorted(PILImage.SAVE)


@pytest.mark.filterwarnings("ignore:IM image format")
@pytest.mark.parametrize("kind", written_formats())
def test_every_format_that_pillow_writes_is_read_or_skipped_with_a_reason(kind: str, tmp_path: Path) -> None:
    try:
        data = encoded(kind)
    except (OSError, ValueError, KeyError, TypeError):
        pytest.skip(f"Pillow writes no plain RGB picture as {kind}")
    (tmp_path / "picture").write_bytes(data)
    collection = FolderCollection(tmp_path)
    if list(collection.ids()) == ["picture"]:
        assert collection.load("picture").size == (16, 12)
    else:
        assert collection.skipped()["picture"]
        with pytest.raises(BrokenImageError, match="is no image"):
            collection.path("picture")


def test_what_is_no_picture_is_skipped_with_its_reason(tmp_path: Path) -> None:
    write(
        tmp_path,
        **{
            "sound.png": encoded("PNG"),
            "IMG_1.HEIC": heic(),
            "IMG_2": heic(b"mif1", b"mif1heic"),
            "new.jxl": b"\xff\x0a" + bytes(30),
            "raw.NEF": encoded("TIFF"),
            "notes.txt": b"seen at dusk",
            "sidecar.json": b"{}",
            "part.parquet": b"PAR1" + bytes(30),
            "Thumbs.db": b"\xd0\xcf\x11\xe0" + bytes(99),
            "nothing": b"",
            ".DS_Store": bytes(9),
            ".hidden.png": encoded("PNG"),
        },
    )
    (tmp_path / ".thumbs").mkdir()
    (tmp_path / ".thumbs" / "a.png").write_bytes(encoded("PNG"))
    os.mkfifo(tmp_path / "pipe")
    collection = FolderCollection(tmp_path)
    assert list(collection.ids()) == ["sound.png"]
    reasons = collection.skipped()
    expected = {
        "IMG_1.HEIC": "HEIC needs the package pillow-heif",
        "IMG_2": "HEIC needs the package pillow-heif",
        "new.jxl": "JPEG XL",
        "raw.NEF": "raw file",
        "notes.txt": "no picture in JPEG",
        "sidecar.json": "no picture in JPEG",
        "part.parquet": "give Parquet files by themselves",
        "Thumbs.db": "no picture in JPEG",
        "nothing": "empty",
        ".DS_Store": "hidden",
        ".hidden.png": "hidden",
        ".thumbs": "hidden",
        "pipe": "no regular file",
    }
    assert reasons.keys() == expected.keys()
    for name, part in expected.items():
        assert part in reasons[name]


def test_heic_under_another_name_says_so_when_it_is_opened(tmp_path: Path) -> None:
    (tmp_path / "IMG_1.jpg").write_bytes(heic())
    with pytest.raises(BrokenImageError, match="HEIC needs the package pillow-heif"):
        FolderCollection(tmp_path).load("IMG_1.jpg")
    with pytest.raises(BrokenImageError, match="HEIC"):
        open_image(heic(b"msf1", b"msf1hevc"), name="upload")
    assert why_undecoded(encoded("AVIF")) is None
    assert HEIC not in FORMATS


def test_an_unreadable_file_is_skipped_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    skipped = FolderCollection(tmp_path).skipped()
    assert skipped.keys() == {"loop", "gone"}
    assert "can't be read" in skipped["gone"] and "can't be read" in skipped["loop"]


def test_linked_folders_are_followed_inside_the_folder_and_named_otherwise(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "a" / "deep", root / ".store" / "2024", outside):
        folder.mkdir(parents=True)
    (root / "a" / "1.png").write_bytes(encoded("PNG"))
    (root / ".store" / "2024" / "2.png").write_bytes(encoded("PNG"))
    (outside / "3.png").write_bytes(encoded("PNG"))
    (root / "album").symlink_to(root / ".store" / "2024")
    (root / "again").symlink_to(root / "a")
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "deep" / "round").symlink_to(root / "a")
    (root / "elsewhere").symlink_to(outside)
    (root / "file").symlink_to(outside / "3.png")
    (root / "own").symlink_to(root / "a" / "1.png")
    collection = FolderCollection(root)
    assert list(collection.ids()) == ["a/1.png", "album/2.png", "own"]
    assert collection.load("album/2.png").size == (16, 12)
    reasons = collection.skipped()
    assert reasons.keys() == {".store", "again", "a/up", "a/deep/round", "elsewhere", "file"}
    assert "'a'" in reasons["again"] and "listed there" in reasons["again"]
    assert "outside" in reasons["elsewhere"] and "outside" in reasons["file"]
    for name in ("elsewhere/3.png", "file"):
        with pytest.raises(BrokenImageError, match="links outside"):
            collection.path(name)


def test_links_that_lead_to_each_other_many_times_are_listed_once(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f".{number}").mkdir()
        for name in ("x", "y"):
            (tmp_path / f".{number}" / name).symlink_to(tmp_path / f".{number + 1}")
    (tmp_path / ".40").mkdir()
    (tmp_path / ".40" / "a.png").write_bytes(encoded("PNG"))
    (tmp_path / "way").symlink_to(tmp_path / ".0")
    collection = FolderCollection(tmp_path)
    assert [name.rpartition("/")[2] for name in collection.ids()] == ["a.png"]


def test_a_folder_without_a_picture_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "IMG_1.HEIC").write_bytes(heic())
    with pytest.raises(ConfigError, match=r"holds no images.*skipped 1, such as 'IMG_1.HEIC': HEIC needs"):
        open_collection([tmp_path])


def test_the_index_lists_all_that_it_does_not_hold(photos: Path, clip: ClipEncoder, tmp_path: Path) -> None:
    (photos / "IMG_1.HEIC").write_bytes(heic())
    (photos / "photo.jpg?1445").write_bytes(encoded("JPEG"))
    report = build_index(FolderCollection(photos), clip, tmp_path / "index")
    assert report.indexed == 10
    assert report.skipped.keys() == {"IMG_1.HEIC", "broken.jpg", "notes.txt"}
    assert json.loads((tmp_path / "index" / "skipped.json").read_text()) == report.skipped
    assert read_skipped(tmp_path / "index") == report.skipped
    (tmp_path / "index" / "skipped.json").write_text("[" * 100_000)
    assert read_skipped(tmp_path / "index") == {}


def test_a_union_names_what_its_parts_skip(photos: Path) -> None:
    union = UnionCollection({"x/": FolderCollection(photos)})
    assert union.skipped().keys() == {"x/notes.txt"}
