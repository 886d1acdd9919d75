"""Rankings of the command line, kept: where, under which name, and what becomes of them."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.core.errors import ConfigError
from fieldscope.core.types import Query
from fieldscope.eval.datasets.folder import load_folder
from fieldscope.eval.runs.searches import SearchFolder, default_searches
from fieldscope.service.viewer.addresses import query_page, run_page
from fieldscope.service.viewer.runs.run_list import RunList
from fieldscope.service.viewer.site import Site
from fieldscope.service.wiring.queries import read_queries
from fieldscope.service.wiring.settings import Settings
from fieldscope.service.workflows import marks as marking
from fieldscope.service.workflows.candidates import open_chosen
from fieldscope.service.workflows.keeping import keep_rankings, require_new_folder
from fieldscope.service.workflows.models import Models
from fieldscope.service.workflows.ranking import Ranking
from fieldscope.service.workflows.rerank import rerank_query
from tests.agent.oracle import oracle_of
from tests.service.api.facts import FactsEncoder, painted


async def ranked(tmp_path: Path, text: str = "crab", query_id: str = "query") -> Ranking:
    images = painted(tmp_path / "pictures")
    models = Models(Settings(cache_file=tmp_path / "cache.sqlite"), lmm=oracle_of(images), encoder=FactsEncoder())
    chosen = open_chosen([tmp_path / "pictures"])
    return await rerank_query(Query(id=query_id, text=text), chosen, load_strategy("predicates"), models)


async def test_a_ranking_is_kept_where_the_service_lists_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDSCOPE_DATA", str(tmp_path / "data"))
    ranking = await ranked(tmp_path)
    place = keep_rankings([ranking], None, "crab", str(tmp_path / "pictures"), {"query": "crab"})
    assert place is not None and place.parent == tmp_path / "data" / "searches"
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    (folder,) = default_searches().all()
    assert (folder.id, folder.record.name, folder.finished) == (place.name, "crab", True)
    runs = RunList(place.parent)
    (run,) = runs.runs()
    (query_id,) = run.digests
    assert [each.image_id for each in run.result(query_id).ranking] == [
        each.image_id for each in ranking.result.ranking
    ]
    site = Site(runs, live=True)
    assert "thumbnails/" in site.render(site.page(query_page(run.key, query_id)))


async def test_several_queries_are_one_search_whose_marks_become_a_data_set(tmp_path: Path) -> None:
    file = tmp_path / "queries.txt"
    file.write_text('crab\n\n{"id": "white", "text": "snow, no net"}\n')
    queries = read_queries(file)
    assert [(query.id, query.text) for query in queries] == [("q1", "crab"), ("white", "snow, no net")]
    out = tmp_path / "kept"
    rankings = [await ranked(tmp_path, query.text, query.id) for query in queries]
    keep_rankings(rankings, out, "two queries", str(tmp_path / "pictures"), {})
    run = RunList(out).run("kept")
    assert run is not None and set(run.digests) == {"q1", "white"}
    site = Site(RunList(out), live=True)
    assert "not finished" not in site.render(site.page(run_page(run.key)))

    best = {query.id: rankings[at].result.ranking for at, query in enumerate(queries)}
    with pytest.raises(ConfigError, match="2 queries"):
        marking.mark_images(out, None, {best["q1"][0].image_id: "accepted"}, "")
    with pytest.raises(ConfigError, match="Mark some"):
        marking.write_dataset(out, tmp_path / "none")
    for query in ("q1", "white"):
        marks = dict.fromkeys((each.image_id for each in best[query][:3]), "accepted")
        marking.mark_images(out, query, marks | {best[query][-1].image_id: "rejected"}, "Ana")  # type: ignore[arg-type]
    marking.mark_images(out, "q1", {best["q1"][0].image_id: "rejected"}, "Ben")
    pairs = {(pair.a, pair.b): pair for pair in marking.agreement_of(out)}
    assert pairs["model", "Ana"].kappa == 1.0 and pairs["model", "Ana"].shared == 8
    assert pairs["Ana", "Ben"].shared == 1 and pairs["Ana", "Ben"].equal == 0.0
    (_, second) = marking.open_marked(out)
    refitted = marking.refit(out, second, None)
    assert len(refitted.order) == len(best["white"]) - 4

    assert marking.write_dataset(out, tmp_path / "labelled") == 8
    data = load_folder(tmp_path / "labelled", "validation", {}).benchmark
    assert {query.id: query.text for query in data.queries} == {"q1": "crab", "white": "snow, no net"}
    assert sum(data.qrels["white"].values()) == 3 and data.qrels["q1"][best["q1"][0].image_id] == 0


async def test_a_folder_that_is_in_use_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    used = tmp_path / "used"
    used.mkdir()
    require_new_folder(used)
    (used / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        require_new_folder(used)
    with pytest.raises(ConfigError, match="no kept search"):
        SearchFolder(used).delete()
    assert (used / "notes.txt").exists()


def test_queries_that_can_not_be_read_name_their_line(tmp_path: Path) -> None:
    file = tmp_path / "queries.txt"
    for text, reason in (
        ("", "no query"),
        ("crab\n{", "line 2"),
        ('{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}', "line 2"),
        ('{"id": 3, "text": "x"}', "line 1"),
        ('{"id": "a", "text": "x", "place": "Bern"}', "line 1"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=reason):
            read_queries(file)
