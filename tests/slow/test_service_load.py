"""Many clients at once: no error, everybody's own order, memory that stays, and a queue that refuses and recovers."""

from __future__ import annotations

from pathlib import Path

import pytest

from checks.service_load import measure

pytestmark = [pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(600)]

DRIFT = 0.1
"""Five seconds, which a quarter of this short a time is, differ more than half minutes do."""


def test_many_clients_get_their_own_orders_and_leave_the_memory_as_it_is(tmp_path: Path) -> None:
    seen = measure(tmp_path, seconds=20.0, warm_up=20.0)
    assert seen.faults(DRIFT) == [], str(seen)
    assert seen.fresh > 0 and len(seen.orders) > 64
