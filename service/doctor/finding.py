"""What a check found: the state, what was seen, what it means for a ranking, and what to change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail", "unknown"]


@dataclass(frozen=True)
class Finding:
    """One check's result. `unknown` is a thing that could not be told, and no fault. `change` is empty where all is
    well."""

    name: str
    state: State
    seen: str
    meaning: str
    change: str = ""
