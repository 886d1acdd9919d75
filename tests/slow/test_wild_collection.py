"""All photographs of a split of FieldNotes-Wild, drawn here, are the published ones; slow, as it draws hundreds."""

from __future__ import annotations

from pathlib import Path

import pytest

from fieldscope.fieldnotes.collection import ensure_pictures, published_checksums
from fieldscope.retrieval.images import open_image

pytestmark = [pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(900)]


def test_a_split_is_drawn_as_published_and_continued_after_an_interruption(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def draw() -> dict[str, Path]:
        return ensure_pictures("wild-validation", tmp_path, progress=lambda done, total: seen.append((done, total)))

    files = draw()
    assert seen[-1] == (800, 800) and seen == sorted(seen)
    assert (tmp_path / "verified.sha256").read_text() == published_checksums()["wild-validation"]
    assert open_image(files["1"]).size == (896, 672)
    for lost in ("3", "500"):
        files[lost].unlink()
    seen.clear()
    assert (
        ensure_pictures("wild-validation", tmp_path, progress=lambda done, total: seen.append((done, total))) == files
    )
    assert seen == [(800, 800)] and files["500"].is_file()
