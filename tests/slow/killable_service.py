"""A service to be killed: `killable_service.py FOLDER PORT ASKED`. Its model tells the truth about painted pictures,
after a while that differs from call to call, and notes each call in ASKED."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

import uvicorn

from fieldscope.agent.lmm.base import LMMRequest, LMMResponse
from fieldscope.service.server.app import create_app
from tests.agent.oracle import oracle_of
from tests.eval.killing import Noted
from tests.service.api.facts import FactsEncoder, painted, settings_of

SLOWEST = 0.05  # seconds


class Slow(Noted):
    """Takes its time, so that there is a middle to be killed in."""

    async def generate(self, request: LMMRequest) -> LMMResponse:
        await asyncio.sleep(random.uniform(0, SLOWEST))
        return await super().generate(request)


def main(folder: Path, port: int, asked: Path) -> None:
    def note(key: str) -> None:
        with asked.open("a") as lines:
            lines.write(key + "\n")

    lmm = Slow(oracle_of(painted(folder / "pictures")), note)
    app = create_app(settings_of(folder, concurrency=4), lmm=lmm, encoder=FactsEncoder())
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
