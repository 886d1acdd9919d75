"""The site as files: whole, without a dead link, taken up where it stopped, and never over something else."""

from __future__ import annotations

import io
from html.parser import HTMLParser
from pathlib import Path
from posixpath import dirname, join, normpath
from urllib.parse import urlsplit

import pytest
from PIL import Image as PILImage

import fieldscope.service.viewer.export
from fieldscope.core.errors import ConfigError
from fieldscope.eval.runs.annotations import Annotation, annotate
from fieldscope.service.viewer.export import MARKER, export
from fieldscope.service.viewer.site import Site
from tests.service.conftest import Run
from tests.service.viewer import shelves
from tests.service.viewer.shelves import Made


class Links(HTMLParser):
    """Every address that a page names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {value for name, value in attrs if name in ("href", "src") and value}


def dead_links(folder: Path) -> list[tuple[str, str]]:
    """(page, link) for each link that leads to no file, or away from the folder."""
    dead = []
    for page in folder.rglob("*.html"):
        here = page.relative_to(folder).as_posix()
        for link in Links(page.read_text(encoding="utf-8")).found:
            parts = urlsplit(link)
            away = parts.scheme or parts.netloc or link.startswith("/")
            if away or (parts.path and not (folder / normpath(join(dirname(here), parts.path))).is_file()):
                dead.append((here, link))
    return dead


def files(folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()
    }


def test_an_export_is_whole(few: Made, tmp_path: Path) -> None:
    site, out = Site(few.shelf(), live=False), tmp_path / "out"
    annotate(few.run("agent"), Annotation(query_id="q00", image_id="x", mark="right", note="seen"))
    done = export(site, out)
    pages = list(site.addresses())
    assert done.pages == len(pages)
    for address in pages:
        assert (out / address).is_file()
    assert dead_links(out) == []
    assert (out / "runs" / "agent" / "annotations.csv").read_text().count("\n") == 2
    assert not [name for name in files(out) if name.endswith(".part")]
    page = (out / "runs" / "agent" / "annotations.html").read_text()
    assert "seen" in page
    assert "<form method" not in page


def test_a_light_export_has_no_image_pages_and_no_dead_link(few: Made, tmp_path: Path) -> None:
    whole, light = tmp_path / "whole", tmp_path / "light"
    export(Site(few.shelf(), live=False), whole)
    done = export(Site(few.shelf(), live=False), light, light=True)
    pages = [name for name in files(light) if name.endswith(".html")]
    assert len(pages) == done.pages
    assert {name.rpartition("/images/")[0] for name in files(whole) if "/images/" in name}
    assert not [name for name in pages if "/images/" in name]
    assert [name for name in pages if name.startswith("compare/")]
    assert dead_links(light) == []
    size = {folder: sum((folder / name).stat().st_size for name in files(folder)) for folder in (whole, light)}
    assert size[light] < size[whole] / 3
    query = next(name for name in pages if "/queries/" in name and name.startswith("runs/"))
    assert 'href="../../../../index.html"' in (light / query).read_text()
    assert "?view=matrix#ranking" in (light / query).read_text()


@pytest.mark.slow
def test_a_light_export_of_20_queries_and_4_strategies_is_under_15_mb(tmp_path: Path) -> None:
    made = shelves.big(tmp_path / "made", queries=20, runs=4)
    for number, path in enumerate(sorted(made.images.glob("*.png"))):  # of noise, which compresses worst
        PILImage.effect_noise((160, 160), 20 + number % 60).convert("RGB").save(path)
    out = tmp_path / "out"
    export(Site(made.shelf(), live=False), out, light=True)
    assert sum((out / name).stat().st_size for name in files(out)) < 15_000_000
    assert dead_links(out) == []


def test_hostile_ids_become_files_that_are_linked(hostile_shelf: Made, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(Site(hostile_shelf.shelf(), live=False), out)
    assert dead_links(out) == []
    assert {path.parent.resolve().is_relative_to(out.resolve()) for path in out.rglob("*")} == {True}
    assert len(list((out / "thumbnails").rglob("*.webp"))) == 3


def test_originals_only_where_they_are_asked_for(few: Made, tmp_path: Path) -> None:
    PILImage.new("RGB", (800, 400), "red").save(few.images / "00.png")
    try:
        sizes = []
        for originals in (False, True):
            out = tmp_path / str(originals)
            export(Site(few.shelf(), live=False), out, originals=originals)
            (picture,) = (out / "pictures").rglob("00.png.webp")
            with PILImage.open(io.BytesIO(picture.read_bytes())) as image:
                sizes.append(image.size)
        assert sizes == [(160, 80), (800, 400)]
    finally:
        shelves.paint(few.images)


def test_it_goes_on_where_it_stopped(few: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site, out = Site(few.shelf(), live=False), tmp_path / "out"
    write = fieldscope.service.viewer.export.replace_file
    left = 60

    def until_killed(path: Path, data: bytes) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise KeyboardInterrupt
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(fieldscope.service.viewer.export, "replace_file", until_killed)
        with pytest.raises(KeyboardInterrupt):
            export(site, out)
    before = {name: when for name, when in files(out).items() if name.endswith(".html")}
    assert 20 < len(before) < 59
    export(site, out)
    after = files(out)
    assert {name: after[name] for name in before} == before
    assert dead_links(out) == []


def test_a_run_that_changed_is_written_anew(few: Made, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(Site(few.shelf(), live=False), out)
    before = files(out)
    export(Site(few.shelf(), live=False), out)
    assert {name: when for name, when in files(out).items() if name.endswith((".html", ".webp"))} == {
        name: when for name, when in before.items() if name.endswith((".html", ".webp"))
    }
    annotate(few.run("agent"), Annotation(query_id="q00", image_id="x", mark="right", note="late"))
    export(Site(few.shelf(), live=False), out)
    assert "late" in (out / "runs" / "agent" / "annotations.html").read_text()
    after = files(out)
    assert all(after[name] > when for name, when in before.items() if name.endswith(".html"))


def test_something_else_is_not_overwritten(small: Made, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("my page")
    for folder in (tmp_path / "mine", small.root):
        before = files(folder)
        with pytest.raises(ConfigError, match="is no export"):
            export(Site(small.shelf(), live=False), folder)
        assert files(folder) == before
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="can't write"):
        export(Site(small.shelf(), live=False), tmp_path / "file")


def test_runs_that_can_not_be_shown_say_so(small: Made, tmp_path: Path) -> None:
    shelves.newer(small.run("agent"))
    shelves.half_written(small.run("predicates"))
    out = tmp_path / "out"
    export(Site(small.shelf(), live=False), out)
    assert "another version" in (out / "runs" / "agent" / "index.html").read_text()
    assert dead_links(out) == []


def test_many_pages_are_written_by_several_processes(
    few: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(few.shelf(), live=False)
    one, several = tmp_path / "one", tmp_path / "several"
    export(site, one)
    monkeypatch.setattr(fieldscope.service.viewer.export, "_FEW", 0)
    export(site, several)
    assert {p: (several / p).read_bytes() for p in files(several)} == {p: (one / p).read_bytes() for p in files(one)}


def test_the_command(few: Made, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shown = run("view", few.root, "--export", out)
    assert shown.exit_code == 0
    assert "pages and " in shown.stdout
    assert str(out / "index.html") in shown.stdout
    assert (out / MARKER).is_file()
    assert run("view", few.root, "--export", few.root).exit_code == 1


def test_the_commands_errors(run: Run, tmp_path: Path) -> None:
    missing = run("view", tmp_path / "none")
    assert (missing.exit_code, missing.stderr.count("\n")) == (1, 1)
    assert "is no folder" in missing.stderr
    assert "--originals" in run("view", tmp_path, "--originals").stderr
    assert "does not exist" in run("view", tmp_path, "--images", tmp_path / "none", "--export", tmp_path / "x").stderr
    empty = tmp_path / "empty"
    empty.mkdir()
    shown = run("view", empty, "--export", tmp_path / "out")
    assert shown.exit_code == 0
    assert "There is no run in" in shown.stderr
    assert (tmp_path / "out" / "index.html").is_file()
