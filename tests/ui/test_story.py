"""Somebody who has never seen the program asks: which query did strategy B hurt most, which image lost the most ranks
there, and which predicate sank it? They start at the first page and only click."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from fieldscope.service.viewer import addresses
from tests.ui.conftest import Place, Visitor
from tests.ui.truths import hurt_most, lost_most_ranks, sank

pytestmark = [pytest.mark.ui, pytest.mark.timeout(300)]


@pytest.mark.parametrize("b", ["predicates", "agent"])
def test_what_hurt_most_and_why(visitor: Visitor, live: Place, b: str) -> None:
    before, after = live.run("clip"), live.run(b)
    query = hurt_most(before, after)
    page = visitor.goes(live, addresses.INDEX)

    # Tick the two strategies, A first, and compare them.
    page.get_by_label("Compare clip").check()
    page.get_by_label(f"Compare {b}").check()
    page.get_by_role("link", name="Compare 2 runs").click()
    visitor.settled()

    # "Hurt most by B" names the query, and leads to it.
    hurt = page.locator(".both-ways > div", has=page.get_by_role("heading", name=f"Hurt most by {b}"))
    worst = hurt.get_by_role("listitem").first.get_by_role("link")
    expect(worst).to_have_text(after.digests[query].text)
    visitor.shot(f"story-{b}-1-compare")
    worst.click()
    visitor.settled()

    # "Lost the most ranks" names the image, and which question sank it.
    lost = page.locator(".furthest", has=page.get_by_role("heading", name="Lost the most ranks"))
    named = lost.locator(".moves").get_by_role("link")
    image_id = named.inner_text()
    assert image_id in lost_most_ranks(before, after, query)
    question = sank(after, query, image_id)
    expect(lost).to_contain_text("Sunk by")
    expect(lost).to_contain_text(question)
    visitor.shot(f"story-{b}-2-query")

    # The image's own page says the same, in numbers.
    named.click()
    visitor.settled()
    expect(page.get_by_role("heading", level=1)).to_contain_text(image_id)
    minus = page.locator("table.waterfall tr.part", has=page.locator("rect.minus")).filter(has_text=question)
    expect(minus).to_have_count(1)
    visitor.shot(f"story-{b}-3-image")


def test_the_same_from_the_runs_own_page(visitor: Visitor, place: Place) -> None:
    run = place.run("agent")
    gains = {query: digest.gain for query, digest in run.digests.items() if digest.gain is not None}
    query = min(gains, key=lambda each: gains[each])
    page = visitor.goes(place, addresses.INDEX)
    page.get_by_role("link", name="agent", exact=True).click()
    visitor.settled()
    worst = page.get_by_role("region", name="Hurt most").get_by_role("listitem").first.get_by_role("link")
    expect(worst).to_have_text(run.digests[query].text)
    worst.click()
    visitor.settled()
    fell = {ranked.image_id: ranked.rank - ranked.prior_rank for ranked in run.result(query).ranking}
    first = page.get_by_role("region", name="Sank most").get_by_role("listitem").first
    image_id = first.locator(".line a").inner_text()
    assert fell[image_id] == max(fell.values())
    expect(first).to_contain_text(sank(run, query, image_id))
