"""Exports the site as a folder of files, which a browser opens without a server."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import posixpath
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from html import unescape
from pathlib import Path
from typing import TypeVar, cast

from PIL import Image as PILImage

from fieldscope.core.errors import ConfigError, FieldscopeError
from fieldscope.core.files import replace_file
from fieldscope.core.fingerprint import fingerprint
from fieldscope.service.viewer import addresses
from fieldscope.service.viewer.pictures import Pictures, Size
from fieldscope.service.viewer.runs.annotations import as_csv
from fieldscope.service.viewer.runs.run_list import RunList, stamp
from fieldscope.service.viewer.site import Site
from fieldscope.service.wiring.feedback import progress

Pool = TypeVar("Pool", bound=Executor)

MARKER = "fieldscope-export.json"
"""The file that marks a folder as an export and identifies its content. Files older than it are written again."""

_HERE = Path(__file__).parent
_CHUNK = 50  # pages that a process writes at once: those of one query share what was read of it
_FEW = 300  # pages for which it does not pay to start processes
_MOST_WORKERS = 8
_DECODERS = 2  # threads
_LINK = re.compile(r' href="([^"?#:]+\.html)(?:[?#][^"]*)?"')
_LIGHT_SIDE, _LIGHT_QUALITY = 112, 45  # pixels, and WebP's quality
_PICTURE = re.compile(r'"(?:\.\./)*((thumbnails|pictures)/([0-9a-z]+)/([\w.~-]+)\.webp)"')


@dataclass(frozen=True)
class Exported:
    """The number of pages and images in the folder."""

    pages: int
    pictures: int


@dataclass(frozen=True)
class _Pages:
    """Pages for a process to write. Links to others than the `linked` ones are left out; None keeps all links."""

    root: Path
    images: Path | None
    store: Path | None
    folder: Path
    addresses: tuple[str, ...]
    linked: frozenset[str] | None


def export(site: Site, folder: Path, *, originals: bool = False, light: bool = False) -> Exported:
    """Write every page of the site with its styles, scripts and images into `folder`. Large images are exported as
    thumbnails unless `originals` is set.

    A `light` export takes a tenth of the size: it has no page for each image of a query, compares each two runs in one
    order, and query by query only all runs together; its pages are those of a light site, its thumbnails smaller.

    Each file is written completely or not at all. A repeated call continues where an earlier one stopped; after a
    change of the runs or the viewer, it writes everything again. Obsolete pages are not deleted. Raises `ConfigError`,
    with nothing written, for a folder that contains anything but an export.
    """
    _claim(folder, _identity(site, originals, light))
    for path in sorted((_HERE / "static").iterdir()):
        replace_file(folder / addresses.static(path.name), path.read_bytes())
    pages = _light(list(_addresses(site))) if light else list(_addresses(site))
    linked = frozenset(pages) if light else None
    found: set[str] = set()
    of = (site.run_list.root, site.run_list.images, site.run_list.store, folder)
    chunks = [_Pages(*of, tuple(pages[at : at + _CHUNK]), linked) for at in range(0, len(pages), _CHUNK)]
    with _workers(len(pages)) as spread, progress("writing pages") as report:
        report(0, len(pages))
        for done, pictures in enumerate(spread(_write_pages, chunks), start=1):
            found |= pictures
            report(min(done * _CHUNK, len(pages)), len(pages))
    for run in site.run_list.runs():
        if run.problem is None:
            replace_file(folder / addresses.annotations_file(run.key), as_csv(run).encode())
    _write_pictures(site.run_list, folder, sorted(found), originals, light)
    return Exported(len(pages), len(found))


def _claim(folder: Path, identity: str) -> None:
    """Mark the folder as this export, new or continued."""
    marker = folder / MARKER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not marker.is_file() and any(folder.iterdir()):
            raise ConfigError(f"{folder} is not empty and is no export. Choose another folder.")
        content = f"{json.dumps({'export': identity})}\n".encode()
        if not marker.is_file() or marker.read_bytes() != content:
            replace_file(marker, content)
    except OSError as error:
        raise ConfigError(
            f"can't write to {folder}: {error.strerror}. Choose another folder, or free some disk space."
        ) from error


def _light(pages: Sequence[str]) -> list[str]:
    """The pages of a light export."""
    compared = {address: frozenset(addresses.compared(address.split("/")[1])) for address in pages if "/" in address}
    comparisons = {runs for address, runs in compared.items() if address.startswith("compare/")}
    kept: dict[tuple[object, ...], str] = {}
    for address in pages:
        match address.split("/"):
            case ["runs", _, "queries", _, "images", _]:
                continue
            case ["compare", _, "queries", _] if any(compared[address] < others for others in comparisons):
                continue
            case ["compare", _, *below]:
                kept.setdefault((compared[address], *below), address)
            case _:
                kept[address,] = address
    return list(kept.values())


def _identity(site: Site, originals: bool, light: bool) -> str:
    """A fingerprint of what the files are made from: the runs, their marks, and the viewer itself."""
    runs = {}
    for run in site.run_list.runs():
        marks = "" if run.problem else as_csv(run)
        runs[run.key] = [str(run.folder.resolve()), repr(stamp(run.folder)), marks]
    viewer = {
        path.relative_to(_HERE).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(_HERE.rglob("*"))
        if path.suffix in (".py", ".html", ".css", ".js", ".svg")
    }
    run_list = [str(site.run_list.images), str(site.run_list.store)]
    return fingerprint({"runs": runs, "viewer": viewer, "run_list": run_list, "originals": originals, "light": light})


def _addresses(site: Site) -> Iterator[str]:
    """All pages; runs that can't be shown have a page that says why."""
    yield from site.addresses()
    yield from (addresses.run_page(run.key) for run in site.run_list.runs() if run.problem is not None)


