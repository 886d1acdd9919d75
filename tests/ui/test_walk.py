"""Every page, live and exported: what it says is what the run's files say. Screenshots are in `build/screenshots`."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import expect

from fieldscope.agent.trace_view import verdicts_by_image
from fieldscope.eval.runs.annotations import read_annotations
from fieldscope.service.viewer import addresses
from fieldscope.service.viewer.comparison.comparable import comparable
from tests.ui.conftest import QUERIES, STRATEGIES, Arrive, Place, Visitor
from tests.ui.truths import chance, one_of_each, percent

pytestmark = [pytest.mark.ui, pytest.mark.timeout(600)]

QUERY = QUERIES[1]


def state_of(visitor: Visitor) -> dict[str, str]:
    """What the page's address says of its state."""
    return {name: values[0] for name, values in parse_qs(urlsplit(visitor.page.url).query).items()}


def test_the_first_page_lists_every_run(visitor: Visitor, place: Place) -> None:
    page = visitor.goes(place, addresses.INDEX)
    table = page.get_by_role("region", name="Runs of fieldnotes-rerank").get_by_role("row")
    assert table.count() == 1 + len(STRATEGIES)
    for name in STRATEGIES:
        row = table.filter(has=page.get_by_role("link", name=name, exact=True))
        run = place.run(name)
        scores = [digest.scores["AP@50"] for digest in run.digests.values()]
        expect(row).to_contain_text(percent(sum(scores) / len(scores)))
        calls = sum(digest.calls for digest in run.digests.values())
        expect(row).to_contain_text(f"{calls:,}")
    # Sorting is in the address, and what is there is read back.
    page.get_by_role("button", name="calls", exact=True).click()
    assert (state_of(visitor)["sort"], state_of(visitor)["down"]) == ("calls", "1")
    visitor.page.reload()
    by_calls = sorted(STRATEGIES, key=lambda name: -sum(d.calls for d in place.run(name).digests.values()))
    assert page.locator("tbody th a").all_inner_texts() == by_calls


def test_two_runs_are_ticked_for_comparison(visitor: Visitor, place: Place) -> None:
    page = visitor.goes(place, addresses.INDEX)
    page.get_by_label("Compare agent").check()
    page.get_by_label("Compare clip").check()
    page.get_by_role("link", name="Compare 2 runs").click()
    visitor.settled()
    assert "/compare/agent+clip/" in page.url
    expect(page.get_by_role("heading", level=1)).to_contain_text("agent")


def test_a_run_has_every_query_with_its_change(visitor: Visitor, place: Place) -> None:
    run = place.run("agent")
    page = visitor.goes(place, addresses.run_page("agent"))
    rows = page.locator("#queries-table tbody tr")
    assert rows.count() == len(QUERIES)
    for query_id, digest in run.digests.items():
        row = rows.filter(has_text=query_id)
        for words in (
            digest.text,
            percent(digest.scores["AP@50"]),
            percent(digest.prior_scores["AP@50"]),
            str(digest.calls),
        ):
            expect(row).to_contain_text(words)
    hurt = [query for query, digest in run.digests.items() if digest.gain is not None and digest.gain < 0]
    assert hurt
    page.get_by_role("button", name="Hurt").click()
    assert sorted(rows.locator("visible=true").locator("td.id").all_inner_texts()) == sorted(hurt)
    page.get_by_label("Text").fill(hurt[0])
    page.wait_for_url(f"**q={hurt[0]}*")  # after a moment, so that not every letter is a state
    visitor.page.reload()
    assert rows.locator("visible=true").count() == 1
    page.goto(place.url(addresses.run_page("agent"), {"q": "no such words"}))
    expect(page.locator("#none-left")).to_be_visible()


def test_a_query_shows_its_ranking(visitor: Visitor, place: Place) -> None:
    run = place.run("agent")
    result = run.result(QUERY)
    page = visitor.goes(place, addresses.query_page("agent", QUERY))
    expect(page.get_by_role("heading", level=1)).to_contain_text(result.query_text)
    assert result.synthesis is not None
    expect(page.locator("main")).to_contain_text(result.synthesis.comprehensive)
    for predicate in result.predicates:
        if predicate.kind != "query":
            expect(page.locator("table.predicates")).to_contain_text(predicate.question)
    tiles = page.locator("#grid .tile")
    order = [each.image_id for each in result.ranking]
    assert page.locator("#grid .tile .id").all_text_contents() == order
    matches = [at for at, image_id in enumerate(order) if image_id in (run.relevant(QUERY) or ())]
    assert [at for at in range(len(order)) if tiles.nth(at).locator(".badge").count()] == matches
    # Every thumbnail that is to be seen is a picture.
    page.wait_for_load_state("networkidle")
    assert page.evaluate(
        "[...document.querySelectorAll('#grid img')].slice(0, 8).every((img) => img.naturalWidth > 30)"
    )


