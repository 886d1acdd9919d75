"""The pages of a comparison against the runs' files and the statistics that they show."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.agent.trace_diff import diff
from fieldscope.agent.trace_why import why
from fieldscope.agent.types import RerankResult
from fieldscope.eval.measures.run_comparison import Pair, compare_runs
from fieldscope.eval.reported import GENERAL
from fieldscope.eval.runs.scored import read_scored
from fieldscope.prompts.prompt import Prompt
from fieldscope.service.viewer import addresses
from fieldscope.service.viewer.charts.slopes import ROW, slopes
from fieldscope.service.viewer.comparison.effects import compare_sides, scored_runs
from fieldscope.service.viewer.comparison.one_query import prompts_of
from fieldscope.service.viewer.comparison.sides import common, letter, sides
from fieldscope.service.viewer.page import NoPage, Page
from fieldscope.service.viewer.pages import compare, compare_query
from fieldscope.service.viewer.runs.run import Run
from fieldscope.service.viewer.site import Site
from tests.service.viewer import shelves
from tests.service.viewer.shelves import SCRIPT, Made

_VOID = {"img", "meta", "link", "br", "input", "hr"}


class Read(HTMLParser):
    """A page as a reader has it: its words, without those that mark the truth if that is hidden, and its links."""

    def __init__(self, html: str, *, truth: bool = True) -> None:
        super().__init__()
        self.links: list[tuple[str, str]] = []
        self.words = ""
        self._open: list[tuple[str, bool]] = []
        self._truth = truth
        self.feed(html)
        self.words = " ".join(self.words.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given_ = dict(attrs)
        if tag == "a" and self._shown():
            self.links.append((given_.get("href") or "", ""))
        if tag not in _VOID:
            hidden = not self._truth and "truth" in (given_.get("class") or "").split()
            self._open.append((tag, hidden))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not self._shown():
            return
        self.words += data
        if any(tag == "a" for tag, _ in self._open):
            href, words = self.links[-1]
            self.links[-1] = href, words + data

    def _shown(self) -> bool:
        return not any(hidden for _, hidden in self._open)


def opened(made: Made, *names: str) -> list[Run]:
    site = Site(made.shelf(), live=False)
    return [site.run(addresses.slug(name)) for name in names]


def rendered(made: Made, page: Page) -> str:
    return Site(made.shelf(), live=False).render(page)


def scores(made: Made, name: str, metric: str = "AP@50") -> dict[str, float]:
    told = json.loads((made.run(name) / "metrics.json").read_text())["per_query"]
    return {query: values[metric] for query, values in told.items()}


def test_what_each_query_gains_is_what_the_runs_files_say(small_shelf: Made) -> None:
    page = compare.page(opened(small_shelf, "clip", "agent"))
    before, after = scores(small_shelf, "clip"), scores(small_shelf, "agent")
    rows = {row.query_id: row for row in page.context["rows"]}
    assert rows.keys() == before.keys()
    for query, row in rows.items():
        assert row.scores == pytest.approx((before[query], after[query]))
        assert row.gains == pytest.approx((after[query] - before[query],))
        assert row.outcomes == ("won" if row.gains[0] > 1e-12 else "lost" if row.gains[0] < -1e-12 else "tied",)
    words = Read(rendered(small_shelf, page)).words
    for query in rows:
        assert f"{100 * before[query]:.1f} {100 * after[query]:.1f}" in words


def test_the_statistics_are_those_of_the_command_line(small_shelf: Made) -> None:
    names = ("clip", "predicates", "agent")
    found = sides(opened(small_shelf, *names))
    measured = compare_sides(scored_runs(found, common(found)))
    expected = compare_runs([read_scored(small_shelf.run(name), name) for name in names])
    assert [(pair.a.name, pair.b.name) for pair in measured.pairs] == [(p.a.name, p.b.name) for p in expected.pairs]
    for own, theirs in zip(measured.pairs, expected.pairs, strict=True):
        for metric in GENERAL.compared:
            effect, wanted = own.effects[metric], theirs.effects[metric]
            assert effect.p_holm == wanted.p_holm
            assert vars(effect.test) == pytest.approx(vars(wanted.test))
            for outcome in ("won", "tied", "lost"):
                assert getattr(own, outcome)(metric) == getattr(theirs, outcome)(metric)


def test_lists_begin_with_the_largest_difference(small_shelf: Made) -> None:
    found = sides(opened(small_shelf, "clip", "agent"))
    a, b = scored_runs(found, common(found))
    gains = {"best": 0.5, "good": 0.1, "same": 1e-15, "bad": -0.1, "worst": -0.4}
    pair = Pair(a, b, {}, {}, {"AP@50": gains})
    assert (pair.won("AP@50"), pair.tied("AP@50"), pair.lost("AP@50")) == (["best", "good"], ["same"], ["worst", "bad"])


def test_of_many_runs_each_is_tested_against_the_first(small: Made) -> None:
    names = ["clip", "agent", *(f"agent-{n}" for n in range(4))]
    for name in names[2:]:
        shelves.copied(small, "agent", name)
    page = compare.page(opened(small, *names))
    assert [(pair.a.name, pair.b.name) for pair in page.context["measured"].pairs] == [("clip", n) for n in names[1:]]
    assert len(page.context["charts"]) == compare.DRAWN - 1
    assert "Charts and lists of the other runs" in rendered(small, page)


def test_from_the_comparison_to_the_predicate_that_sank_an_image_by_links_alone(small: Made) -> None:
    worst = _hurt(small)
    site = Site(small.shelf(), live=False)
    top = site.page(addresses.compare_page(["clip", "hurt"]))
    html = site.render(top)
    hurt = html[html.index("Hurt most by hurt") : html.index("Helped most by hurt")]
    href, words = Read(hurt).links[0]
    query = site.page(_joined(top.address, href))
    assert words == query.title
    assert query.context["query_id"] == worst
    run = site.run("hurt")
    told = query.context["against"][0].fell
    moves = {i.image_id: i.moved for i in diff(site.run("clip").result(worst), run.result(worst)).images}
    assert moves[told.image.image_id] == min(moves.values()) < 0
    html = site.render(query)
    fallen = html[html.index("Lost the most ranks") : html.index("Gained the most ranks")]
    parts = why(run.result(worst), told.image.image_id).parts
    sank = min((p for p in parts if p.predicate and p.predicate.kind != "query"), key=lambda p: p.log_odds or 0.0)
    assert sank.predicate is not None
    assert f"Sunk by {sank.predicate.question}" in Read(fallen).words
    assert _joined(query.address, Read(fallen).links[0][0]) == addresses.image_page("hurt", worst, told.image.image_id)


def test_every_link_leads_to_a_page_of_the_site(small_shelf: Made) -> None:
    site = Site(small_shelf.shelf(), live=False)
    pages = {*site.addresses(), addresses.INDEX}
    keys = ["clip", "predicates", "agent"]  # what asks least leads
    query = next(iter(scores(small_shelf, "clip")))
    for address in (addresses.compare_page(keys), addresses.compare_query_page(keys, query)):
        links = [href.split("?")[0].split("#")[0] for href, _ in Read(site.render(site.page(address))).links]
        assert {_joined(address, href) for href in links if href} <= pages


def test_three_runs_are_shown_with_lines_between_neighbours(small_shelf: Made) -> None:
    runs = opened(small_shelf, "clip", "predicates", "agent")
    query = next(iter(runs[0].digests))
    page = compare_query.page(runs, query)
    first, second, third = page.context["columns"]
    assert [place.image_id for place in third.places] == [r.image_id for r in runs[2].result(query).ranking]
    assert len(second.lines) == len(third.lines) == len(first.places)
    assert not first.lines
    numbers = {place.image: place.rank for place in second.places}
    for line in third.lines:
        assert line.start == ROW * (numbers[line.image] - 0.5)
    html = rendered(small_shelf, page)
    assert html.count("<li data-place=") == 3 * len(first.places)
    matches = runs[0].relevant(query) or frozenset()
    assert html.count(">match</em>") == 3 * len(matches) > 0


@given(st.permutations(range(12)), st.permutations(range(6, 20)))
def test_lines_join_the_places_of_the_same_image(left: Sequence[int], right: Sequence[int]) -> None:
    found = slopes(left, right)
    assert sorted(line.image for line in found) == list(range(6, 12))
    for line in found:
        place, other = left.index(line.image), right.index(line.image)
        assert (line.start, line.end) == (ROW * (place + 0.5), ROW * (other + 0.5))
        assert line.side == ("better" if other < place else "worse" if other > place else "even")


def test_predicates_are_told_by_the_runs_that_asked_them(small_shelf: Made) -> None:
    runs = opened(small_shelf, "clip", "predicates", "agent")
    query = next(iter(runs[0].digests))
    page = compare_query.page(runs, query)
    groups = {tuple(side.name for side in who): asked for who, asked in page.context["predicates"]}
    ours, theirs = ({p.question for p in run.result(query).predicates} for run in runs[1:])
    assert {each.predicate.question for each in groups["predicates", "agent"]} == ours & theirs
    result = runs[1].result(query)
    one = groups["predicates", "agent"][0]
    its = next(p.id for p in result.predicates if p.question == one.predicate.question)
    said = [v.p_expected for v in result.verdicts if v.predicate == its and v.p_expected is not None]
    assert one.runs["B"].answered == len(said)
    assert one.runs["B"].held == sum(p > 0.5 for p in said)


def test_a_predicate_holds_of_an_image_above_one_half(small: Made) -> None:
    (run,) = opened(small, "predicates")
    query = next(iter(run.digests))
    result = run.result(query)
    asked = result.predicates[0]
    first, second, *_ = (v for v in result.verdicts if v.predicate == asked.id)
    changed = {first.image_id: 0.45, second.image_id: 0.55}
    verdicts = tuple(
        v.model_copy(update={"p_expected": changed.get(v.image_id, 0.01)}) if v.predicate == asked.id else v
        for v in result.verdicts
    )
    _edit(small.run("predicates"), query, verdicts=verdicts)
    page = compare_query.page(opened(small, "clip", "predicates"), query)
    told = {each.predicate.question: each.runs["B"] for _, group in page.context["predicates"] for each in group}
    assert told[asked.question].held == 1


def test_hidden_truth_is_not_given_away_by_numbers(small_shelf: Made) -> None:
    runs = opened(small_shelf, "clip", "agent")
    for page in (compare.page(runs), compare_query.page(runs, next(iter(runs[0].digests)))):
        html = rendered(small_shelf, page)
        shown, hidden = Read(html).words, Read(html, truth=False).words
        for tell in ("AP@50", "won", "▲ Helped most", "match ▲", "Of the matches", "● a match"):
            assert tell not in hidden, tell
        assert "AP@50" in shown
        for score in scores(small_shelf, "clip").values():
            assert f"{100 * score:.1f} " not in hidden.replace("0.0 s", "")


def test_prompts_are_marked_word_by_word(small: Made) -> None:
    shelves.copied(small, "predicates", "reworded", lambda run: _reword(run, "Look closely at it."))
    runs = opened(small, "predicates", "reworded")
    page = compare_query.page(runs, next(iter(runs[0].digests)))
    html = rendered(small, page)
    assert re.search(r"<ins>[^<]*Look closely at it", html)
    differing = [both for both in page.context["against"][0].prompts if both.wordings]
    assert len(differing) == 1
    assert "The same in both" in Read(html).words


def prompt(name: str, template: str = "yes?", answer: str = "yes_no") -> Prompt:
    return Prompt.model_validate({"name": name, "variables": ["query"], "answer": answer, "template": template})


def test_prompts_of_other_names_are_coupled_by_their_purpose() -> None:
    ours = [prompt("same"), prompt("mine", "{{ query }}?"), prompt("letters", answer="letter")]
    theirs = [prompt("same"), prompt("yours", "is it {{ query }}?")]
    told = [(p.a and p.a.name, p.b and p.b.name, bool(p.wordings)) for p in prompts_of(ours, theirs)]
    assert told == [("mine", "yours", True), ("letters", None, True), ("same", "same", False)]


def test_what_runs_do_not_share_is_told_and_left_out(small: Made) -> None:
    first = next(iter(scores(small, "clip")))
    shelves.copied(small, "agent", "half", shelves.half_written)
    shelves.copied(small, "agent", "other", lambda run: _edit(run, first, query_text="something else"))
    shelves.copied(small, "agent", "judged", lambda run: _judge_anew(run, first))
    cases = {
        "half": ("half is not finished: 2 queries are ranked so far", 2, 2),
        "other": (f"{first} was asked for something else in these runs and is not compared", 3, 3),
        "judged": (f"{first} was judged differently in these runs and is not scored here", 4, 3),
    }
    for name, (sentence, queries, scored) in cases.items():
        page = compare.page(opened(small, "clip", name))
        shared = page.context["shared"]
        assert sentence in shared.sentences
        assert (len(shared.queries), len(shared.scored)) == (queries, scored)
        assert sentence in Read(rendered(small, page)).words
    page = compare_query.page(opened(small, "clip", "other"), first)
    assert "asks for something else" in page.context["sentences"][0]
    assert "so there is nothing to compare" in rendered(small, page)


def test_without_judgments_rankings_are_compared_all_the_same(small: Made) -> None:
    for name in ("clip", "agent"):
        shelves.bare(small.run(name))
        (small.run(name) / "qrels.trec").unlink()
    runs = opened(small, "clip", "agent")
    page = compare.page(runs)
    assert page.context["measured"] is None
    words = Read(rendered(small, page)).words
    assert "clip and agent do not say which images match, so nothing can be scored" in words
    words = Read(rendered(small, compare_query.page(runs, next(iter(runs[0].digests))))).words
    assert "Lost the most ranks" in words
    assert "At least one of these runs does not keep its prompts" in words


def test_runs_of_nothing_in_common(small: Made, tmp_path: Path) -> None:
    other = shelves.small(tmp_path / "more", queries=1, strategies=["clip"])
    shutil.copytree(other.run("clip"), small.run("else"))
    for line in ("results.jsonl", "metrics.json", "qrels.trec"):
        path = small.run("else") / line
        path.write_text(re.sub(r"\bq(\d)", r"z\1", path.read_text()))
    page = compare.page(opened(small, "clip", "else"))
    assert not page.context["shared"].queries
    assert "These runs have no query in common" in rendered(small, page)


def test_hostile_texts_are_shown_escaped(hostile_shelf: Made, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    shutil.copytree(hostile_shelf.root, root)
    made = Made(root, hostile_shelf.images, hostile_shelf.store)
    shelves.copied(made, "predicates", "again", _backwards)
    runs = opened(made, "predicates", "again")
    for page in (compare.page(runs), compare_query.page(runs, next(iter(runs[0].digests)))):
        html = rendered(made, page)
        assert SCRIPT not in html
        assert "<img src=x" not in html
        assert "style=" not in html
        assert not re.search(r"\son\w+=", html.replace("&#34;", "").replace(" onerror=alert(1)&gt;", ""))
        assert "owned" in html
    assert len(html) < 500_000


def test_comparisons_that_are_none_are_refused(small_shelf: Made) -> None:
    site = Site(small_shelf.shelf(), live=False)
    for names in ("clip", "clip+clip", "clip+nothing"):
        with pytest.raises(NoPage):
            site.page(f"compare/{names}/index.html")


def test_letters_go_on_beyond_the_alphabet() -> None:
    assert [letter(n) for n in (0, 25, 26, 52)] == ["A", "Z", "A1", "A2"]


def _joined(address: str, href: str) -> str:
    """Where a link on a page leads, from the site's root."""
    parts = address.split("/")[:-1]
    for part in href.split("?", maxsplit=1)[0].split("#", maxsplit=1)[0].split("/"):
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def _results(run: Path) -> dict[str, RerankResult]:
    lines = (run / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return {result.query_id: result for result in map(RerankResult.model_validate_json, lines)}


def _write(run: Path, results: dict[str, RerankResult]) -> None:
    text = "".join(f"{result.model_dump_json()}\n" for result in results.values())
    (run / "results.jsonl").write_text(text, encoding="utf-8")


def _edit(run: Path, query: str, **changes: object) -> None:
    results = _results(run)
    _write(run, results | {query: results[query].model_copy(update=changes)})


def _backwards(run: Path) -> None:
    """Its first ranking turned round."""
    query, result = next(iter(_results(run).items()))
    turned = [ranked.model_copy(update={"rank": n}) for n, ranked in enumerate(reversed(result.ranking), start=1)]
    _edit(run, query, ranking=tuple(turned))


def _hurt(made: Made) -> str:
    """A run `hurt`, which the agent made but for one query, in which the prior's best match sank to the end for the
    sake of one predicate. Its id."""
    shelves.copied(made, "agent", "hurt")
    run = made.run("hurt")
    (clip,) = opened(made, "clip")
    query = next(q for q, digest in clip.digests.items() if digest.scores["AP@50"] > 0.3)
    result = _results(run)[query]
    best = next(r.image_id for r in clip.result(query).ranking if r.image_id in (clip.relevant(query) or ()))
    guilty = next(p.id for p in result.predicates if p.kind != "query")
    order = sorted(result.ranking, key=lambda r: (r.image_id in (clip.relevant(query) or ()), r.image_id == best))
    ranking = []
    for rank, ranked in enumerate(order, start=1):
        sunk = {"contributions": {**ranked.contributions, guilty: -30.0}} if ranked.image_id == best else {}
        ranking.append(ranked.model_copy(update={"rank": rank, "score": -float(rank), **sunk}))
    _edit(run, query, ranking=tuple(ranking))
    return query


def _reword(run: Path, words: str) -> None:
    """Other words in the prompt that asks predicates."""
    lines = (run / "inputs.jsonl").read_text(encoding="utf-8").splitlines()
    first = json.loads(lines[0])
    first["definition"]["verify"]["prompt"]["template"] += f" {words}"
    (run / "inputs.jsonl").write_text("\n".join([json.dumps(first), *lines[1:]]) + "\n", encoding="utf-8")


def _judge_anew(run: Path, query: str) -> None:
    """The judgments of one query turned round."""
    path = run / "qrels.trec"
    lines = [line.split() for line in path.read_text().splitlines()]
    path.write_text(
        "".join(f"{q} {zero} {image} {1 - int(mark) if q == query else mark}\n" for q, zero, image, mark in lines)
    )
