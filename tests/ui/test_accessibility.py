"""axe-core finds no serious and no critical violation on any page, in light and in dark."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from fieldscope.service.viewer.runs.run_list import RunList
from tests.ui.conftest import Arrive, Place, Scheme, Visitor, served
from tests.ui.truths import one_of_each

pytestmark = [pytest.mark.ui, pytest.mark.timeout(600)]


def violations(arrive: Arrive, place: Place, scheme: Scheme) -> list[str]:
    """Page, rule and place of what is wrong."""
    visitor = arrive(scheme)
    visitor.forgiven = ("Failed to load resource: the server responded with a status of 404",)
    found = []
    pages = (
        [*one_of_each(place.shelf), ("missing", "nowhere.html")] if place.kind == "live" else one_of_each(place.shelf)
    )
    for name, address in pages:
        for state in ({}, {"view": "matrix"}) if name == "query" else ({},):
            page = visitor.goes(place, address, **state)
            page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
            found += [f"{name}: {each}" for each in grave(page)]
    return found


def grave(page: Page) -> list[str]:
    """What axe-core finds serious or critical on a page."""
    # It would fetch the styles anew, which a page from the disk may not.
    response = Axe().run(page, options={"resultTypes": ["violations"], "preload": False}).response
    return [
        f"{each['id']} ({len(each['nodes'])}): {'; '.join(node['html'][:160] for node in each['nodes'][:3])}"
        for each in response["violations"]
        if each["impact"] in ("serious", "critical")
    ]


def test_the_check_finds_something(visitor: Visitor) -> None:
    visitor.page.set_content("<img src='data:,'><p style='color: #ccc; background: #fff'>pale</p>")
    found = " ".join(grave(visitor.page))
    assert "image-alt" in found
    assert "color-contrast" in found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_violation(arrive: Arrive, place: Place, scheme: Scheme) -> None:
    assert violations(arrive, place, scheme) == []


def test_none_on_a_hostile_run(arrive: Arrive, hostile: RunList) -> None:
    with served(hostile) as place:
        assert violations(arrive, place, "light") == []
