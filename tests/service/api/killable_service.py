"""A service to be killed: `killable_service.py FOLDER PORT ASKED`. Its model tells the truth about painted pictures,
after a while that differs from call to call, and notes each call in ASKED."""

from __future__ import annotations

import sys
from pathlib import Path

import uvicorn

from service.app import create_app
from tests.agent.oracle import oracle_of
from tests.eval.killable_agent import Slow
from tests.service.api.facts import FactsEncoder, painted, settings_of


def main(folder: Path, port: int, asked: Path) -> None:
    lmm = Slow(oracle_of(painted(folder / "pictures")), asked)
    app = create_app(settings_of(folder, concurrency=4), lmm=lmm, encoder=FactsEncoder())
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
