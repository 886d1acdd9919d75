"""The cache folder, and sentences without folder names."""

from __future__ import annotations

import os
import re
from pathlib import Path

_QUOTED = re.compile(r"""(['"])(?:~|[A-Za-z]:)?[/\\][^'"\n]*?([^'"/\\\n]*)\1""")
_BARE = re.compile(r"""(?<![\w:/.~-])~?/(?:[^\s/'",;:()]+/)+([^\s/'",;:()]*)""")


def cache_folder() -> Path:
    """`FIELDSCOPE_CACHE`, else `XDG_CACHE_HOME/fieldscope`, else `~/.cache/fieldscope`. Not created here."""
    if explicit := os.environ.get("FIELDSCOPE_CACHE"):
        return Path(explicit).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base).expanduser() if base else Path.home() / ".cache") / "fieldscope"


def without_folders(sentence: str) -> str:
    """A sentence for other users: each absolute path in it is cut to its last name."""
    return _BARE.sub(r"\1", _QUOTED.sub(r"\1\2\1", sentence))
