"""Which comparisons there are, who leads in them, and where pages lead to them."""

from __future__ import annotations

import re
from itertools import permutations

from fieldscope.service.viewer import addresses
from fieldscope.service.viewer.comparison.comparable import companions, comparable
from fieldscope.service.viewer.runs.run import Run
from fieldscope.service.viewer.site import Site
from tests.service.viewer import shelves
from tests.service.viewer.shelves import Made

LEADING = ["clip", "predicates", "agent"]  # by what they ask


def opened(made: Made, name: str) -> Run:
    run = made.shelf().run(name)
    assert run is not None
    return run


def html_of(made: Made, address: str, *, live: bool = False) -> str:
    site = Site(made.shelf(), live=live)
    return site.render(site.page(address))


def compare_buttons(html: str) -> list[str]:
    """The addresses behind "Compare with", as they are written on the page."""
    rest = html[html.index("Compare with</span>") :]
    return re.findall(r'<a class="button"(?: data-compare)? href="([^"]+)">', rest[: rest.index("</div>")])


def test_what_asks_least_leads_and_every_two_are_in_both_orders(small_shelf: Made) -> None:
    calls = [sum(d.calls for d in opened(small_shelf, name).digests.values()) for name in LEADING]
    assert calls == sorted(calls) and calls[0] == 0
    several = [[run.key for run in runs] for runs in comparable(small_shelf.shelf().runs())]
    assert several[-1] == LEADING
    assert several[0] == LEADING[:2]
    assert sorted(several[:-1]) == sorted(map(list, permutations(LEADING, 2)))


def test_runs_that_can_not_be_shown_are_in_no_comparison(small: Made) -> None:
    shelves.damaged(small.run("clip"))
    shelves.begun(small.run("agent"))
    assert list(comparable(small.shelf().runs())) == []


def test_a_run_is_compared_with_each_other_one_which_leads(small_shelf: Made) -> None:
    found = companions(opened(small_shelf, "predicates"), small_shelf.shelf())
    assert [(each.names, each.keys) for each in found] == [
        (["clip"], ["clip", "predicates"]),
        (["agent"], ["agent", "predicates"]),
        (["clip", "agent"], LEADING),
    ]


def test_a_querys_page_leads_to_its_comparisons(small_shelf: Made) -> None:
    query = next(iter(opened(small_shelf, "agent").digests))
    here = addresses.query_page("agent", query)
    html = html_of(small_shelf, here)
    wanted = [["clip", "agent"], ["predicates", "agent"], LEADING]
    links = [addresses.relative(addresses.compare_query_page(keys, query), here) for keys in wanted]
    assert compare_buttons(html) == links
    assert re.search(f'data-compare href="{re.escape(links[0])}"', html)  # the key c
    assert html.count("data-compare") == 1


def test_a_query_that_another_run_has_not_ranked_is_not_compared_with_it(small: Made) -> None:
    shelves.copied(small, "agent", "half", shelves.half_written)
    last = list(opened(small, "agent").digests)[-1]
    assert last not in opened(small, "half").digests
    links = compare_buttons(html_of(small, addresses.query_page("agent", last)))
    assert len(links) == 2
    assert not [link for link in links if "half" in link]


def test_a_comparison_can_be_turned_round(small_shelf: Made) -> None:
    here = addresses.compare_page(["clip", "agent"])
    back = addresses.relative(addresses.compare_page(["agent", "clip"]), here)
    assert f'<a href="{back}">agent</a> instead' in html_of(small_shelf, here)
    # A copy on disk has all of them together in one order only.
    all_of_them = addresses.compare_page(LEADING)
    assert " instead" not in html_of(small_shelf, all_of_them)
    live = html_of(small_shelf, all_of_them, live=True)
    for leads in ("predicates", "agent"):
        keys = [leads, *(key for key in LEADING if key != leads)]
        assert f'<a href="{addresses.relative(addresses.compare_page(keys), all_of_them)}">{leads}</a>' in live


def test_runs_that_differ_nowhere_have_a_sentence_in_place_of_a_chart(small: Made) -> None:
    shelves.copied(small, "agent", "twin")
    html = html_of(small, addresses.compare_page(["agent", "twin"]))
    assert "Both runs have the same AP@50 in every query." in html
    assert 'class="chart gains"' not in html
    assert "+0.0" not in html and "−0.0" not in html
