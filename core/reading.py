"""Files from elsewhere: read where they are files, and parsed within limits."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any


def file_bytes(path: Path) -> bytes:
    """The content of a file. Raises OSError, also for a pipe or a device, whose content may never end."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return path.read_bytes()


def load_json(text: str | bytes) -> Any:
    """What a JSON document from elsewhere holds. Raises `ValueError` also where it is nested too deep to be read, and
    for NaN and Infinity, which are no JSON."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as cause:
        raise ValueError("it is nested too deep") from cause


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")
