"""What the tests that kill a run have in common: a process that tells which calls it makes, and when to strike."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from fieldscope.agent.lmm.base import LMM, LMMRequest, LMMResponse

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 300.0  # seconds; a busy machine starts Python slowly

# Forked off a process that has imported what they need, a run starts in no time and shares no thread with the tests.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.eval.killable_agent", "tests.eval.killable_run"])

_TURNS = 20
_BEYOND = 4  # calls that may begin after the last one that is waited for


class Noted:
    """Any LMM. `note` gets the key of each call as it begins; the answer takes some turns of the event loop, other ones
    from call to call and from run to run. Of a run to be killed only `most` calls are answered."""

    def __init__(self, lmm: LMM, note: Callable[[str], object], most: int = sys.maxsize) -> None:
        self._lmm = lmm
        self._note = note
        self._left = most
        self._chance = random.Random()

    @property
    def identity(self) -> str:
        return self._lmm.identity

    async def generate(self, request: LMMRequest) -> LMMResponse:
        self._note(request.key(self.identity))
        self._left -= 1
        if self._left < 0:
            await asyncio.Event().wait()
        for _ in range(self._chance.randrange(_TURNS)):
            await asyncio.sleep(0)
        return await self._lmm.generate(request)

    async def aclose(self) -> None:
        await self._lmm.aclose()


@dataclass(frozen=True)
class Killable:
    """A run in a process of its own, and the keys of the calls it makes."""

    process: BaseProcess
    notes: Connection

    def calls(self, most: int = sys.maxsize) -> list[str]:
        """The next calls, waited for: so many, or up to the process' end."""
        made: list[str] = []
        try:
            while len(made) < most:
                made.append(self.notes.recv())
        except EOFError:
            pass
        return made

    def ended(self) -> int | None:
        """The exit code, waited for."""
        self.process.join(PATIENCE)
        return self.process.exitcode


def run_killable(main: Callable[..., None], *arguments: Any) -> Killable:
    """`main(*arguments, notes)` in a process of its own; what is sent through `notes` is a call's key."""
    notes, noting = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=main, args=(*arguments, noting))
    process.start()
    noting.close()
    return Killable(process, notes)


def run_script(script: Path, *arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE)


def kill_again_and_again(
    start: Callable[[Path, int], Killable], folder: Path, kills: int, fewest: int, most: int
) -> set[str]:
    """Kill the run in `folder` so many times, each after `fewest` to `most` calls, then let it end; all its calls.

    `start` starts it in a folder, to answer so many calls.
    """
    chance = random.Random()
    ever_asked: set[str] = set()
    deaths = 0
    for attempt in range(kills + 1):
        before = committed(folder / "cache.sqlite")
        if attempt < kills:
            count = chance.randint(fewest, most)
            run = start(folder, count + chance.randint(0, _BEYOND))
            calls = run.calls(count)
            run.process.kill()
            calls += run.calls()
        else:
            run = start(folder, sys.maxsize)
            calls = run.calls()
        assert run.ended() in (0, -signal.SIGKILL)
        deaths += run.ended() != 0
        assert not before & set(calls), "a committed call was asked again"
        assert len(set(calls)) == len(calls), "a call was asked twice at once"
        ever_asked |= set(calls)
    assert run.ended() == 0
    assert deaths >= 1
    return ever_asked


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def committed(store: Path) -> set[str]:
    if not store.exists():
        return set()
    with closing(sqlite3.connect(store)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE name = 'entries'").fetchall()
        return {key for (key,) in connection.execute("SELECT key FROM entries")} if tables else set()
