"""Files that somebody else wrote: read where they are files, and parsed within limits."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

from pydantic_core import from_json


def file_bytes(path: Path) -> bytes:
    """The content of a file. Raises OSError, also for a pipe or a device, whose content may never end."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return path.read_bytes()


def json_value(text: bytes | str) -> Any:
    """What a JSON text says. Raises ValueError for one that is none, that says NaN or infinity, or that is nested so
    deep (some 200 levels) that reading it would take the stack."""
    return from_json(text, allow_inf_nan=False)
