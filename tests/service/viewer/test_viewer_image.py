"""The page of an image, against what the run's folder and the response cache have."""

from __future__ import annotations

import html
import json
import math
import re
from contextlib import closing
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.agent.trace_above import above
from fieldscope.agent.trace_why import why
from fieldscope.agent.types import Asked, Predicate, RankedCandidate, Reason, RerankResult, Verdict
from fieldscope.cache.sqlite import SqliteStore
from fieldscope.core.errors import ConfigError
from fieldscope.service.metadata.records import Records
from fieldscope.service.metadata.store import write_records
from fieldscope.service.viewer import addresses
from fieldscope.service.viewer.charts.contributions import WIDTH, contributions
from fieldscope.service.viewer.formats import chance, odds
from fieldscope.service.viewer.page import NoPage
from fieldscope.service.viewer.pages import image
from fieldscope.service.viewer.runs.exchange import exchanges
from fieldscope.service.viewer.runs.rebuilt import rebuilt
from fieldscope.service.viewer.runs.run import Run
from fieldscope.service.viewer.runs.run_list import RunList
from fieldscope.service.viewer.site import Site
from tests.service.viewer import shelves
from tests.service.viewer.shelves import Made

JOINT = """\
name: joint
synthesize: {prompt: synthesize, again: synthesize_again, caption: caption}
decompose: {prompt: decompose}
verify: {prompt: ask_predicate, joint: {prompt: ask_joint, sample: 0.1}}
fusion: {method: posterior, prior_weight: 1.0}
"""


def open_run(made: Made, name: str, store: Path | None = None) -> Run:
    run = RunList(made.root, store=store).run(addresses.slug(name))
    assert run is not None
    return run


def shown(made: Made, name: str, query_id: str, image_id: str, store: Path | None = None) -> str:
    """The HTML of an image's page."""
    site = Site(RunList(made.root, store=store), live=False)
    return site.render(site.page(addresses.image_page(addresses.slug(name), query_id, image_id)))