def test_the_matrix_is_sorted_by_a_predicate(visitor: Visitor, place: Place) -> None:
    result = place.run("agent").result(QUERY)
    predicate = next(each for each in result.predicates if each.kind != "query")
    page = visitor.goes(place, addresses.query_page("agent", QUERY))
    page.get_by_role("link", name="Matrix", exact=True).click()
    page.locator(f'th[data-key="{predicate.id}"] button').click()
    assert (state_of(visitor)["view"], state_of(visitor)["sort"]) == ("matrix", predicate.id)
    visitor.page.reload()
    said = verdicts_by_image(result)
    known = {image: v[predicate.id].p_expected for image, v in said.items() if predicate.id in v}
    values = [known.get(image) for image in page.locator(".matrix tbody th bdi").all_text_contents()]
    answered = [round(value, 2) for value in values if value is not None]  # as the cells have them
    assert len(answered) > 10
    assert answered == sorted(answered)
    assert values[len(answered) :] == [None] * (len(values) - len(answered))
    page.get_by_role("link", name="Rank flow").click()
    expect(page.locator("svg.flow")).to_be_visible()
    assert page.locator("svg.flow path.way").count() == len(result.ranking)


def test_truth_can_be_hidden_and_stays_so(visitor: Visitor, place: Place) -> None:
    page = visitor.goes(place, addresses.query_page("agent", QUERY))
    assert page.locator("#grid .badge").first.is_visible()
    page.get_by_role("button", name="Hide truth").click()
    assert not page.locator("#grid .badge").first.is_visible()
    page.locator("#grid .tile a").first.click()
    visitor.settled()
    assert state_of(visitor)["truth"] == "hide"
    assert page.locator(".truth").locator("visible=true").count() == 0


def test_an_image_shows_why_it_is_where_it_is(visitor: Visitor, place: Place) -> None:
    run = place.run("agent")
    result = run.result(QUERY)
    first = result.ranking[0]
    page = visitor.goes(place, addresses.image_page("agent", QUERY, first.image_id))
    expect(page.get_by_role("heading", level=1)).to_contain_text(first.image_id)
    # The bars sum to the score.
    bars = page.locator("table.waterfall tr.part td.number").all_inner_texts()
    total = page.locator("table.waterfall tr.total td.number").inner_text()
    numbers = [float(text.replace("−", "-")) for text in bars]
    assert len(numbers) == len(first.contributions)
    assert sum(numbers) == pytest.approx(first.score, abs=0.01 * len(numbers))
    assert float(total.replace("−", "-")) == pytest.approx(first.score, abs=0.01)
    for name, verdict in verdicts_by_image(result)[first.image_id].items():
        question = next(each.question for each in result.predicates if each.id == name)
        row = page.locator("table.questions tbody tr").filter(has_text=question)
        if verdict.p_yes is not None:
            expect(row.first).to_contain_text(chance(verdict.p_yes))
    # The raw request has the question's own words.
    page.locator("details.raw summary").first.click()
    expect(page.locator("details.raw").first).to_contain_text("user")
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.querySelector('.picture img').naturalWidth") >= 100


def test_comparisons_show_both_orders(visitor: Visitor, place: Place) -> None:
    result = place.run("pairwise").result(QUERY)
    one, other = next(each for each in result.comparisons if each.probabilities).shown
    orders = [each for each in result.comparisons if set(each.shown) == {one, other}]
    assert [each.shown for each in orders] in ([(one, other), (other, one)], [(other, one), (one, other)])
    page = visitor.goes(place, addresses.image_page("pairwise", QUERY, one))
    card = page.locator(".matchup", has=page.get_by_role("link", name=other, exact=True))
    shown = card.locator(".orders li")
    assert shown.count() == 2
    for at, order in enumerate(orders):
        p = order.probabilities[order.shown.index(one)]
        expect(shown.nth(at)).to_contain_text(chance(p))
        expect(shown.nth(at)).to_contain_text("A: this" if order.shown[0] == one else f"A: {other}")


def test_runs_side_by_side(visitor: Visitor, place: Place) -> None:
    pair = ["agent", "clip"]
    page = visitor.goes(place, addresses.compare_page(pair))
    a, b = (place.run(key) for key in pair)
    lost = sum(b.digests[q].scores["AP@50"] < a.digests[q].scores["AP@50"] - 1e-9 for q in QUERIES)
    expect(page.locator(".versus").get_by_role("link", name=f"{lost} lost")).to_be_visible()
    page.get_by_role("link", name=f"{lost} lost").click()
    visitor.settled()
    rows = page.locator("table[data-filtered] tbody tr").locator("visible=true")
    assert rows.count() == lost
    page.locator("table[data-filtered] tbody a").first.click()
    visitor.settled()
    assert "/compare/agent+clip/queries/" in page.url
    assert page.locator(".ranking").count() == 2


def test_all_runs_together(visitor: Visitor, place: Place) -> None:
    together = [run.key for run in max(comparable(place.shelf.runs()), key=len)]
    page = visitor.goes(place, addresses.compare_page(together))
    assert page.locator(".versus section").count() == len(STRATEGIES) - 1
    page = visitor.goes(place, addresses.compare_query_page(together, QUERY))
    assert page.locator(".ranking").count() == len(STRATEGIES)
    first = page.locator(".ranking").first.locator("li")
    order = [each.image_id for each in place.run(together[0]).result(QUERY).ranking]
    assert first.locator("i").all_text_contents() == order[: first.count()]


