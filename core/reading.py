"""Reading untrusted files: regular files only, parsed within limits."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any


def file_bytes(path: Path) -> bytes:
    """The content of a file. Raises `OSError`, also for a pipe or a device, which may never end."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path.read_bytes()


def load_json(text: str | bytes) -> Any:
    """The value of an untrusted JSON document. Raises `ValueError`, also for nesting that is too deep to read, and for
    NaN and Infinity, which are not JSON."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as cause:
        raise ValueError("it is nested too deep") from cause


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")
