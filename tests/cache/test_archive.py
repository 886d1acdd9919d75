"""The portable file: what is written is read, and whatever was cut off, altered or made up is refused in one line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.cache.archive import Archive, ArchiveLimits, looks_like_archive, write_archive
from fieldscope.core.errors import CacheError

LINES = [("run", '{"kind":"run"}'), *(("response", json.dumps({"n": n, "text": "x" * 50})) for n in range(200))]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "runs.fsr"
    write_archive(path, "model 1", LINES)
    return path


def made_up(path: Path, *lines: bytes) -> Path:
    path.write_bytes(gzip.compress(b"".join(lines)))
    return path


def header(**changes: object) -> bytes:
    told = {
        "format": "fieldscope-recording",
        "version": 1,
        "model": None,
        "counts": {},
        "size_bytes": 0,
        "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    }
    return json.dumps(told | changes).encode() + b"\n"


def refused(path: Path, limits: ArchiveLimits | None = None) -> str:
    """What the error says, on one line."""
    with pytest.raises(CacheError) as caught:
        (Archive(path, limits) if limits else Archive(path)).check()
    said = str(caught.value)
    assert "\n" not in said and len(said) < 300 and str(path) in said
    return said


def test_what_is_written_is_read(file: Path) -> None:
    archive = Archive(file)
    assert list(archive.lines()) == [f"{line}\n".encode() for _, line in LINES]
    assert list(archive.lines()) == [f"{line}\n".encode() for _, line in LINES], "and again"
    assert (archive.header.model, dict(archive.header.counts)) == ("model 1", {"response": 200, "run": 1})
    assert archive.header.size_bytes == sum(len(line) + 1 for _, line in LINES)
    assert file.stat().st_size < archive.header.size_bytes / 5
    assert [path.name for path in file.parent.iterdir()] == ["runs.fsr"]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r")), max_size=20))
def test_any_text_comes_back(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("any") / "a"
    write_archive(path, None, (("text", json.dumps(text, ensure_ascii=False)) for text in texts))
    assert [json.loads(line) for line in Archive(path).lines()] == texts


def test_it_is_plain_gzip_and_the_same_every_time(file: Path, tmp_path: Path) -> None:
    with gzip.open(file, "rt", encoding="utf-8") as stream:
        assert json.loads(stream.readline())["format"] == "fieldscope-recording"
        assert stream.readline() == '{"kind":"run"}\n'
    write_archive(tmp_path / "another", "model 1", LINES)
    assert (tmp_path / "another").read_bytes() == file.read_bytes()


def test_a_writing_that_fails_leaves_the_old_file(file: Path) -> None:
    def lines() -> Iterator[tuple[str, str]]:
        yield "a", "1"
        raise CacheError("a response is missing")

    before = file.read_bytes()
    with pytest.raises(CacheError, match="is missing"):
        write_archive(file, None, lines())
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["runs.fsr"]


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.7, 0.99])
def test_a_file_that_was_cut_off(file: Path, share: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    said = refused(file)
    assert "cut off" in said or "damaged" in said


def test_every_altered_byte_is_noticed(file: Path) -> None:
    content = file.read_bytes()
    before = list(Archive(file).lines())
    for place in range(20, len(content), max(1, len(content) // 60)):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        try:
            after = list(Archive(file).lines())
        except CacheError:
            continue
        assert after == before, f"byte {place}: padding and times do not matter, contents do"


def test_an_altered_line_is_noticed_though_the_file_is_sound(file: Path) -> None:
    text = gzip.decompress(file.read_bytes())
    made_up(file, text.replace(b'"n": 7,', b'"n": 8,'))
    assert "altered or cut off" in refused(file)
    made_up(file, text, b'{"more":1}\n')
    assert "altered or cut off" in refused(file)
    made_up(file, b"".join(text.splitlines(keepends=True)[:-1]))
    assert "altered or cut off" in refused(file)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"not json\n", "not an export of Fieldscope"),
        (b"[" * 100_000 + b"\n", "not an export of Fieldscope"),
        (b"", "not an export of Fieldscope"),
        (header(format="pickle"), "not an export of Fieldscope"),
        (header(size_bytes=-1), "not an export of Fieldscope"),
        (header(sha256="x"), "not an export of Fieldscope"),
        (header(surprise=1), "not an export of Fieldscope"),
        (header(version=9), "format 9, this Fieldscope reads 1"),
        (header(size_bytes=1 << 50), "at most 4,294,967,296 are read"),
    ],
)
def test_a_header_that_is_none(tmp_path: Path, line: bytes, words: str) -> None:
    assert words in refused(made_up(tmp_path / "hostile", line))


def test_what_is_no_archive_at_all(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(b"\x80\x04\x95 a pickle, say")
    assert "damaged or is not an export" in refused(plain)
    assert not looks_like_archive(plain)
    assert "can't read" in refused(tmp_path / "nowhere")
    assert "can't read" in refused(tmp_path)
    assert not looks_like_archive(tmp_path) and looks_like_archive(made_up(tmp_path / "zip", b""))


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    bomb = made_up(tmp_path / "bomb", header(size_bytes=10), b"0" * 50_000_000)
    assert bomb.stat().st_size < 100_000
    assert "over 1,000 bytes" in refused(bomb, ArchiveLimits(max_line=1000))
    long = made_up(tmp_path / "long", header(size_bytes=10), b"0" * 99 + b"\n" + b"1\n" * 5_000_000)
    assert "altered or cut off" in refused(long)
    endless = made_up(tmp_path / "endless", b"0" * 50_000_000)
    assert "not an export of Fieldscope" in refused(endless)


def test_a_folder_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match="can't write"):
        write_archive(tmp_path / "file" / "runs.fsr", None, LINES)
