"""The service counts what a collection's folder holds and can't be searched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fieldscope.service.cli.console import Terminal
from fieldscope.service.server.api.collections import open_collections
from fieldscope.service.wiring.feedback import listening
from tests.service.api.facts import COLLECTION, FactsEncoder, painted, settings_of

pytestmark = pytest.mark.usefixtures("terminal")


@pytest.fixture(autouse=True)
def terminal() -> Iterator[None]:
    """The command line's listener."""
    with listening(Terminal()):
        yield


@pytest.mark.parametrize("encoder", [FactsEncoder(), None])
def test_what_is_skipped_is_counted_with_the_reason(
    encoder: FactsEncoder | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    painted(tmp_path / "pictures")
    for name in ("a.txt", "b.txt"):
        (tmp_path / "pictures" / name).write_text("seen at dusk")
    (tmp_path / "pictures" / ".DS_Store").write_bytes(b"\0")
    served = open_collections(settings_of(tmp_path), encoder)[COLLECTION]
    assert (served.library is None) == (encoder is None)
    told = capsys.readouterr().err
    assert told.startswith(f"note: collection '{COLLECTION}': skipped 3: .DS_Store: hidden")
    assert "a.txt, b.txt: no picture in JPEG" in told and told.count("\n") == 1


def test_an_index_says_what_it_does_not_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    painted(tmp_path / "pictures")
    (tmp_path / "pictures" / "a.txt").write_text("seen at dusk")
    open_collections(settings_of(tmp_path), FactsEncoder())
    (index,) = (tmp_path / "data" / "indexes").iterdir()
    capsys.readouterr()
    settings = settings_of(tmp_path).model_copy(update={"collections": {COLLECTION: index}})
    open_collections(settings, FactsEncoder())
    assert "skipped 1: a.txt: no picture in JPEG" in capsys.readouterr().err


def test_a_clean_folder_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    painted(tmp_path / "pictures")
    open_collections(settings_of(tmp_path), FactsEncoder())
    assert capsys.readouterr().err == ""
