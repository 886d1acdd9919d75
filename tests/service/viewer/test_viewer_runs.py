"""The list of runs and a run's page: their figures, their charts, and what they say where something is missing."""

from __future__ import annotations

import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.agent.usage import Usage
from fieldscope.eval.measures import paired
from fieldscope.eval.measures.paired import EVEN, bootstrap_interval, randomisation_p
from fieldscope.eval.runs.read import Manifest
from fieldscope.service.viewer import addresses
from fieldscope.service.viewer import formats as words
from fieldscope.service.viewer.charts import bars as charts
from fieldscope.service.viewer.page import Page
from fieldscope.service.viewer.pages import run as run_page
from fieldscope.service.viewer.runs.digest import QueryDigest
from fieldscope.service.viewer.runs.overview import means_of, standings, totals
from fieldscope.service.viewer.runs.run import Run
from fieldscope.service.viewer.runs.run_list import RunList
from fieldscope.service.viewer.site import Site
from tests.service.viewer import shelves
from tests.service.viewer.shelves import Made


class Html(HTMLParser):
    """What a page has: its elements with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self._words: list[str] = []
        self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        self._words.append(data)
        if self._in_cell:
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._words).split())

    def links(self) -> list[str]:
        return [attrs["href"] or "" for tag, attrs in self.elements if tag == "a" and "href" in attrs]

    def row(self, first: str) -> list[str]:
        """The cells of the row with this text in its first or second cell."""
        return next([" ".join(c.split()) for c in row] for row in self.rows if first in [c.strip() for c in row[:2]])


def digest(query_id: str, before: float | None, after: float | None, **other: object) -> QueryDigest:
    scored = before is not None and after is not None
    given = {
        "text": f"text of {query_id}", "start": 0, "size": 1, "sha256": "0", "candidates": 10,
        "positives": 1 if scored else 0,
        "scores": {"AP@50": after, "nDCG@50": after, "RR": 1.0} if scored else {},
        "prior_scores": {"AP@50": before, "nDCG@50": before, "RR": 0.5} if scored else {},
        "calls": 0, "prompt_tokens": 0, "completion_tokens": 0, "seconds": 0.0, "cached": 0, "unknown": 0,
        "not_asked": 0, "moved": 0, "ended": None,
    }  # fmt: skip
    return QueryDigest.model_validate({"query_id": query_id} | given | other)


def shown(made: Made, address: str, *, live: bool = False) -> Html:
    site = Site(made.shelf(), live=live)
    return Html(site.render(site.page(address)))


def metrics_of(made: Made, name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((made.run(name) / "metrics.json").read_text())
    return read


def test_means_gains_and_intervals_are_those_of_the_queries_that_could_be_scored() -> None:
    found = standings([digest("a", 0.5, 0.9), digest("b", 0.2, 0.1), digest("c", None, None), digest("d", 1.0, 1.0)])
    main = found["mAP@50"]
    assert main.queries == 3
    assert main.now.value == pytest.approx(2.0 / 3)
    assert main.before == pytest.approx(1.7 / 3)
    assert main.gain.value == pytest.approx(0.1)
    assert (main.now.low, main.now.high) == pytest.approx(bootstrap_interval([0.9, 0.1, 1.0]))
    assert (main.gain.low, main.gain.high) == pytest.approx(bootstrap_interval([0.4, -0.1, 0.0]))
    assert (found["MRR"].before, found["MRR"].now.value) == (0.5, 1.0)
    assert list(found) == ["mAP@50", "nDCG@50", "MRR"]


def test_where_nothing_could_be_scored_there_are_no_means() -> None:
    assert standings([digest("c", None, None)]) == {}
    assert standings([]) == {}


def test_totals_add_up() -> None:
    costs = {"calls": 3, "prompt_tokens": 50, "completion_tokens": 5, "seconds": 1.5, "unknown": 1, "not_asked": 2}
    sums = totals([digest("a", 0.5, 0.9, **costs), digest("b", 0.2, 0.1, ended="verify", **costs), digest("c", 1, 1)])
    assert (sums.queries, sums.scored, sums.helped, sums.hurt, sums.even) == (3, 3, 1, 1, 1)
    assert sums.usage == Usage(6, 100, 10, seconds=3.0, unknown=2, not_asked=4) and sums.ended == 1


def test_statistics_are_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    column, gains = (0.25, 0.125, 0.75), (0.25, -0.5, 0.75, 0.125)
    (mean,) = paired.means([column])
    assert (mean.low, mean.high) == pytest.approx(bootstrap_interval(column))
    tests = paired.paired_tests([((0.0,) * 4, gains)])
    assert tests[0].p == randomisation_p(gains)
    monkeypatch.delattr(paired, "bootstrap_intervals")
    monkeypatch.delattr(paired, "randomisation_p")
    assert paired.means([column]) == [mean]
    assert paired.paired_tests([((0.0,) * 4, gains)]) == tests


def test_the_means_of_a_finished_run_leave_out_queries_without_positives() -> None:
    found = means_of(
        {"a": {"positives": 2, "P@10": 0.2}, "b": {"positives": 0, "P@10": None}, "c": {"positives": 1, "P@10": 0.4}}
    )
    assert list(found) == ["P@10"]
    assert found["P@10"].value == pytest.approx(0.3)
    assert found["P@10"].low <= 0.3 <= found["P@10"].high
    assert means_of({}) == {}


scores = st.floats(0, 1, allow_nan=False)


@given(st.lists(st.tuples(scores, scores), min_size=1, max_size=250))
def test_the_chart_of_changes_goes_from_the_most_hurt_to_the_most_helped(pairs: list[tuple[float, float]]) -> None:
    chart = charts.before_after([digest(f"q{n}", *pair) for n, pair in enumerate(pairs)])
    assert chart is not None
    assert chart.total == len(pairs)
    assert len(chart.marks) == min(len(pairs), charts.MOST)
    gains = [mark.before - mark.after for mark in chart.marks]  # pixels go down
    assert gains == pytest.approx(sorted(gains), abs=1e-9)
    changes = [after - before for before, after in pairs]
    assert gains[0] / 280 == pytest.approx(min(changes), abs=1e-9)
    assert gains[-1] / 280 == pytest.approx(max(changes), abs=1e-9)
    for mark in chart.marks:
        assert chart.left < mark.x < chart.width
        assert 0 < mark.after <= chart.bottom
        change = changes[int(mark.query_id[1:])]
        assert mark.side == ("even" if abs(change) <= EVEN else "better" if change > 0 else "worse")
    assert [mark.x for mark in chart.marks] == sorted(mark.x for mark in chart.marks)


def test_a_chart_of_few_queries_says_which_they_are() -> None:
    few, many = [digest(f"q{n}", 0.1, 0.2) for n in range(8)], [digest(f"q{n}", 0.1, 0.2) for n in range(160)]
    chart, broad = charts.before_after(few), charts.before_after(many)
    assert chart is not None and chart.labelled
    assert broad is not None and not broad.labelled and broad.width == pytest.approx(charts.WIDTH)
    assert charts.before_after([digest("q", None, None)]) is None


@given(st.lists(st.tuples(st.integers(0, 900), st.integers(0, 900)), max_size=250))
def test_the_bars_of_cost_are_as_tall_as_calls_are_many(asked: list[tuple[int, int]]) -> None:
    given = [digest(f"q{n}", 0.1, 0.2, calls=a, unknown=min(a, b)) for n, (a, b) in enumerate(asked)]
    chart = charts.cost_bars(given)
    calls = sorted((a for a, _ in asked), reverse=True)
    if not any(calls):
        assert chart is None
        return
    assert chart is not None
    scale = chart.bars[0].height / calls[0]
    for bar, number in zip(chart.bars, calls[: charts.MOST], strict=True):
        assert bar.height == pytest.approx(number * scale)
        assert bar.y + bar.height == pytest.approx(chart.bottom)
        assert 0 <= bar.unknown <= bar.height + 1e-9
    assert chart.total == len(asked)


def test_the_first_page_says_of_every_run_what_its_files_say(small_shelf: Made) -> None:
    page = shown(small_shelf, "index.html")
    for name in shelves.STRATEGIES:
        row = page.row(name)
        told = metrics_of(small_shelf, name)
        assert row[1] == row[2] == name
        assert row[3] == "scripted"
        assert row[5].replace(" ", "") == "4finished"
        for cell, metric in zip(row[6:9], ("mAP@50", "nDCG@50", "MRR"), strict=True):
            assert cell.startswith(f"{100 * told['metrics'][metric]:.1f}")
            assert re.search(r"\d+\.\d–\d+\.\d$", cell)
        assert row[10] == f"{told['cost']['calls']:,}"
        assert row[11] == f"{told['cost']['prompt_tokens'] + told['cost']['completion_tokens']:,}"
        assert row[12].startswith(words.duration(told["cost"]["seconds"]))
        assert ("answers" in row[12]) == (told["cost"]["calls"] > 0)
        assert row[13] == "0"
        assert addresses.run_page(name) in page.links()
    assert "facts test" in page.text
    assert "= 0.0" in page.row("clip")[9].replace("\xa0", " ")


def test_a_copy_offers_exactly_the_comparisons_that_it_has(small_shelf: Made) -> None:
    page = shown(small_shelf, "index.html")
    available = next(attrs["data-available"] or "" for tag, attrs in page.elements if "data-available" in attrs)
    offered = {f"compare/{keys}/index.html" for keys in available.split()}
    pages = set(Site(small_shelf.shelf(), live=False).addresses())
    assert offered == {address for address in pages if re.fullmatch(r"compare/[^/]+/index.html", address)}
    together = addresses.compare_page(["clip", "predicates", "agent"])  # what asks least leads
    assert together in page.links() and together in offered
    live = shown(small_shelf, "index.html", live=True)
    assert not any("data-available" in attrs for _, attrs in live.elements)


def test_an_empty_folder_says_how_to_fill_it(tmp_path: Path) -> None:
    site = Site(RunList(tmp_path), live=False)
    page = Html(site.render(site.page("")))
    assert "has no runs yet" in page.text
    assert "fieldscope eval fieldnotes-rerank" in page.text


def test_runs_that_are_not_whole_are_listed_with_a_sentence(small: Made) -> None:
    shelves.copied(small, "agent", "half", shelves.half_written)
    shelves.copied(small, "agent", "begun", shelves.begun)
    shelves.copied(small, "agent", "later", shelves.newer)
    shelves.copied(small, "agent", "broken", shelves.damaged)
    page = shown(small, "index.html")
    assert "of 4 so far" in page.row("half")[5]
    assert "begun has no results yet" in page.text
    assert "later was written by another version of Fieldscope" in page.text
    assert "its manifest.json is damaged" in page.text
    boxes = {attrs["value"] for tag, attrs in page.elements if tag == "input" and attrs["type"] == "checkbox"}
    assert boxes == {*shelves.STRATEGIES, "half"}
    assert not [link for link in page.links() if "later" in link or "broken" in link or "begun" in link]
    half = shown(small, addresses.run_page("half"))
    assert "2 queries are ranked of 4 so far" in half.text
    assert "By group" not in half.text and "All metrics" not in half.text


def test_a_runs_page_says_of_every_query_what_its_files_say(small_shelf: Made) -> None:
    here = addresses.run_page("predicates")
    page = shown(small_shelf, here)
    per_query = metrics_of(small_shelf, "predicates")["per_query"]
    prior = metrics_of(small_shelf, "clip")["per_query"]
    run = small_shelf.shelf().run("predicates")
    assert run is not None and len(per_query) == 4
    for query_id, values in per_query.items():
        row = page.row(query_id)
        assert row[2] == f"{100 * prior[query_id]['AP@50']:.1f}"
        assert row[3] == f"{100 * values['AP@50']:.1f}"
        assert row[5] == f"{run.digests[query_id].calls:,}"
        assert addresses.relative(addresses.query_page("predicates", query_id), here) in page.links()
    assert "Weather" in page.text and "Animals" in page.text
    kinds = [attrs["data-groups"] or "" for tag, attrs in page.elements if "data-groups" in attrs]
    assert sorted(kinds) == 2 * ["supercategory:Animals|"] + 2 * ["supercategory:Weather|"]
    assert run.configuration.strategy.fingerprint in page.text
    assert all(print in page.text for print in run.configuration.strategy.prompts.values())


def test_links_lead_to_pages_that_are_there(small_shelf: Made) -> None:
    site = Site(small_shelf.shelf(), live=False)
    there = {*site.addresses(), *(addresses.static(name) for name in ("viewer.css",))}
    for address in ("index.html", addresses.run_page("agent")):
        depth = address.count("/")
        for link in Html(site.render(site.page(address))).links():
            if not link.startswith("#"):
                assert link.startswith("../" * depth)
                assert link.removeprefix("../" * depth) in there


def test_the_query_that_was_hurt_most_is_listed_first() -> None:
    page = _page([digest("a", 0.5, 0.4), digest("b", 0.9, 0.1), digest("c", 0.2, 0.9), digest("d", 0.2, 0.2)])
    hurt, helped = page.text.split("Hurt most", 1)[1].split("Helped most", 1)
    assert hurt.index("text of b") < hurt.index("text of a")
    assert "text of d" not in hurt and "text of c" not in hurt
    assert "text of c" in helped.split("AP@50 before and after")[0]
    assert [attrs.get("data-side") for tag, attrs in page.elements if tag == "tr" and "data-side" in attrs] == [
        "worse", "worse", "better", "even",
    ]  # fmt: skip


def test_a_run_without_truth_shows_no_scores() -> None:
    page = _page([digest("a", None, None, calls=5)], judgments=None)
    assert "This run has no judgments" in page.text
    assert "Hurt most" not in page.text
    assert "before and after" not in page.text
    assert page.row("a")[2:5] == ["–", "–", "–"]


def test_a_run_says_how_often_nothing_matches_was_right_and_wrong() -> None:
    unmatched = [digest(name, None, None, nothing=said) for name, said in (("a", True), ("b", False), ("c", True))]
    matched = [digest("d", 0.5, 0.9, nothing=False), digest("e", 0.5, 0.9, nothing=True)]
    page = _page([*unmatched, *matched])
    assert "of the queries without a match: said of 2 of 3" in page.text
    assert "of those with one: 1 of 2" in page.text
    assert [page.row(name)[-2] for name in "abcde"] == ["none", "", "none", "", "none"]
    assert _page(unmatched).text.count("of the queries without a match") == 1
    only_matched = _page(matched)
    assert "of the queries with a match: wrongly said of 1 of 2" in only_matched.text


def test_a_run_that_never_decided_whether_anything_matches_does_not_tell() -> None:
    page = _page([digest("a", None, None), digest("b", 0.5, 0.9)])
    assert "Nothing matches" not in page.text
    assert "matches" not in page.rows[-3]


def test_a_run_of_before_inputs_and_collections_is_shown(small: Made) -> None:
    shelves.bare(small.run("agent"))
    page = shown(small, addresses.run_page("agent"))
    assert "Hurt most" in page.text and "By group" in page.text


def test_groups_without_members_on_record_show_what_the_metrics_say(small: Made) -> None:
    path = small.run("agent") / "metrics.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in told.items() if key not in ("groups", "breakdowns")}))
    row = shown(small, addresses.run_page("agent")).row("Weather")
    assert row[1:3] == ["–", "–"]
    assert row[3] == f"{100 * told['by_supercategory']['Weather']['mAP@50']:.1f}"


@pytest.mark.parametrize("old", [False, True])
def test_every_round_of_a_dialogue_run_has_all_its_dialogues(tmp_path: Path, old: bool) -> None:
    """Also of a run whose metrics are those of each round alone, as earlier versions wrote them."""
    made = shelves.dialogues(tmp_path)
    path = made.run("clip") / "metrics.json"
    told = json.loads(path.read_text())
    assert [means["hits@1"] for means in told["by_round"].values()] == [0.5, 1.0, 1.0]
    if old:
        alone = {"0": {"mAP@50": 0.66}, "1": {"mAP@50": 1.0}, "2": {"mAP@50": 0.5}}
        path.write_text(json.dumps(told | {"by_round": alone}))
    page = shown(made, addresses.run_page("clip"))
    rows = {row[0].strip(): row for row in page.rows if len(row) > 3 and row[1].strip() == "2"}
    for done, mean in enumerate([(1 / 3 + 1) / 2, 1.0, (1 / 2 + 1) / 2]):
        assert rows[str(done)][3].strip().startswith(f"{100 * mean:.1f}")


def test_hostile_texts_are_shown_and_do_nothing(hostile_shelf: Made) -> None:
    for address in ("index.html", addresses.run_page("predicates")):
        page = shown(hostile_shelf, address)
        for tag, attrs in page.elements:
            assert not [name for name in attrs if name.startswith("on") or name == "style"]
            assert tag not in ("b", "i") or not attrs
            if tag == "script":
                assert attrs["src"] is not None and "static/" in attrs["src"]
            if tag == "img":
                assert attrs["src"] is not None and "static/icon.svg" in attrs["src"]
        assert "<script>alert('owned')</script>" in page.text


@pytest.mark.parametrize("queries", [160, 2000])
def test_a_page_of_many_queries_stays_light(queries: int) -> None:
    digests = [
        digest(
            f"q{n:04}", (7 * n % 100) / 100, (13 * n % 100) / 100, text=f"about as many words as a query has, {n}",
            calls=600 + n % 50, prompt_tokens=90_000 + n, completion_tokens=700, seconds=12.5, unknown=n % 3,
        )
        for n in range(queries)
    ]  # fmt: skip
    run = _run(digests)
    site = Site(_Alone(run), live=False)  # type: ignore[arg-type]
    size = len(site.render(_run_page(run)).encode())
    assert size < 500_000 if queries == 160 else size < 2_000_000


def test_words() -> None:
    assert [words.signed(v) for v in (0.1234, -0.1234, 0.0004, -0.0004, 0.0, None)] == [
        "+12.3", "−12.3", "0.0", "0.0", "0.0", "–",
    ]  # fmt: skip
    assert words.identity("local:" + 64 * "a" + ":float32") == "local:aaaaaaaa:float32"
    assert words.identity("openai:llava-1.5#png") == "openai:llava-1.5#png"
    assert words.identity(None) == "–"
    assert str(words.breakable("a/<b>:c")) == "a/<wbr>&lt;b&gt;:<wbr>c"
    assert unescape(str(words.breakable("x_y")).replace("<wbr>", "")) == "x_y"
    assert (words.day("2026-11-20T15:06:31+00:00"), words.hour("2026-11-20T15:06:31+00:00")) == ("20 Nov 2026", "15:06")
    assert (words.day("<soon>"), words.hour("<soon>")) == ("<soon>", "")
    assert [words.duration(s) for s in (0.04, 99.94, 100, 5999, 7260)] == [
        "0.0 s", "99.9 s", "1 min 40 s", "99 min 59 s", "2 h 01 min",
    ]  # fmt: skip
    assert (words.plural(1, "query", "queries"), words.plural(1200, "query", "queries")) == ("1 query", "1,200 queries")


def _run(digests: list[QueryDigest], judgments: dict[str, dict[str, int]] | None = None) -> Run:
    benchmark = {"name": "birds", "split": "test", "fingerprint": "f"}
    manifest = Manifest.model_validate(
        {
            "format": 1,
            "began": "2026-01-01T00:00:00+00:00",
            "configuration": {"benchmark": benchmark, "strategy": {"name": "s"}},
        }
    )
    found = {each.query_id: each for each in digests}
    return Run("r", "r", Path("nowhere"), None, manifest, None, judgments, found, None, None)


class _Alone:
    """A shelf with one run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.root = Path("nowhere")

    def runs(self) -> list[Run]:
        return [self._run]


def _run_page(run: Run) -> Page:
    return run_page.page(run, _Alone(run))  # type: ignore[arg-type]


def _page(digests: list[QueryDigest], judgments: dict[str, dict[str, int]] | None = None) -> Html:
    run = _run(digests, {} if judgments is None and digests[0].scores else judgments)
    return Html(Site(_Alone(run), live=False).render(_run_page(run)))  # type: ignore[arg-type]
