"""The viewer in a real browser: over real FieldNotes runs of four strategies, live and exported.

The runs are made once a session, with the bundled models; answers come from the user's response cache where they were
given before. A page that a test opens may write nothing to the console and ask no other host: that is checked as each
test ends.
"""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import urlencode

import pytest
from click.testing import CliRunner
from fastapi import FastAPI
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright
from uvicorn import Config, Server

import fieldscope.eval.runs.ledger
from fieldscope.core.paths import cache_folder
from fieldscope.service.cli.main import cli
from fieldscope.service.viewer.export import export
from fieldscope.service.viewer.runs.run import Run
from fieldscope.service.viewer.runs.run_list import RunList
from fieldscope.service.viewer.server import create_viewer
from fieldscope.service.viewer.site import Site
from tests.service.viewer import shelves

STRATEGIES = ("clip", "predicates", "agent", "pairwise")
QUERIES = ("q003", "q009", "q125", "q152")
"""Queries of FieldNotes' test split. The second is one on which the model errs."""

CACHE = cache_folder()
"""The user's own: tests have others, which are empty."""

SCREENSHOTS = Path(__file__).resolve().parents[2] / "build" / "screenshots"
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
)  # fmt: skip

PATIENCE = 30_000  # milliseconds: the tests may share their cores with another suite

Made = TypeVar("Made")
Scheme = Literal["light", "dark"]
Kind = Literal["live", "export"]


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> RunList:
    """Four strategies over four queries. It counts for no one's ledger of test scores."""
    folder = tmp_path_factory.mktemp("ui")
    only = folder / "queries.txt"
    only.write_text("".join(f"{query}\n" for query in QUERIES))
    root = folder / "runs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDSCOPE_CACHE", str(CACHE))
        patch.setattr(fieldscope.eval.runs.ledger, "cache_folder", lambda: folder)
        wanted = ["eval", "fieldnotes-rerank", "--strategy", *STRATEGIES, "--only", str(only), "--out", str(root)]
        made = aside(lambda: CliRunner().invoke(cli, wanted))
    assert made.exit_code == 0, made.output
    return RunList(root, store=CACHE / "responses.sqlite")


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> RunList:
    """A run whose every text is hostile."""
    folder = tmp_path_factory.mktemp("ui-hostile")
    return aside(lambda: shelves.hostile(folder)).shelf()


def aside(make: Callable[[], Made]) -> Made:
    """What `make` returns, in a thread of its own: a browser that is open has this one's event loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(make).result()


@dataclass(frozen=True)
class Place:
    """Where a site is opened: `root` is the address of its folder, with the slash at its end."""

    kind: Kind
    root: str
    shelf: RunList

    def url(self, address: str, state: dict[str, str] | None = None) -> str:
        """A page of the site in a state."""
        return f"{self.root}{address}" + (f"?{urlencode(state)}" if state else "")

    def run(self, key: str) -> Run:
        """A run as its files have it."""
        run = self.shelf.run(key)
        assert run is not None
        return run


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """The address of an application behind a server of this process."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        server = Server(Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        server.should_exit = True
        thread.join()


@contextmanager
def served(shelf: RunList) -> Iterator[Place]:
    """The shelf behind a server of this process."""
    with running(create_viewer(Site(shelf, live=True))) as address:
        yield Place("live", address, shelf)


def exported(shelf: RunList, folder: Path) -> Place:
    """The shelf as files."""
    export(Site(shelf, live=False), folder, originals=True)
    return Place("export", f"{folder.as_uri()}/", shelf)


@pytest.fixture(scope="session")
def live(runs: RunList) -> Iterator[Place]:
    with served(runs) as place:
        yield place


@pytest.fixture(scope="session")
def export_of_runs(runs: RunList, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return exported(runs, tmp_path_factory.mktemp("ui-export") / "site")


@pytest.fixture(params=["live", "export"])
def place(request: pytest.FixtureRequest) -> Place:
    """The real runs, live and exported in turn."""
    found = request.getfixturevalue("live" if request.param == "live" else "export_of_runs")
    assert isinstance(found, Place)
    return found


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        pytest.fail("no chromium on this machine: apt-get install chromium", pytrace=False)
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield started
        started.close()


@dataclass
class Visitor:
    """Somebody with a browser, and what the browser said and asked for meanwhile. `forgiven` are beginnings of console
    messages that a test expects."""

    page: Page
    told: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    forgiven: Sequence[str] = ()

    def goes(self, place: Place, address: str, **state: str) -> Page:
        """Open a page of a site, in a state, and wait for its pictures."""
        self.page.goto(place.url(address, state))
        return self.settled()

    def settled(self) -> Page:
        """The page when what it shows first is there."""
        self.page.wait_for_load_state("load")
        return self.page

    def shot(self, name: str, full: bool = False) -> None:
        """A picture of what is to be seen, in `build/screenshots`."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.wait_for_load_state("networkidle")
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=full)

    def check(self) -> None:
        """Nothing was wrong, and nobody else was asked for anything."""
        assert [told for told in self.told if not told.startswith(tuple(self.forgiven) or "\0")] == []
        assert [url for url in self.asked if not url.startswith(("http://127.0.0.1:", "file:///", "data:"))] == []


Arrive = Callable[..., Visitor]


@pytest.fixture
def arrive(browser: Browser) -> Iterator[Arrive]:
    """`arrive(scheme, width)` is a new visitor, whose every page is checked in the end."""
    visitors: list[Visitor] = []

    def made(scheme: Scheme = "light", width: int = 1280, height: int = 900, scripts: bool = True) -> Visitor:
        context = browser.new_context(
            color_scheme=scheme,
            viewport={"width": width, "height": height},
            java_script_enabled=scripts,
            reduced_motion="reduce",  # what is half faded in has no contrast yet
        )
        visitor = Visitor(context.new_page())

        def heard(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                visitor.told.append(message.text)

        def asked(request: Request) -> None:
            visitor.asked.append(request.url)

        visitor.page.on("console", heard)
        visitor.page.on("pageerror", lambda error: visitor.told.append(str(error)))
        visitor.page.on("request", asked)
        visitors.append(visitor)
        return visitor

    yield made
    for visitor in visitors:
        visitor.page.context.close()
        visitor.check()


@pytest.fixture
def visitor(arrive: Arrive) -> Visitor:
    """In light colours, at a desk."""
    return arrive()
