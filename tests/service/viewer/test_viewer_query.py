"""The page of a query against the results that it shows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.agent.trace_why import why
from fieldscope.agent.types import (
    Comparison,
    NothingMatches,
    RankedCandidate,
    RerankResult,
    Synthesis,
    TraceEvent,
    Verdict,
)
from fieldscope.service.viewer.charts.rank_flow import HEAD, emphasised, rank_flow, spread, stages
from fieldscope.service.viewer.pages import query
from fieldscope.service.viewer.pages.query import highlighted
from fieldscope.service.viewer.runs.rounds import rounds
from fieldscope.service.viewer.runs.run import Run
from fieldscope.service.viewer.site import Site
from tests.service.viewer import shelves

_VOID = {"img", "meta", "link", "br", "input", "path", "rect", "line"}
_UNCLOSED = {"td"}  # the matrix leaves out the end tags that HTML lets it


class Element:
    """An element of a page, with its text and those in it."""

    def __init__(self, tag: str, attributes: dict[str, str], parent: Element | None) -> None:
        self.tag, self.attributes, self.parent = tag, attributes, parent
        self.inside: list[Element | str] = []

    @property
    def classes(self) -> set[str]:
        return set(self.attributes.get("class", "").split())

    def all(self) -> Iterator[Element]:
        for each in self.inside:
            if isinstance(each, Element):
                yield each
                yield from each.all()

    def find(self, tag: str = "", **wanted: str) -> list[Element]:
        names = {name.rstrip("_").replace("_", "-"): value for name, value in wanted.items()}
        return [
            each
            for each in self.all()
            if (not tag or each.tag == tag)
            and all(value in each.attributes.get(name, "\0").split(" ") for name, value in names.items())
        ]

    def text(self, *, truth: bool = True) -> str:
        if not truth and "truth" in self.classes:
            return ""
        parts = [each if isinstance(each, str) else each.text(truth=truth) for each in self.inside]
        return " ".join("".join(parts).split()) if self.parent is None else "".join(parts)

    @property
    def words(self) -> str:
        return " ".join(self.text().split())


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = self.at = Element("", {}, None)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        while tag in _UNCLOSED and self.at.tag in _UNCLOSED:
            self.at = self.at.parent or self.root
        element = Element(tag, {name: value or "" for name, value in attrs}, self.at)
        self.at.inside.append(element)
        if tag not in _VOID:
            self.at = element

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.at.inside.append(Element(tag, {name: value or "" for name, value in attrs}, self.at))

    def handle_endtag(self, tag: str) -> None:
        if tag in _VOID:
            return
        while self.at.tag in _UNCLOSED and self.at.tag != tag:
            self.at = self.at.parent or self.root
        assert self.at.tag == tag, f"</{tag}> closes <{self.at.tag}>"
        self.at = self.at.parent or self.root

    def handle_data(self, data: str) -> None:
        self.at.inside.append(data)


def read(html: str) -> Element:
    reader = _Reader()
    reader.feed(html)
    assert reader.at is reader.root, f"<{reader.at.tag}> is never closed"
    return reader.root


def look(made: shelves.Made, run: str, query_id: str | None = None) -> tuple[Run, RerankResult, Element]:
    shelf = made.shelf()
    opened = shelf.run(run)
    assert opened is not None
    wanted = query_id or next(iter(opened.digests))
    page = query.page(opened, wanted, shelf)
    return opened, opened.result(wanted), read(Site(shelf, live=False).render(page))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> shelves.Made:
    return shelves.small(tmp_path_factory.mktemp("small"), queries=2)


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> shelves.Made:
    return shelves.big(tmp_path_factory.mktemp("big"), queries=2, runs=1)


def test_the_grid_shows_every_image_in_the_order_of_the_ranking(small: shelves.Made) -> None:
    run, result, page = look(small, "agent")
    (grid,) = page.find("ol", id="grid")
    tiles = grid.find("li", class_="tile")
    assert any(reason.text for reason in result.reasons)
    assert [tile.find("b")[0].words for tile in tiles] == [str(ranked.rank) for ranked in result.ranking]
    relevant = run.relevant(result.query_id)
    assert relevant
    for tile, ranked in zip(tiles, result.ranking, strict=True):
        rose = ranked.prior_rank - ranked.rank
        assert ("=" if not rose else f"▲{rose}" if rose > 0 else f"▼{-rose}") in tile.words
        assert bool(tile.find(class_="truth")) == (ranked.image_id in relevant)
        assert ranked.image_id in tile.words
        said = [reason.text for reason in result.reasons if reason.image_id == ranked.image_id]
        assert [line.words for line in tile.find(class_="reason")] == [" ".join(text.split()) for text in said if text]
        assert tile.find("img")[0].attributes["src"].endswith(".webp")


def test_the_matrix_has_p_expected_of_every_image_and_predicate(small: shelves.Made) -> None:
    _, result, page = look(small, "predicates")
    (table,) = page.find("table", data_sortable="matrix")
    keys = [head.attributes["data-key"] for head in table.find("th", scope="col")[1:]]
    assert keys == ["rank", "prior", "moved", "p", *(predicate.id for predicate in result.predicates)]
    said = {(verdict.image_id, verdict.predicate): verdict.p_expected for verdict in result.verdicts}
    rows = table.find("tbody")[0].find("tr")
    assert len(rows) == len(result.ranking)
    for row, ranked in zip(rows, result.ranking, strict=True):
        cells = row.find("td")
        assert [cell.words for cell in cells[:2]] == [str(ranked.rank), str(ranked.prior_rank)]
        for cell, predicate in zip(cells[4:], result.predicates, strict=True):
            p = said[ranked.image_id, predicate.id]
            assert p is not None
            assert cell.words == f"{p:.2f}"
            assert float(cell.attributes["data-value"]) == pytest.approx(p, abs=1e-4)
            assert cell.classes == {f"p{min(int(10 * p), 9)}"}


def test_questions_without_an_answer_have_marks_of_their_own(small: shelves.Made, tmp_path: Path) -> None:
    made = shelves.Made(tmp_path / "runs", small.images, small.store)
    source = small.run("predicates")
    result = _first(small, "predicates")
    silent = result.ranking[0].image_id
    known = {"error": "the server is away", "p_yes": None, "p_expected": None}
    verdicts = tuple(
        verdict.model_copy(update={"state": ("unknown", "not_asked")[n % 2], **known})
        if verdict.image_id == silent
        else verdict
        for n, verdict in enumerate(sorted(result.verdicts, key=lambda v: v.image_id))
    )
    _copy(source, made.run("gaps"), result.model_copy(update={"verdicts": verdicts}))
    _, _, page = look(made, "gaps", result.query_id)
    own = [verdict.state for verdict in verdicts if verdict.image_id == silent]
    row = page.find("table", data_sortable="matrix")[0].find("tbody")[0].find("tr")[0]
    marks = [cell.words for cell in row.find("td")[4:]]
    assert marks.count("?") == own.count("unknown") > 0
    assert marks.count("·") == own.count("not_asked") > 0
    assert all(cell.attributes["data-value"] == "" for cell in row.find("td")[4:])
    assert f"? {own.count('unknown')}" in page.find("li", class_="tile")[0].words
    assert "the server is away" in page.words
    counts = [cell.words for cell in page.find("td", class_="outcomes")]
    assert sum("1 unknown" in each for each in counts) == own.count("unknown")
    assert sum("1 not asked" in each for each in counts) == own.count("not_asked")


def test_the_image_that_sank_most_leads_its_list_with_what_sank_it(small: shelves.Made) -> None:
    _, result, page = look(small, "agent")
    lists = {section.attributes["aria-labelledby"]: section for section in page.find("section", class_="card")}
    assert lists["sank"].find("a", data_sort=min(_culprits(result), key=lambda found: found[0])[1])
    for name, sign in (("rose", 1), ("sank", -1)):
        moves = sorted((sign * (r.prior_rank - r.rank) for r in result.ranking), reverse=True)
        entries = lists[name].find("li")
        told = [int(re.search(r"[▲▼](\d+)", entry.words)[1]) for entry in entries]  # type: ignore[index]
        assert told == [move for move in moves if move > 0][: query.MOVERS]
        for entry in entries:
            image_id = entry.find("p")[0].find("a")[0].words
            sentence = why(result, image_id).sentence
            for link in entry.find("p")[1].find("a"):
                assert link.words in sentence
                assert f"sort={link.attributes['data-sort']}" in link.attributes["href"]


def test_scores_come_with_their_change_and_go_with_the_truth(small: shelves.Made) -> None:
    run, result, page = look(small, "agent")
    digest = run.digests[result.query_id]
    (figures,) = page.find("dl", class_="figures")
    assert f"{100 * digest.scores['AP@50']:.1f}" in figures.words
    assert "truth" in figures.classes
    blind = page.find("main")[0].text(truth=False)
    assert "AP@50" not in blind
    assert "match" in page.find("main")[0].text()
    assert "✓ match" not in blind
    for path in page.find("path", class_="fill-match"):
        assert "truth" in path.classes


def test_the_requests_own_words_are_marked_with_their_instruction(small: shelves.Made) -> None:
    _, result, page = look(small, "agent")
    assert result.synthesis is not None
    (heading,) = page.find("h1")
    assert heading.words == result.query_text
    for number, instruction in enumerate(result.synthesis.instructions, start=1):
        if instruction.words and instruction.words in result.query_text:
            marked = "".join(m.text() for m in heading.find("mark") if str(number) in m.attributes["data-of"].split())
            assert marked == instruction.words


def test_predicates_are_told_with_what_came_of_them(small: shelves.Made) -> None:
    _, result, page = look(small, "predicates")
    rows = page.find("table", class_="predicates")[0].find("tbody")[0].find("tr")
    for row, predicate in zip(rows, result.predicates, strict=True):
        assert predicate.question in row.words
        said = [v.p_expected for v in result.verdicts if v.predicate == predicate.id]
        holds = sum(p is not None and p > 0.5 for p in said)
        assert f"{holds} hold, {len(said) - holds} fail" in row.words


def test_costs_sum_to_what_the_result_asked(small: shelves.Made) -> None:
    _, result, page = look(small, "agent")
    (table,) = page.find("table", class_="costs")
    total = [cell.words for cell in table.find("tfoot")[0].find("td")]
    assert total[0] == f"{len(result.asked):,}"
    assert total[5] == f"{sum(asked.prompt_tokens for asked in result.asked):,}"
    calls = [row.find("td")[0].words for row in table.find("tbody")[0].find("tr")]
    assert sum(int(number.replace(",", "")) for number in calls) == len(result.asked)


def test_calls_about_the_query_itself_are_there_in_full(small: shelves.Made) -> None:
    _, result, page = look(small, "agent")
    calls = [each for each in page.find("details", class_="raw") if each.attributes["id"].startswith("call-")]
    assert [call.find("summary")[0].find("b")[0].words for call in calls] == [call.stage for call in result.calls]
    assert {"synthesize", "decompose"} <= {call.stage for call in result.calls}
    for shown, call in zip(calls, result.calls, strict=True):
        assert str(call.request_key) in shown.words
        assert "Request" in shown.words and "Response" in shown.words
        assert " ".join(call.text.split()) in shown.words
        assert result.query_text in shown.words or call.stage == "decompose"
    assert "not shown here" not in page.words


def test_a_strategy_that_asks_about_images_only_has_no_calls_of_the_query(small: shelves.Made) -> None:
    _, _, page = look(small, "clip")
    assert not page.find("section", aria_labelledby="calls")


def test_calls_that_would_make_the_page_heavy_are_counted(small: shelves.Made, tmp_path: Path) -> None:
    made = shelves.Made(tmp_path / "runs", small.images, small.store)
    result = _first(small, "agent")
    (thought,) = (call for call in result.calls if call.stage == "synthesize")
    joint = thought.model_copy(update={"stage": "joint"})
    many = (*[joint] * 200, *result.calls, *[thought] * 200)
    _copy(small.run("agent"), made.run("heavy"), result.model_copy(update={"calls": many}))
    run, _, page = look(made, "heavy", result.query_id)
    stages_shown = [each.find("summary")[0].find("b")[0].words for each in page.find("details", class_="raw")]
    assert 10 < len(stages_shown) < 100
    assert "joint" not in stages_shown  # the pages of their images have them
    assert f"{len(many) - len(stages_shown)} more calls are not shown here" in page.words
    shelf = made.shelf()
    html = Site(shelf, live=False).render(query.page(run, result.query_id, shelf))
    assert len(html.encode()) < 500_000


def test_a_strategy_without_a_model_says_so(small: shelves.Made) -> None:
    _, _, page = look(small, "clip")
    assert "asks no model" in page.words
    assert "No image changed its rank" in page.words
    assert not page.find("svg", class_="flow")
    assert not page.find("a", data_tab="flow")


def test_queries_lead_to_each_other_in_the_order_of_the_run(small: shelves.Made) -> None:
    run, _, page = look(small, "agent")
    first, second = run.digests
    assert not [a for a in page.find("a") if "data-previous" in a.attributes]
    (following,) = [a for a in page.find("a") if "data-next" in a.attributes]
    assert f"queries/{second}/" in following.attributes["href"]
    _, _, last = look(small, "agent", second)
    (previous,) = [a for a in last.find("a") if "data-previous" in a.attributes]
    assert f"queries/{first}/" in previous.attributes["href"]


def test_a_run_that_does_not_say_where_its_images_lie_has_placeholders(small: shelves.Made) -> None:
    shelves.copied(small, "predicates", "old", shelves.bare)
    _, result, page = look(small, "old")
    assert page.words.count("does not say where its images are") == 1
    tiles = page.find("li", class_="tile")
    assert not [image for tile in tiles for image in tile.find("img")]
    assert tiles[0].find(class_="no-picture")[0].words in result.ranking[0].image_id


def test_a_half_written_run_shows_what_is_there(small: shelves.Made) -> None:
    shelves.copied(small, "agent", "killed", lambda run: (run / "metrics.json").unlink())
    _, result, page = look(small, "killed")
    assert len(page.find("li", class_="tile")) == len(result.ranking)


def test_whatever_texts_say_they_are_shown_as_text(tmp_path: Path) -> None:
    made = shelves.hostile(tmp_path)
    _, result, page = look(made, "predicates")
    assert not [e for e in page.all() for name in e.attributes if name.startswith("on") or name == "style"]
    assert not [script for script in page.find("script") if script.inside]
    assert len(page.find("li", class_="tile")) == len(result.ranking) == 3
    main = page.find("main")[0].text()
    for text in (
        result.query_text,
        result.predicates[0].question,
        result.synthesis.thought if result.synthesis else "",
    ):
        assert text in main  # in full, and as it was written
    assert shelves.MARKUP in main
    folded = [d.text() for d in page.find("details")]
    assert sum(result.query_text in text for text in folded) >= 3  # and not in the way
    open_text = "".join(part if isinstance(part, str) else part.text() for part in page.find("h1")[0].inside)
    assert len(open_text) < 400


def test_pages_stay_small(big: shelves.Made, tmp_path: Path) -> None:
    shelf = big.shelf()
    run = shelf.run("agent")
    assert run is not None
    site = Site(shelf, live=False)
    for query_id in run.digests:
        assert len(site.render(query.page(run, query_id, shelf)).encode()) < 300_000
    larger = shelves.big(tmp_path, queries=1, candidates=300, predicates=11, runs=1)
    _, result, _ = look(larger, "agent")
    more = larger.shelf()
    opened = more.run("agent")
    assert opened is not None and len(result.ranking) == 300
    assert len(site.render(query.page(opened, result.query_id, more)).encode()) < 500_000


def test_stages_lead_from_the_prior_to_the_final_ranks(big: shelves.Made) -> None:
    result = _first(big, "agent")
    found = stages(result)
    assert [stage.name for stage in found][:1] == ["prior"]
    assert found[0].ranks == {ranked.image_id: ranked.prior_rank for ranked in result.ranking}
    assert found[-1].ranks == {ranked.image_id: ranked.rank for ranked in result.ranking}
    for stage in found:
        assert sorted(stage.ranks.values()) == list(range(1, len(result.ranking) + 1))


def test_two_stages_are_told_apart_by_what_the_comparisons_gave() -> None:
    """By hand: verification puts b, a, c in order, and the comparisons put a before b."""
    result = _result(
        [("a", 2, {"prior": 1.0, "p": 0.0, "comparisons": 2.0}), ("b", 1, {"prior": 2.0, "p": 0.5}),
         ("c", 3, {"prior": 0.0, "p": -1.0})],
        verdicts=(Verdict(predicate="p", image_id="a", state="answered", p_yes=0.5, p_expected=0.5),),
        comparisons=(Comparison(shown=("a", "b"), probabilities=(0.9, 0.1), state="answered"),),
    )  # fmt: skip
    assert [(stage.name, dict(stage.ranks)) for stage in stages(result)] == [
        ("prior", {"a": 2, "b": 1, "c": 3}),
        ("after verification", {"a": 2, "b": 1, "c": 3}),
        ("after comparison", {"a": 1, "b": 2, "c": 3}),
    ]
    flow = rank_flow(result)
    assert flow is not None
    assert [name for name, _ in flow.columns] == ["prior", "after verification", "after comparison"]


def test_stages_that_a_result_does_not_tell_apart_are_one_step() -> None:
    result = _result(
        [("a", 2, {}), ("b", 1, {})],
        verdicts=(Verdict(predicate="p", image_id="a", state="answered", p_yes=0.5, p_expected=0.5),),
        comparisons=(Comparison(shown=("a",), probabilities=(0.9,), state="answered"),),
    )
    assert [stage.name for stage in stages(result)] == ["prior", "final"]


def test_the_head_and_those_that_moved_far_stand_out() -> None:
    ranked = [(f"{n}", n + 1, {}) for n in range(1, 41)]
    ranked = [(image, 1 if image == "40" else prior, parts) for image, prior, parts in ranked]
    kinds = emphasised(_result(ranked))
    assert kinds["40"] == "sank"
    assert all(kinds[str(n)] in ("head", "rose") for n in range(1, HEAD + 1))
    assert len(kinds) < 20


@given(st.lists(st.integers(0, 640), max_size=20).map(sorted))
def test_labels_keep_their_order_and_their_distance(heights: Sequence[int]) -> None:
    apart = spread([46.0 + height for height in heights], 27.0, 640.0)
    assert all(after - before >= 27.0 - 1e-6 for before, after in pairwise(apart))
    assert all(at <= 686.0 for at in apart)


def test_labels_with_room_stay_where_they_are() -> None:
    assert spread([50.0, 100.0, 101.0], 20.0, 640.0) == [50.0, 100.0, 120.0]


@given(st.text(max_size=60), st.lists(st.text(max_size=6), max_size=5))
def test_pieces_sum_to_the_text_and_are_marked_by_what_they_are_part_of(text: str, words: list[str]) -> None:
    pieces = highlighted(text, words)
    assert "".join(piece for piece, _ in pieces) == text
    assert all(1 <= number <= len(words) for _, numbers in pieces for number in numbers)
    for number, wanted in enumerate(words, start=1):
        marked = "".join(piece for piece, numbers in pieces if number in numbers)
        found = re.search(r"\s+".join(map(re.escape, wanted.split())), text, re.IGNORECASE) if wanted.split() else None
        assert marked == (found[0] if found else "")


def test_words_that_overlap_are_marked_with_both() -> None:
    assert highlighted("Exactly  one crab", ["exactly one", "one crab", "", "fox"]) == [
        ("Exactly  ", (1,)),
        ("one", (1, 2)),
        (" crab", (2,)),
    ]


def test_rounds_are_told_with_what_they_found_wanting() -> None:
    events = [
        ("synthesized", {"round": 0, "descriptions": ["a crab"]}),
        ("retrieved", {"round": 0, "candidates": 100, "given": False, "new": 100}),
        ("decomposed", {"round": 0, "new": {"p-1": "is it a crab? yes"}}),
        ("checked", {"round": 0, "unchanged": True, "again": True}),
        ("synthesized", {"round": 1, "descriptions": ["a red crab"]}),
        ("decomposed", {"round": 1, "new": {"p-2": "is it red? yes"}, "gone": ["p-1"]}),
        ("planned", {"wave": 1, "questions": 8, "images": 8}),
        ("planned", {"wave": 2, "questions": 3, "images": 3}),
        ("assessed", {"confirmed": 1, "wanting": "too few images match.", "again": True}),
        ("refined", {"round": 2, "because": "too few images match.", "window": 150}),
        ("synthesized", {"round": 2, "kept": "the new answer says the same"}),
        ("assessed", {"confirmed": "many"}),
        ("painted", {"round": 9}),
    ]
    result = _result([("a", 1, {})]).model_copy(
        update={"trace": tuple(TraceEvent(kind=kind, at=0.0, data=data) for kind, data in events)}
    )
    first, second, third = rounds(result)
    assert first.checked is not None and first.checked.again and first.retrieved is not None
    assert second.questions == 11 and second.decomposed is not None and second.decomposed.gone == ("p-1",)
    assert second.assessed is not None and second.assessed.wanting == "too few images match."
    assert second.refined is not None and second.refined.window == 150
    assert third.synthesized is not None and third.synthesized.kept == "the new answer says the same"
    assert third.assessed is None  # what it says can't be read


def test_refinement_budget_and_fallback_are_told_in_words(small: shelves.Made, tmp_path: Path) -> None:
    made = shelves.Made(tmp_path / "runs", small.images, small.store)
    result = _first(small, "agent")
    gone = TraceEvent(kind="decomposed", at=1.0, data={"round": 1, "gone": [result.predicates[-1].id]})
    refined = TraceEvent(kind="refined", at=0.9, data={"round": 1, "because": "too few images match.", "window": 150})
    changed = result.model_copy(
        update={
            "ended": "verify",
            "trace": (*result.trace, refined, gone),
            "synthesis": Synthesis(thought="", core="a", detailed="a", comprehensive="a", fallback="no JSON in sight"),
        }
    )
    _copy(small.run("agent"), made.run("cut"), changed)
    _, _, page = look(made, "cut", result.query_id)
    assert "The budget ran out in stage verify" in page.words
    assert "The synthesis failed (no JSON in sight)" in page.words
    assert "the best 150 are verified" in page.words
    given_up = page.find("ol", class_="rounds")[0].find("li", class_="card")[1].words
    assert result.predicates[-1].question in given_up


def test_that_nothing_matches_is_said_with_the_nearest_images_and_what_they_lack(
    small: shelves.Made, tmp_path: Path
) -> None:
    made = shelves.Made(tmp_path / "runs", small.images, small.store)
    result = _first(small, "predicates")
    _, _, second = result.predicates[:3]
    nearest = tuple(ranked.image_id for ranked in result.ranking[2:4])
    decision = NothingMatches(statistic=0.07, threshold=0.3, judged=16, failing=(second.id,), nearest=nearest)
    changed = result.model_copy(update={"nothing": decision, "relative": True})
    _copy(small.run("predicates"), made.run("none"), changed)
    _, _, page = look(made, "none", result.query_id)
    assert "No image seems to match (best P(match) 0.07, threshold 0.30)." in page.words
    assert f"No image shows: {second.words} ({second.question})." in page.words
    assert "which is relative to this list of images" in page.words
    (table,) = [table for table in page.find("table") if "Nearest by parts that hold" in table.words]
    assert [name for name in nearest if name in table.words] == list(nearest)
    (grid,) = page.find("ol", id="grid")
    tiles = {link.attributes["href"] for link in grid.find("a")}
    assert {link.attributes["href"] for link in table.find("a")} < tiles


def _result(
    ranked: Sequence[tuple[str, int, dict[str, float]]],
    verdicts: tuple[Verdict, ...] = (),
    comparisons: tuple[Comparison, ...] = (),
) -> RerankResult:
    return RerankResult(
        query_id="q",
        query_text="a crab",
        strategy="by hand",
        ranking=tuple(
            RankedCandidate(
                image_id=image_id, rank=rank, score=-rank, prior=0.0, prior_rank=prior_rank, contributions=parts
            )
            for rank, (image_id, prior_rank, parts) in enumerate(ranked, start=1)
        ),
        verdicts=verdicts,
        comparisons=comparisons,
    )


def _first(made: shelves.Made, name: str) -> RerankResult:
    run = made.shelf().run(name)
    assert run is not None
    return run.result(next(iter(run.digests)))


def _culprits(result: RerankResult) -> list[tuple[int, str]]:
    """For each image that sank, its move in ranks, and of the predicates about a part the worst."""
    parts = {predicate.id for predicate in result.predicates if predicate.kind != "query"}
    found = []
    for ranked in result.ranking:
        shares = {name: value for name, value in ranked.contributions.items() if name in parts}
        if ranked.rank > ranked.prior_rank and shares and min(shares.values()) < 0:
            found.append((ranked.prior_rank - ranked.rank, min(shares, key=lambda name: shares[name])))
    return found


def _copy(source: Path, target: Path, result: RerankResult) -> None:
    """A run's folder with only this result in it."""
    target.mkdir(parents=True)
    for name in ("manifest.json", "inputs.jsonl", "collection.json", "qrels.trec", "metrics.json"):
        (target / name).write_bytes((source / name).read_bytes())
    (target / "results.jsonl").write_text(f"{result.model_dump_json()}\n")
