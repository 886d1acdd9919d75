"""A full or read-only disk under any command is one line, whatever was being written."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

import fieldscope.service.cli.commands.strategies
from fieldscope.core.errors import ConfigError
from fieldscope.service.cli.files import copy_all, write_text
from tests.service.conftest import Run


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EFBIG])
def test_a_disk_that_takes_nothing_is_no_fault_to_report(
    run: Run, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number), str(Path("there") / "file"))

    monkeypatch.setattr(fieldscope.service.cli.commands.strategies, "_payload", fail)
    result = run("strategies", "list", "--json")
    assert result.exit_code == 1
    told = f"can't write there/file ({os.strerror(number)}). Check that the disk is not full and can be written"
    assert result.stderr == f"error: {told}\n"


@pytest.fixture
def little_room() -> Iterator[None]:
    """No file can grow beyond 4 KiB, as on a disk that is nearly full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("little_room")
def test_half_a_picture_is_not_left_behind(tmp_path: Path) -> None:
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    small.write_bytes(b"x" * 100)
    large.write_bytes(b"x" * 4000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    with pytest.raises(ConfigError, match="after 1 files; choose another folder, or free some disk space"):
        copy_all([small, large], tmp_path / "copies")
    assert [file.name for file in (tmp_path / "copies").iterdir()] == ["small.png"]


@pytest.mark.usefixtures("little_room")
def test_a_table_that_does_not_fit_leaves_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text("old")
    with pytest.raises(ConfigError, match=r"can't write .*table\.csv"):
        write_text(file, "x" * 100_000)
    assert file.read_text() == "old"
