"""What the service adds to a cached rerank of 20 images. The bound is generous: other work on the machine counts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from checks.service_latency import measure

pytestmark = [pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(600)]

ALLOWED_MS = 15.0


def test_the_service_adds_little_to_a_cached_rerank(tmp_path: Path) -> None:
    direct, over_http = asyncio.run(measure("yes-no-fused", rounds=60, data=tmp_path))
    assert over_http - direct < ALLOWED_MS
