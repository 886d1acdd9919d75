"""A file is replaced whole or stays as it was, and a private one is closed to others."""

from __future__ import annotations

from pathlib import Path

import pytest

from fieldscope.core.files import replace_file, replacing


def test_missing_folders_are_made_and_line_breaks_stay(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    replace_file(path, "a\r\né\n", durable=True)
    assert path.read_bytes() == b"a\r\n\xc3\xa9\n"
    replace_file(path, b"\x00")
    assert path.read_bytes() == b"\x00"
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_old_content_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    replace_file(path, "old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_private_file_and_its_folder_are_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "file.txt"
    replace_file(path, "secret", private=True)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
