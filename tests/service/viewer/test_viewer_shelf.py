"""Runs as the viewer reads them: whole, half-written, damaged, of another version; and their addresses."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jinja2 import Environment

from fieldscope.core.errors import ConfigError
from fieldscope.service.viewer import addresses, rendering
from fieldscope.service.viewer.addresses import slug, unslug
from fieldscope.service.viewer.comparison.comparable import comparable
from fieldscope.service.viewer.page import NoPage
from fieldscope.service.viewer.runs.run_list import RunList
from fieldscope.service.viewer.site import Site
from tests.service.viewer import shelves
from tests.service.viewer.shelves import Made

ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300)


@given(ids)
@example("..")
@example(".")
@example("a/b")
@example("~~0")
@example("~2E")
@example("%41")
@example("+")
@example("\u05e9" * 200)
def test_a_slug_is_a_file_name_and_leads_back(text: str) -> None:
    name = slug(text)
    assert unslug(name, [text]) == text
    assert name not in (".", "..", "")
    assert len(name.encode()) <= 160
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_~")


@given(ids, ids)
def test_two_ids_have_two_slugs(one: str, other: str) -> None:
    assert (slug(one) == slug(other)) == (one == other)


@given(st.text(max_size=60))
def test_whatever_is_in_an_address_names_one_id_or_none(name: str) -> None:
    found = unslug(name, [])
    assert found is None or slug(found) == name


@given(st.lists(st.sampled_from("abc."), max_size=4).map("".join), ids)
def test_a_link_leads_from_any_page_to_any_other(run: str, query: str) -> None:
    key = slug(f"r{run}")
    here = addresses.image_page(key, query, "x")
    there = addresses.static("viewer.css")
    link = addresses.relative(there, here)
    assert link.count("../") == len(here.split("/")) - 1
    assert link.endswith(there)


def test_the_runs_below_a_folder(small: Made) -> None:
    shelf = small.shelf()
    assert list(shelf.folders()) == ["agent", "clip", "predicates"]
    (small.root / "deep" / "er").mkdir(parents=True)
    (small.run("clip")).rename(small.root / "deep" / "er" / "clip run")
    (small.root / ".hidden").mkdir()
    small.run("agent").rename(small.root / ".hidden" / "agent")
    assert {key: run.name for key in shelf.folders() if (run := shelf.run(key))} == {
        "deep~2Fer~2Fclip~20run": "deep/er/clip run",
        "predicates": "predicates",
    }
    assert shelf.run("agent") is None
    alone = RunList(small.run("predicates"))
    assert list(alone.folders()) == ["predicates"]


def test_the_first_pages_of_a_warm_site_compile_nothing(small: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    rendering.environment.cache_clear()
    site = Site(small.shelf(), live=True, try_it=True)
    site.warm()
    monkeypatch.setattr(Environment, "compile", None)
    for address in ("index.html", "search.html", "runs/agent/index.html", "compare/clip+agent/index.html"):
        assert "<h1" in site.render(site.page(address))


def test_a_site_over_damaged_runs_gets_warm_all_the_same(small: Made, tmp_path: Path) -> None:
    shelves.damaged(small.run("clip"))
    shelves.begun(small.run("agent"))
    Site(small.shelf(), live=True).warm()
    Site(RunList(tmp_path), live=True).warm()


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no folder"):
        RunList(tmp_path / "none")


def test_a_digest_says_what_the_results_say(small: Made) -> None:
    run = small.shelf().run("agent")
    assert run is not None
    metrics = json.loads((small.run("agent") / "metrics.json").read_text())["per_query"]
    prior = json.loads((small.run("clip") / "metrics.json").read_text())["per_query"]
    assert list(run.digests) == list(metrics)
    for query_id, digest in run.digests.items():
        result = run.result(query_id)
        assert result.query_id == query_id
        assert digest.text == result.query_text
        assert digest.calls == len(result.asked)
        assert digest.scores["AP@50"] == pytest.approx(metrics[query_id]["AP@50"])
        # `clip` is the first stage's order.
        assert digest.prior_scores["AP@50"] == pytest.approx(prior[query_id]["AP@50"])
        assert digest.moved == sum(abs(each.rank - each.prior_rank) for each in result.ranking)


def test_a_digest_is_kept_and_taken_anew_when_the_run_changes(small: Made) -> None:
    first = small.shelf().run("agent")
    assert first is not None
    shelf = small.shelf()
    assert shelf.run("agent") == first
    path = small.run("agent") / "results.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[1:]))
    gone = json.loads(lines[0])["query_id"]  # queries are written as they are finished
    fresh = shelf.run("agent")
    assert fresh is not None
    assert list(fresh.digests) == [query_id for query_id in first.digests if query_id != gone]


def edited(path: Path, before: bytes, after: bytes) -> None:
    """Change a file so that its size and its time of modification stay as they were."""
    content = path.read_bytes()
    assert before in content and len(before) == len(after)
    status = path.stat()
    path.write_bytes(content.replace(before, after))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)


@pytest.mark.parametrize("same_shelf", [True, False])
def test_a_judgment_that_was_edited_changes_the_figures(small: Made, same_shelf: bool) -> None:
    """A mark that someone put right is as many judgments as before. The other shelf is that of another process."""
    shelf = small.shelf()
    first = shelf.run("predicates")
    assert first is not None and first.judgments is not None
    query, judged = next((q, j) for q, j in first.judgments.items() if first.digests[q].scores["AP@50"] > 0)
    path = small.run("predicates") / "qrels.trec"
    lines = path.read_text().splitlines()
    flipped = [f"{line[:-1]}{1 - int(line[-1])}" if line.split()[0] == query else line for line in lines]
    edited(path, "\n".join(lines).encode(), "\n".join(flipped).encode())
    again = (shelf if same_shelf else small.shelf()).run("predicates")
    assert again is not None
    assert again.digests[query].positives == len(judged) - sum(judged.values())
    assert again.digests[query].scores != first.digests[query].scores


@pytest.mark.parametrize("same_shelf", [True, False])
def test_a_result_that_was_edited_changes_the_figures_and_the_page(small: Made, same_shelf: bool) -> None:
    shelf = small.shelf()
    first = shelf.run("agent")
    assert first is not None
    query, unread = list(first.digests)[:2]
    text = first.result(query).query_text
    edited(small.run("agent") / "results.jsonl", text.encode(), text[::-1].encode())
    again = (shelf if same_shelf else small.shelf()).run("agent")
    assert again is not None
    assert again.digests[query].text == text[::-1]
    assert again.result(query).query_text == text[::-1]
    other = first.digests[unread].text
    edited(small.run("agent") / "results.jsonl", other.encode(), other[::-1].encode())
    with pytest.raises(ConfigError, match="changed while the page was made; reload the page"):
        first.result(unread)


def test_hashes_that_came_later_are_seen(small: Made) -> None:
    shelf = small.shelf()
    first = shelf.run("agent")
    assert first is not None
    before = dict(first.hashes)
    with (small.run("agent") / "images.jsonl").open("a") as stream:
        stream.write('{"image_id": "late", "sha256": "abc"}\n')
    again = shelf.run("agent")
    assert again is not None and again.hashes == {**before, "late": "abc"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (shelves.newer, "was written by another version of Fieldscope"),
        (shelves.damaged, "manifest.json is damaged"),
        (shelves.begun, "has no results yet"),
    ],
)
def test_a_run_that_can_not_be_shown_says_why(small: Made, change: Callable[[Path], None], words: str) -> None:
    change(small.run("agent"))
    run = small.shelf().run("agent")
    assert run is not None
    assert words in str(run.problem)
    site = Site(small.shelf(), live=False)
    with pytest.raises(NoPage, match=words):
        site.page("runs/agent/index.html")
    assert not [address for address in site.addresses() if "agent" in address]


def test_a_half_written_run_shows_what_is_finished(small: Made) -> None:
    shelves.half_written(small.run("agent"))
    run = small.shelf().run("agent")
    assert run is not None
    assert (run.problem, run.finished, len(run.digests)) == (None, False, 2)
    # Judgments are taken from the run's inputs until it is scored.
    whole = small.shelf().run("predicates")
    assert whole is not None
    assert all(run.relevant(query) == whole.relevant(query) for query in run.digests)


def test_a_run_from_before_it_said_what_it_is_made_from(small: Made) -> None:
    shelves.bare(small.run("agent"))
    run = small.shelf().run("agent")
    assert run is not None
    assert (run.problem, run.inputs, run.strategy_line, run.collection_key) == (None, None, None, "none")
    assert "--images" in str(run.collection)
    named = RunList(small.root, images=small.images).run("agent")
    assert named is not None
    assert not isinstance(named.collection, str)


def test_a_call_is_found_in_the_response_cache(small: Made, tmp_path: Path) -> None:
    run = small.shelf().run("agent")
    assert run is not None
    result = run.result(next(iter(run.digests)))
    verdict = next(verdict for verdict in result.verdicts if verdict.state == "answered")
    assert verdict.request_key is not None
    call = run.calls([verdict.request_key, None, "0" * 64])[verdict.request_key]
    assert call.response["text"] == verdict.answer
    assert call.provenance["model"] == "oracle"
    assert run.calls(["0" * 64]) == {}
    elsewhere = RunList(small.root, store=tmp_path / "none.sqlite").run("agent")
    assert elsewhere is not None
    assert elsewhere.calls([verdict.request_key]) == {}
    assert not (tmp_path / "none.sqlite").exists()


def test_runs_of_one_task_can_be_compared(small: Made) -> None:
    manifest = small.run("clip") / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"split": "test"', '"split": "other"'))
    shelves.copied(small, "agent", "agent-2")
    several = [tuple(run.key for run in runs) for runs in comparable(small.shelf().runs())]
    names = ("agent", "agent-2", "predicates")
    assert sorted(several[:-1]) == sorted(permutations(names, 2))
    assert sorted(several[-1]) == sorted(names)
