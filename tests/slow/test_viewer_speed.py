"""The figures of the viewer's pages hold on runs of 160 queries x 100 images x 6 predicates."""

from __future__ import annotations

from pathlib import Path

import pytest

from checks.viewer_speed import measure

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_every_kind_of_page_is_small_and_quick(tmp_path: Path) -> None:
    found = list(measure(tmp_path))
    assert len(found) == 8
    assert [each for each in found if not each.holds] == []