def test_prompts(visitor: Visitor, place: Place) -> None:
    page = visitor.goes(place, addresses.prompts_page("agent"))
    for name, print_ in place.run("agent").configuration.strategy.prompts.items():
        expect(page.locator("main")).to_contain_text(name)
        expect(page.locator("main")).to_contain_text(print_[:12])


def test_marks_are_made_by_clicking(visitor: Visitor, live: Place) -> None:
    run = live.run("agent")
    image_id = run.result(QUERY).ranking[1].image_id
    page = visitor.goes(live, addresses.image_page("agent", QUERY, image_id))
    rows = page.locator("#annotate .mark-row")
    rows.nth(1).get_by_role("textbox").fill("it is <b>another</b> animal")
    rows.nth(1).get_by_role("button", name="Wrong").click()
    expect(rows.nth(1).get_by_role("button", name="Wrong")).to_have_attribute("aria-pressed", "true")
    expect(rows.nth(1).get_by_role("button", name="Wrong")).to_be_focused()
    rows.nth(0).get_by_role("button", name="Right").click()
    expect(rows.nth(0).get_by_role("button", name="Right")).to_have_attribute("aria-pressed", "true")
    told = read_annotations(run.folder)
    assert [(each.image_id, each.mark, each.note) for each in told] == [
        (image_id, "wrong", "it is <b>another</b> animal"),
        (image_id, "right", ""),
    ]
    visitor.shot("marks")
    page.get_by_role("link", name="All marks of this run").click()
    visitor.settled()
    listed = page.locator("tbody tr")
    assert listed.count() == 2
    expect(listed.nth(1)).to_contain_text("it is <b>another</b> animal")
    page.locator("select[name=mark]").select_option("wrong")
    assert listed.locator("visible=true").count() == 1
    assert state_of(visitor) == {"mark": "wrong"}
    visitor.shot("annotations")
    page.go_back()
    page.reload()
    for row in (1, 0):
        rows.nth(row).get_by_role("button", name="Take the mark back").click()
        expect(rows.nth(row).get_by_role("button", name="Take the mark back")).to_have_count(0)
    assert read_annotations(run.folder) == []


def test_marks_without_a_script(arrive: Arrive, live: Place) -> None:
    visitor = arrive(scripts=False)
    run = live.run("predicates")
    image_id = run.result(QUERY).ranking[0].image_id
    page = visitor.goes(live, addresses.image_page("predicates", QUERY, image_id))
    page.locator("#annotate .mark-row").first.get_by_role("button", name="Right").click()
    visitor.settled()
    assert page.url.endswith("#annotate")
    assert [each.mark for each in read_annotations(run.folder)] == ["right"]
    page.locator("#annotate").get_by_role("button", name="Take the mark back").click()
    visitor.settled()
    assert read_annotations(run.folder) == []


def test_nothing_is_marked_in_a_copy(visitor: Visitor, export_of_runs: Place) -> None:
    image_id = export_of_runs.run("agent").result(QUERY).ranking[0].image_id
    page = visitor.goes(export_of_runs, addresses.image_page("agent", QUERY, image_id))
    assert page.locator("form[method=post]").count() == 0
    page = visitor.goes(export_of_runs, addresses.annotations_page("agent"))
    expect(page.locator(".sentence")).to_contain_text("has no marks yet")


def test_what_is_missing_says_so(visitor: Visitor, live: Place) -> None:
    visitor.forgiven = ("Failed to load resource: the server responded with a status of 404",)
    page = visitor.goes(live, "runs/none/index.html")
    expect(page.locator(".sentence")).to_contain_text("There is no run 'none'")
    page.get_by_role("link", name=re.compile("Runs|Fieldscope")).first.click()
    visitor.settled()
    expect(page.get_by_role("heading", level=1)).to_have_text("Runs")


def test_screenshots_of_every_page(arrive: Arrive, place: Place) -> None:
    for scheme in ("light", "dark"):
        visitor = arrive(scheme)
        for name, address in one_of_each(place.shelf):
            page = visitor.goes(place, address)
            visitor.shot(f"{place.kind}-{name}-{scheme}", full=place.kind == "export")
            colours = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
            assert (sum(colours[:3]) > 450) == (scheme == "light")


@pytest.mark.parametrize("width", [360, 390])
def test_every_page_fits_a_phone(arrive: Arrive, live: Place, width: int) -> None:
    visitor = arrive(width=width, height=800)
    wide = []
    for name, address in one_of_each(live.shelf):
        page = visitor.goes(live, address)
        if width == 390:
            visitor.shot(f"phone-{name}")
        if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
            wide.append(name)
    assert wide == []


def test_every_page_makes_sense_without_scripts(arrive: Arrive, live: Place) -> None:
    visitor = arrive(scripts=False)
    for name, address in one_of_each(live.shelf):
        page = visitor.goes(live, address)
        assert len(page.locator("main").inner_text()) > 200 or name == "annotations"
        assert page.locator("main a").count() or name == "annotations"