@contextmanager
def _workers(pages: int) -> Iterator[Callable[[Callable[[_Pages], set[str]], Sequence[_Pages]], Iterator[set[str]]]]:
    """A `map` over one process per core, or within this process for few pages."""
    if pages <= _FEW:
        yield map
        return
    workers = min(os.cpu_count() or 1, _MOST_WORKERS)
    fresh = multiprocessing.get_context("spawn")  # a progress bar has a thread, which a fork would not survive
    with _cancelling(ProcessPoolExecutor(workers, fresh, _leave_interrupts)) as processes:
        yield processes.map


@contextmanager
def _cancelling(pool: Pool) -> Iterator[Pool]:
    """Cancel pending work on an interruption."""
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts() -> None:
    """Ctrl-C reaches every process; the first one ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@lru_cache(maxsize=1)
def _site(root: Path, images: Path | None, store: Path | None, light: bool) -> Site:
    return Site(RunList(root, images, store), live=False, light=light)


def _write_pages(chunk: _Pages) -> set[str]:
    """Write the missing pages, and return the addresses of the images that all of them show."""
    site = _site(chunk.root, chunk.images, chunk.store, chunk.linked is not None)
    found: set[str] = set()
    for address in chunk.addresses:
        path = chunk.folder / address
        if _is_written(path, chunk.folder):
            html = path.read_text(encoding="utf-8")
        else:
            try:
                page = site.page(address)
            except FieldscopeError as error:
                page = site.missing(address, str(error))
            html = site.render(page)
            if chunk.linked is not None:
                html = _without_dead_links(html, address, chunk.linked)
            replace_file(path, html.encode())
        found |= {match[1] for match in _PICTURE.finditer(html)}
    return found


def _without_dead_links(html: str, address: str, linked: frozenset[str]) -> str:
    """A page without links to pages that are not exported; their words stay."""

    def kept(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(address), unescape(link[1])))
        return link[0] if target in linked else ""

    return _LINK.sub(kept, html)


def _write_pictures(run_list: RunList, folder: Path, found: Sequence[str], originals: bool, light: bool) -> None:
    pictures = Pictures(run_list)

    def write(address: str) -> None:
        path = folder / address
        if not _is_written(path, folder):
            size, collection, name = address.split("/")
            wanted = cast(Size, size) if originals else "thumbnails"
            webp = pictures.picture(wanted, collection, name.removesuffix(".webp")).webp
            replace_file(path, _smaller(webp) if light and not originals else webp)

    with _cancelling(ThreadPoolExecutor(_DECODERS)) as threads, progress("writing pictures") as report:
        for done, _ in enumerate(threads.map(write, found), start=1):
            report(done, len(found))


def _smaller(webp: bytes) -> bytes:
    with PILImage.open(io.BytesIO(webp)) as image:
        image.thumbnail((_LIGHT_SIDE,) * 2, PILImage.Resampling.LANCZOS)
        stream = io.BytesIO()
        image.save(stream, "WEBP", quality=_LIGHT_QUALITY, method=4)
    return stream.getvalue()


def _is_written(path: Path, folder: Path) -> bool:
    """Whether a file was written by this export."""
    try:
        return path.stat().st_mtime_ns >= (folder / MARKER).stat().st_mtime_ns
    except OSError:
        return False
