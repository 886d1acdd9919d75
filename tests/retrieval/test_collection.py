"""Collections hand out what lies inside them, once decoded, and nothing from outside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage

from fieldscope.core.errors import BrokenImageError, ConfigError
from fieldscope.core.fingerprint import fingerprint_pixels
from fieldscope.retrieval import collection as module
from fieldscope.retrieval.collection import FilesCollection, FolderCollection
from fieldscope.retrieval.images import open_image
from fieldscope.retrieval.lru import ByteLru
from fieldscope.retrieval.opening import open_collection, reopen_collection


def test_ids_are_sorted_paths_below_the_folder(photos: Path) -> None:
    collection = FolderCollection(photos)
    assert list(collection.ids()) == [f"{n}.png" for n in range(6)] + [f"below/{n}.png" for n in (6, 7, 8)] + [
        "broken.jpg"
    ]
    assert len(collection) == 10
    assert collection.load("below/7.png").size == (37, 20)


def test_hidden_files_do_not_count(tmp_path: Path) -> None:
    for name in ("a.JPG", "b.Tiff", ".c.png", ".thumbs/d.png", "e.txt", "f"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        PILImage.new("RGB", (2, 2)).save(tmp_path / name, "PNG")
    collection = FolderCollection(tmp_path)
    assert list(collection.ids()) == ["a.JPG", "b.Tiff", "e.txt", "f"]
    with pytest.raises(BrokenImageError, match="no image id"):
        collection.load(".thumbs/d.png")


def test_a_broken_file_is_an_error_of_its_own(photos: Path) -> None:
    collection = FolderCollection(photos)
    with pytest.raises(BrokenImageError, match=r"'broken\.jpg'"):
        collection.load("broken.jpg")
    assert collection.pixel_hash("0.png") == fingerprint_pixels(PILImage.open(photos / "0.png"))


@pytest.mark.parametrize(
    "image_id",
    [
        "../secret.png",
        "below/../../secret.png",
        "below/../0.png",
        "./0.png",
        "below//6.png",
        "",
        ".",
        "..",
        "0.png\x00",
    ],
)
def test_ids_that_leave_the_folder_or_alias_are_refused(photos: Path, image_id: str) -> None:
    PILImage.new("RGB", (2, 2)).save(photos.parent / "secret.png")
    with pytest.raises(BrokenImageError):
        FolderCollection(photos).load(image_id)


def test_an_absolute_id_is_refused(photos: Path) -> None:
    for path in (photos.parent / "secret.png", photos / "0.png"):
        PILImage.new("RGB", (2, 2)).save(path)
        with pytest.raises(BrokenImageError):
            FolderCollection(photos).load(str(path))


def test_links_out_of_the_folder_are_refused_and_links_inside_are_followed(photos: Path) -> None:
    outside = photos.parent / "outside"
    outside.mkdir()
    PILImage.new("RGB", (2, 2)).save(outside / "secret.png")
    (photos / "out.png").symlink_to(outside / "secret.png")
    (photos / "folder").symlink_to(outside)
    (photos / "in.png").symlink_to(photos / "below" / "6.png")
    (photos / "loop.png").symlink_to(photos / "loop.png")
    collection = FolderCollection(photos)
    assert "out.png" in collection.ids() and "folder/secret.png" not in collection.ids()
    for image_id in ("out.png", "folder/secret.png"):
        with pytest.raises(BrokenImageError, match="links outside"):
            collection.load(image_id)
        with pytest.raises(BrokenImageError):
            collection.stamp(image_id)
    with pytest.raises(BrokenImageError):
        collection.load("loop.png")
    assert collection.load("in.png").size == (36, 20)


@settings(deadline=None)
@given(image_id=st.text(alphabet="./ab\\~%\x00", max_size=12).map(lambda text: text + "secret.png"))
def test_no_id_reaches_outside(tmp_path_factory: pytest.TempPathFactory, image_id: str) -> None:
    base = tmp_path_factory.getbasetemp() / "reach"
    if not base.exists():
        (base / "root" / "a").mkdir(parents=True)
        PILImage.new("RGB", (2, 2)).save(base / "secret.png")
        PILImage.new("RGB", (3, 3)).save(base / "root" / "secret.png")
        PILImage.new("RGB", (3, 3)).save(base / "root" / "a" / "secret.png")
    try:
        assert FolderCollection(base / "root").load(image_id).size == (3, 3)
    except BrokenImageError:
        assert image_id not in {"secret.png", "a/secret.png"}


def test_a_name_that_is_no_utf8_is_listed_and_named(photos: Path) -> None:
    try:
        (photos / os.fsdecode(b"caf\xe9.png")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    collection = FolderCollection(photos)
    (name,) = (image_id for image_id in collection.ids() if image_id.startswith("caf"))
    assert name.encode("utf-8") == b"caf\\xe9.png"
    with pytest.raises(BrokenImageError):
        collection.stamp(name)


def test_load_and_pixel_hash_decode_once(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str | None] = []

    def counting(*args: object, name: str | None = None, **more: object) -> PILImage.Image:
        opened.append(name)
        return open_image(*args, name=name, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "open_image", counting)
    collection = FolderCollection(photos)
    first = collection.pixel_hash("0.png")
    assert collection.load("0.png") is collection.load("0.png")
    assert collection.pixel_hash("0.png") == first
    assert opened == ["0.png"]


def test_the_decoded_pictures_held_are_bounded() -> None:
    lru: ByteLru[str] = ByteLru(10)
    lru.put("a", "A", 4)
    lru.put("b", "B", 4)
    assert lru.get("a") == "A"
    lru.put("c", "C", 4)
    assert (lru.get("a"), lru.get("b"), lru.get("c")) == ("A", None, "C")
    lru.put("c", "C2", 6)
    assert (lru.get("a"), lru.get("c")) == ("A", "C2")
    lru.put("d", "D", 100)
    assert (lru.get("a"), lru.get("c"), lru.get("d")) == (None, None, "D")
    lru.put("e", "E", 10)
    assert (lru.get("d"), lru.get("e")) == (None, "E")


def test_the_stamp_follows_the_file(photos: Path) -> None:
    collection = FolderCollection(photos)
    before = collection.stamp("0.png")
    assert collection.stamp("0.png") == before
    os.utime(photos / "0.png", ns=(1, 1))
    assert collection.stamp("0.png") != before


def test_files_go_by_the_names_they_were_given(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    collection = open_collection([Path("below/6.png"), Path("0.png")])
    assert list(collection.ids()) == ["below/6.png", "0.png"]
    with pytest.raises(BrokenImageError, match="none of the 2 files"):
        collection.load("1.png")
    monkeypatch.chdir(photos.parent)
    reopened = reopen_collection(collection.locator())
    assert list(reopened.ids()) == ["below/6.png", "0.png"]
    assert reopened.load("below/6.png").size == (36, 20)


def test_a_folder_is_reopened_from_anywhere(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos.parent)
    locator = open_collection([Path("photos")]).locator()
    monkeypatch.chdir("/")
    assert len(reopen_collection(locator)) == 10
    with pytest.raises(ConfigError, match="unknown kind"):
        reopen_collection({"kind": "bucket"})
    with pytest.raises(ConfigError, match="is not a folder"):
        reopen_collection({"kind": "folder", "root": str(photos / "gone")})


def test_paths_that_make_no_collection_say_why(photos: Path) -> None:
    empty = photos / "empty"
    empty.mkdir()
    for paths, reason in (
        ([], "no images were given"),
        ([photos / "gone"], "gone' does not exist"),
        ([photos, photos / "0.png"], "give one folder, or files only"),
        ([empty], r"holds no images \(JPEG, PNG"),
    ):
        with pytest.raises(ConfigError, match=reason):
            open_collection(paths)


def test_a_chosen_file_is_taken_as_it_is(photos: Path) -> None:
    (photos / "link.dat").symlink_to(photos / "0.png")
    assert FilesCollection({"x": photos / "link.dat"}).load("x").size == (30, 20)
