"""The result of a check: its state, the observation, what it means for a ranking, and what to change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail", "unknown"]


@dataclass(frozen=True)
class Finding:
    """One check's result. `unknown` means that the check could not decide; it is no fault. `change` is empty if nothing
    needs to change."""

    name: str
    state: State
    seen: str
    meaning: str
    change: str = ""
