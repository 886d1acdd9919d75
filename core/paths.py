"""Where Fieldscope keeps what it can make again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`FIELDSCOPE_CACHE`, else `XDG_CACHE_HOME/fieldscope`, else `~/.cache/fieldscope`. Not created here."""
    if explicit := os.environ.get("FIELDSCOPE_CACHE"):
        return Path(explicit).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base).expanduser() if base else Path.home() / ".cache") / "fieldscope"