def words(page: str) -> str:
    """What a page says, without its elements."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def elements(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = _Elements()
    parser.feed(page)
    return parser.found


def questions(result: RerankResult) -> list[Asked]:
    everything: list[Asked] = [*result.calls, *result.verdicts, *result.comparisons, *result.reasons]
    return [asked for asked in everything if asked.request_key]


# The page


def test_every_verdict_is_told_with_its_call(small_shelf: Made) -> None:
    run = open_run(small_shelf, "agent")
    query_id = next(iter(run.digests))
    result = run.result(query_id)
    with closing(SqliteStore(small_shelf.store)) as store:
        for ranked in (result.ranking[0], result.ranking[-1]):
            page = shown(small_shelf, "agent", query_id, ranked.image_id, small_shelf.store)
            said = words(page)
            assert f"Image {ranked.image_id}" in said
            assert f"of {len(result.ranking)}" in said
            assert f"score {ranked.score:.3f}".replace("-", "−") in said
            assert why(result, ranked.image_id).sentence in said
            asked = [v for v in result.verdicts if v.image_id == ranked.image_id and v.state == "answered"]
            assert asked
            for verdict in asked:
                predicate = next(p for p in result.predicates if p.id == verdict.predicate)
                assert predicate.question in said
                assert chance(verdict.p_yes) in said
                assert str(verdict.request_key) in said
                entry = store.get(verdict.request_key or "")
                assert entry is not None
                for alternative in json.loads(entry.response)["answer_logprobs"]:
                    assert f"{alternative['logprob']:.3f}".replace("-", "−") in said


def test_any_two_images_have_a_page_that_says_what_separates_them(small_shelf: Made) -> None:
    run = open_run(small_shelf, "agent")
    query_id = next(iter(run.digests))
    first, *_, last = run.result(query_id).ranking
    site = Site(RunList(small_shelf.root, store=small_shelf.store), live=True)
    address = addresses.above_page(run.key, query_id, last.image_id, first.image_id)
    chosen = site.render(site.page(addresses.image_page(run.key, query_id, last.image_id)))
    assert addresses.slug(first.image_id) + ".html" in chosen and "What separates them?" in chosen
    page = site.render(site.page(address))
    said = words(page)
    found = above(run.result(query_id), first.image_id, last.image_id)
    assert found.sentence in said
    for each in found.contrasts:
        assert each.ahead is None or odds(each.ahead) in said
    with pytest.raises(ConfigError, match="can't stand above itself"):
        site.page(addresses.above_page(run.key, query_id, first.image_id, first.image_id))
    with pytest.raises(NoPage):
        site.page(addresses.above_page(run.key, query_id, first.image_id, "../../etc/passwd"))
    copy = Site(RunList(small_shelf.root, store=small_shelf.store), live=False)
    with pytest.raises(NoPage):
        copy.page(address)


def test_the_steps_lead_along_the_ranking(small_shelf: Made) -> None:
    run = open_run(small_shelf, "predicates")
    query_id = next(iter(run.digests))
    order = [ranked.image_id for ranked in run.result(query_id).ranking]
    for place in (0, 3, len(order) - 1):
        page = shown(small_shelf, "predicates", query_id, order[place])
        steps = {key: attrs["href"] for tag, attrs in elements(page) for key in ("data-previous", "data-next")
                 if tag == "a" and key in attrs}  # fmt: skip
        for key, other in (("data-previous", place - 1), ("data-next", place + 1)):
            if 0 <= other < len(order):
                assert str(steps[key]).endswith(f"/images/{addresses.slug(order[other])}.html")
            else:
                assert key not in steps


def test_truth_is_told_where_it_can_be_hidden(small_shelf: Made) -> None:
    run = open_run(small_shelf, "clip")
    query_id = next(iter(run.digests))
    relevant = run.relevant(query_id) or frozenset()
    for ranked in run.result(query_id).ranking:
        page = shown(small_shelf, "clip", query_id, ranked.image_id)
        truth = page[page.index('class="truth"') :]
        verdict = "✓ match" if ranked.image_id in relevant else "✗ no match"
        assert verdict in words(truth[: truth.index("</div>")])
        assert verdict not in words(page.replace(truth[: truth.index("</div>")], ""))


def test_comparisons_are_told_in_both_orders(small_shelf: Made) -> None:
    run = open_run(small_shelf, "agent")
    query_id, result = next((q, run.result(q)) for q in run.digests if run.result(q).comparisons)
    first = result.comparisons[0]
    page = image.page(run, query_id, first.shown[0])
    (matchup, orders), *_ = page.context["matchups"]
    assert {order.shown for order in orders} == {first.shown, first.shown[::-1]}
    for order, comparison in zip(orders, matchup.comparisons, strict=True):
        assert dict(zip(matchup.images, order.p_best, strict=True)) == dict(
            zip(comparison.shown, comparison.probabilities, strict=True)
        )
    said = words(Site(RunList(small_shelf.root), live=False).render(page))
    assert ("the orders agree" in said) == any(m.agree is True for m, _ in page.context["matchups"])
    assert f"A: this · B: {first.shown[1]}" in said
    assert f"A: {first.shown[1]} · B: this" in said


def test_a_run_without_a_model_says_so(small_shelf: Made) -> None:
    run = open_run(small_shelf, "clip")
    query_id = next(iter(run.digests))
    said = words(shown(small_shelf, "clip", query_id, run.result(query_id).ranking[0].image_id))
    assert "This strategy asks no model" in said
    assert "Requests and responses" not in said


@pytest.mark.parametrize("name", ["clip", "predicates", "agent"])
def test_an_old_run_has_all_pages(small: Made, name: str) -> None:
    shelves.bare(small.run(name))
    run = open_run(small, name)
    query_id = next(iter(run.digests))
    for ranked in run.result(query_id).ranking[:3]:
        page = shown(small, name, query_id, ranked.image_id)
        assert "this run does not say where its images are" in page
        assert "<img" not in page[page.index("<main") :]


def test_a_damaged_cache_is_none(small: Made, tmp_path: Path) -> None:
    (tmp_path / "store.sqlite").write_bytes(b"no database" * 1000)
    run = open_run(small, "agent", tmp_path / "store.sqlite")
    query_id = next(iter(run.digests))
    verdict = next(v for v in run.result(query_id).verdicts if v.request_key)
    assert run.calls([verdict.request_key, None]) == {}
    page = shown(small, "agent", query_id, verdict.image_id, tmp_path / "store.sqlite")
    assert "The response is not in the cache." in page


def test_what_is_hostile_is_words(hostile_shelf: Made) -> None:
    run = open_run(hostile_shelf, "predicates", hostile_shelf.store)
    query_id = next(iter(run.digests))
    for ranked in run.result(query_id).ranking:
        page = shown(hostile_shelf, "predicates", query_id, ranked.image_id, hostile_shelf.store)
        assert {attrs.get("src", "").rpartition("/")[2] for tag, attrs in elements(page) if tag == "script"} <= {
            "viewer.js", "call.js", "annotate.js", "image.js",
        }  # fmt: skip
        assert not [
            attrs for _, attrs in elements(page) if any(name.startswith("on") or name == "style" for name in attrs)
        ]
        assert shelves.LONG in page
        assert shelves.RIGHT_TO_LEFT in page
    first = shown(hostile_shelf, "predicates", query_id, run.result(query_id).ranking[0].image_id, hostile_shelf.store)
    assert "contradicts the verdict" in first


def test_pages_are_small(tmp_path: Path) -> None:
    made = shelves.big(tmp_path, queries=2, runs=1)
    run = open_run(made, "agent")
    query_id = next(iter(run.digests))
    site = Site(RunList(made.root), live=False)
    for ranked in run.result(query_id).ranking[::5]:
        page = site.render(image.page(run, query_id, ranked.image_id))
        assert len(page.encode()) < 60_000


# What was sent


@pytest.mark.parametrize("name", ["predicates", "agent"])
def test_requests_are_made_again_to_the_letter(small_shelf: Made, name: str) -> None:
    recorded, bare = open_run(small_shelf, name, small_shelf.store), open_run(small_shelf, name)
    kinds = set()
    for query_id in recorded.digests:
        result = recorded.result(query_id)
        for exchange in exchanges(recorded, result, questions(result)):
            assert exchange.source == "cache"
            assert exchange.response is not None
            assert exchange.wording is not None
            again = rebuilt(bare, result, exchange.asked)
            assert again is not None
            assert again == (exchange.request, True)
            kinds.add(type(exchange.asked).__name__)
    assert kinds >= ({"Call", "Verdict"} if name == "predicates" else {"Call", "Verdict", "Comparison", "Reason"})


def test_joint_requests_are_made_again_too(tmp_path: Path) -> None:
    (tmp_path / "joint.yaml").write_text(JOINT)
    made = shelves.small(tmp_path / "made", queries=1, strategies=[str(tmp_path / "joint.yaml")])
    run = open_run(made, "joint", made.store)
    query_id = next(iter(run.digests))
    result = run.result(query_id)
    joint = [verdict for verdict in result.verdicts if verdict.joint]
    assert joint
    for exchange in exchanges(open_run(made, "joint"), result, joint):
        assert exchange.source == "proven"
        assert exchange.wording is not None
        assert exchange.wording.prompt.name == "ask_joint"
    page = shown(made, "joint", query_id, joint[0].image_id, made.store)
    assert "joint answer" in words(page)


def test_another_model_is_not_passed_off_as_the_one_on_record(small: Made) -> None:
    path = small.run("predicates") / "results.jsonl"
    told = path.read_text()
    path.write_text(told.replace('"model":"', '"model":"not-'))
    assert path.read_text() != told
    run = open_run(small, "predicates")
    query_id = next(iter(run.digests))
    verdict = run.result(query_id).verdicts[0]
    assert [e.source for e in exchanges(run, run.result(query_id), [verdict])] == ["likely"]
    assert "its key differs from the recorded one" in words(shown(small, "predicates", query_id, verdict.image_id))


# The chart

log_odds = st.floats(-20, 20).map(lambda value: round(value, 6))
shares = st.dictionaries(st.sampled_from(["base", "prior", "p1", "p2", "comparisons"]), log_odds, min_size=1)


def result_of(ranked: RankedCandidate, **more: Any) -> RerankResult:
    return RerankResult(query_id="q", query_text="a crab", strategy="s", ranking=(ranked,), **more)


@given(shares)
def test_the_bars_lead_to_the_score(given_shares: dict[str, float]) -> None:
    score = sum(given_shares.values())
    ranked = RankedCandidate(image_id="i", rank=1, score=score, prior=0, prior_rank=1, contributions=given_shares)
    chart = contributions(why(result_of(ranked), "i"), "posterior")
    assert [bar.part.source for bar in chart.bars] == list(given_shares)
    assert [bar.value for bar in chart.bars] == list(given_shares.values())
    assert chart.bars[0].start == 0
    for one, other in pairwise(chart.bars):
        assert one.end == other.start
    assert chart.total is not None
    assert math.isclose(chart.total.value, score, abs_tol=1e-9)
    assert chart.rest == 0
    for bar in (*chart.bars, chart.total):
        assert 0 <= bar.x <= bar.x + bar.width <= WIDTH
        assert (bar.x_end >= bar.x_start) == (bar.value >= 0) or bar.x_end == bar.x_start
    assert chart.zero in (chart.total.x_start, chart.bars[0].x_start)


def test_a_score_that_is_not_its_parts_is_told(small_shelf: Made) -> None:
    ranked = RankedCandidate(image_id="i", rank=1, score=3, prior=0, prior_rank=1, contributions={"prior": 1.0})
    assert contributions(why(result_of(ranked), "i"), None).rest == 2


def test_every_score_of_a_run_is_its_parts(small_shelf: Made) -> None:
    run = open_run(small_shelf, "agent")
    for query_id in run.digests:
        result = run.result(query_id)
        for ranked in result.ranking:
            chart = contributions(why(result, ranked.image_id), "posterior")
            assert chart.sums
            assert chart.rest == 0


def test_a_fused_answer_and_its_prior_are_the_score() -> None:
    assert load_strategy("yes-no-fused", prompts="fieldnotes").fusion.method == "log_odds"
    verdict = Verdict(state="answered", predicate="query", image_id="i", p_yes=0.75, p_expected=0.75)
    asked = {"predicates": (Predicate(id="query", question="is it?"),), "verdicts": (verdict,)}
    ranked = RankedCandidate(image_id="i", rank=1, score=math.log(3) + 0.5, prior=0.2, prior_rank=1)
    chart = contributions(why(result_of(ranked, **asked), "i"), "log_odds")
    assert [(bar.part.source, round(bar.value, 9)) for bar in chart.bars] == [
        ("prior", 0.5), ("query", round(math.log(3), 9)),
    ]  # fmt: skip
    assert chart.total is not None
    assert math.isclose(chart.total.value, ranked.score)
    alone = contributions(why(result_of(ranked, **asked), "i"), "p_yes")
    assert not alone.sums
    assert alone.total is None
    assert "of this strategy is P(yes)" in alone.sentence


def test_without_an_answer_there_is_nothing_to_draw() -> None:
    verdict = Verdict(state="unknown", predicate="query", image_id="i", error="no")
    asked = {"predicates": (Predicate(id="query", question="is it?"),), "verdicts": (verdict,)}
    ranked = RankedCandidate(image_id="i", rank=1, score=0, prior=0, prior_rank=1)
    chart = contributions(why(result_of(ranked, **asked), "i"), "log_odds")
    assert (chart.bars, chart.total) == ((), None)
    assert "No question about this image has an answer" in chart.sentence


def test_a_reason_against_the_verdict_is_marked(small: Made) -> None:
    path = small.run("agent") / "results.jsonl"
    lines = [RerankResult.model_validate_json(line) for line in path.read_bytes().splitlines()]
    best = lines[0].ranking[0].image_id
    against = Reason(state="answered", image_id=best, text="no, there is no net.", says="no", agrees=False)
    lines[0] = lines[0].model_copy(update={"reasons": (against,)})
    path.write_text("".join(f"{line.model_dump_json()}\n" for line in lines))
    said = words(shown(small, "agent", lines[0].query_id, best))
    assert "no, there is no net." in said
    assert "✗ contradicts the verdict" in said


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "–"),
        (0.0, "0.000"),
        (0.0001, "<0.001"),
        (0.5, "0.500"),
        (0.9999, ">0.999"),
        (1.0, "1.000"),
        (0.9994, "0.999"),
    ],
)
def test_no_chance_is_rounded_to_certainty(value: float | None, told: str) -> None:
    assert chance(value) == told


def test_metadata_of_the_run_is_shown_and_escaped(small: Made) -> None:
    run = open_run(small, "clip")
    query_id, digest = next(iter(run.digests.items()))
    image_id = run.result(query_id).ranking[0].image_id
    assert digest and "Metadata" not in shown(small, "clip", query_id, image_id)
    cells = {"in.card": {"station": "<b>A1</b>", "count": "2"}}
    write_records(small.run("clip"), Records(("station", "count"), cells).renamed({image_id: "in.card"}))
    page = shown(small, "clip", query_id, image_id)
    assert '<dt dir="auto">station</dt>' in page and "&lt;b&gt;A1&lt;/b&gt;" in page
