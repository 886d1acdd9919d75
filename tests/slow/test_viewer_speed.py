"""The figures of the viewer's pages hold on runs of 160 queries x 100 images x 6 predicates."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(600)]


def test_every_kind_of_page_is_small_and_quick() -> None:
    # In a process of its own: among other tests' objects the garbage collector takes longer than a page.
    found = subprocess.run([sys.executable, "-m", "checks.viewer_speed"], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    assert len(found.stdout.splitlines()) == 10
