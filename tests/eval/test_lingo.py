"""INQUIRE's own list of queries in experts' lingo, where it lies beside the benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fieldscope.agent.types import RankedCandidate, RerankResult
from fieldscope.core.errors import BenchmarkError
from fieldscope.core.types import Query
from fieldscope.eval.benchmarks.inquire_rerank import load_inquire_rerank
from fieldscope.eval.benchmarks.lingo import with_lingo
from fieldscope.eval.measures.scoring import score
from fieldscope.eval.types import QueryMeta

QUERIES = (
    Query(id="7", text="everted osmeterium"),
    Query(id="12", text="a red crab, on snow"),
    Query(id="30", text="x"),
)
META = {query.id: QueryMeta("Appearance", scientific_name=query.id == "12") for query in QUERIES}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("lingo.txt", "Everted  osmeterium\nsomething of the other split\n30\n"),
        ("lingo.csv", "query_id,query_text\n7,everted osmeterium\n30,x\n99,another\n"),
        ("lingo.csv", ",Query ID\n0,7\n1,30\n"),
        ("lingo.csv", 'query_text\n"everted osmeterium"\nX\n'),
    ],
    ids=["lines", "ids and texts", "ids", "texts"],
)
def test_a_list_names_queries_by_text_or_id(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    meta, odd = with_lingo(META, QUERIES, tmp_path)
    assert ({query: own.lingo for query, own in meta.items()}, odd) == ({"7": True, "12": False, "30": True}, ())
    assert meta["7"].groups["lingo"] == "yes" and "scientific_name" not in meta["12"].groups


def test_without_a_list_the_scientific_name_stands_for_it(tmp_path: Path) -> None:
    meta, odd = with_lingo(META, QUERIES, tmp_path)
    assert (meta, odd) == (META, ())
    assert (meta["12"].groups["scientific_name"], "lingo" in meta["12"].groups) == ("yes", False)


def test_a_list_of_something_else_is_told(tmp_path: Path) -> None:
    (tmp_path / "lingo.txt").write_text("nothing of this benchmark\n")
    meta, (odd,) = with_lingo(META, QUERIES, tmp_path)
    assert "names none of the queries" in odd and not any(own.lingo for own in meta.values())
    (tmp_path / "lingo.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BenchmarkError):
        with_lingo(META, QUERIES, tmp_path)


def test_a_benchmark_is_broken_down_by_its_list(rows: list[dict[str, Any]], write_parquet: Any) -> None:
    path: Path = write_parquet(rows)
    plain = load_inquire_rerank(path)
    (path.parent / "lingo.txt").write_text(f"{plain.queries[0].text}\n")
    bench = load_inquire_rerank(path)
    assert bench.fingerprint == plain.fingerprint
    results = {
        query.id: RerankResult(
            query_id=query.id,
            query_text=query.text,
            strategy="s",
            ranking=tuple(
                RankedCandidate(image_id=c.image_id, rank=n, score=-float(n), prior=c.prior, prior_rank=n)
                for n, c in enumerate(bench.candidates(query.id) or (), start=1)
            ),
        )
        for query in bench.queries
    }
    scores = score(bench, results)
    of_first = scores.per_query()["q000"]["AP@100"]
    assert set(scores.breakdowns()["lingo"]) == {"yes", "no"}
    assert scores.breakdowns()["lingo"]["yes"]["mAP@100"] == of_first
    assert "scientific_name" not in scores.breakdowns()
