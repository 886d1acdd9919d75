"""Replaying recorded runs: the same rankings with no model, first stage or pictures, or the call that is missing."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from fieldscope.agent.budget import Budget
from fieldscope.agent.calibration import Calibration, CalibrationKey, calibration_key
from fieldscope.agent.graph import Agent
from fieldscope.agent.lmm.base import LMM
from fieldscope.agent.lmm.cached import CachedLMM, entry_fault
from fieldscope.agent.resources import Resources, Retriever
from fieldscope.agent.roles import LMMs
from fieldscope.agent.strategies.strategy import Strategy, list_strategies, load_strategy
from fieldscope.cache.archive import Archive, write_archive
from fieldscope.cache.sqlite import SqliteStore
from fieldscope.core.errors import BenchmarkError, BrokenImageError, CacheError, CacheMissError, ConfigError
from fieldscope.core.types import Candidate, Search
from fieldscope.eval.harness import evaluate
from fieldscope.eval.runs.inputs import NAME, benchmark_lines, input_lines, make_benchmark, read_inputs, strategy_line
from fieldscope.eval.runs.read import read_results
from fieldscope.eval.runs.recording import read_entries, read_recording, recorded_lines, write_recording
from fieldscope.eval.runs.recording_lines import (
    FailureLine,
    ResponseLine,
)
from fieldscope.eval.runs.replay import RecordedImages, Recording, make_recording
from fieldscope.eval.types import Benchmark, QueryMeta, RunSummary
from fieldscope.retrieval.collection import FolderCollection
from fieldscope.retrieval.looked_at import with_looks
from tests.agent.faulty import INJECTED, Faulty
from tests.agent.oracle import draw_cases, facts_of, oracle_of, paint

UNSURE = Calibration(key=CalibrationKey(model="oracle", prompts={}), spread=5.0)  # so that something is compared
_STRATEGIES = {name: load_strategy(name, prompts="fieldnotes") for name in list_strategies()}
ASKING = tuple(name for name, strategy in _STRATEGIES.items() if strategy.prompts and not strategy.score)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> FolderCollection:
    return paint(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def bench(pictures: FolderCollection) -> Benchmark:
    """Text, composed and dialogue queries over a dozen candidates each."""
    cases = draw_cases(6, candidates=12)
    return Benchmark(
        name="facts",
        split="test",
        queries=tuple(case.query for case in cases),
        qrels={case.query.id: dict.fromkeys(sorted(case.relevant), 1) for case in cases},
        images=pictures,
        candidate_sets={case.query.id: case.candidates for case in cases},
        meta={case.query.id: QueryMeta("Facts", "a category", scientific_name=True) for case in cases[:4]},
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "cache.sqlite")
    yield opened
    opened.close()


@dataclass
class Finder:
    """A first stage that scores by facts and descriptions, and notes what it was asked."""

    searches: int = 0

    def search(self, search: Search) -> Sequence[Candidate]:
        self.searches += 1
        scored = []
        for number in range(32):
            image_id = f"{number:02}.png"
            words = " ".join((search.query.text, *search.descriptions))
            noise = int(sha256(f"{words}{image_id}".encode()).hexdigest(), 16) % 1000 / 1000
            scored.append(Candidate(image_id, sum(fact in words for fact in facts_of(image_id)) / 5 + noise / 3))
        return sorted(scored, key=lambda candidate: -candidate.prior)[: search.k]


async def make_run(
    bench: Benchmark,
    lmm: LMM | LMMs | None,
    out: Path,
    *strategies: Strategy | str,
    retriever: Retriever | None = None,
    calibration: Calibration | None = UNSURE,
    live: bool = True,
    **options: Any,
) -> list[RunSummary]:
    """Runs as the command line makes them."""
    named = [load_strategy(s, prompts="fieldnotes") if isinstance(s, str) else s for s in strategies]
    images = with_looks(bench.images) if live else bench.images  # a recording has the hashes of looks
    deps = Resources(images, lmm, retriever, max_concurrency=4, calibration=calibration)
    return await evaluate(
        bench,
        [Agent(deps, strategy) for strategy in named],
        out,
        provenance={"lmm": LMMs.of(lmm).identity(), "encoder": "e", "seed": 0},
        inputs={strategy.name: input_lines(bench, strategy, calibration) for strategy in named},
        live=live,
        images=images,
        **options,
    )


async def replay(recording: Recording, out: Path, *strategies: Strategy | str, **options: Any) -> list[RunSummary]:
    """As the command line does it."""
    named = strategies or tuple(run.strategy for run in recording.runs)
    return await make_run(
        recording.benchmark,
        recording.lmm,
        out,
        *named,
        retriever=recording.searches,
        calibration=recording.runs[0].calibration,
        live=False,
        **options,
    )


def exported(path: Path, runs: Path, store: SqliteStore) -> Recording:
    write_recording(path, [runs], store)
    return make_recording(read_recording(Archive(path)))


def assert_same_rankings(one: Path, other: Path) -> None:
    """Byte for byte, also what `results.jsonl` says of every candidate."""
    assert (one / "run.trec").read_bytes() == (other / "run.trec").read_bytes() != b""
    assert (one / "qrels.trec").read_bytes() == (other / "qrels.trec").read_bytes() != b""
    found, expected = read_results(one), read_results(other)
    assert found.keys() == expected.keys()
    for query_id, result in expected.items():
        assert found[query_id].ranking == result.ranking
        assert [v.p_expected for v in found[query_id].verdicts] == [v.p_expected for v in result.verdicts]


@pytest.mark.parametrize("name", ASKING)
async def test_every_strategy_is_replayed_to_the_byte(
    name: str, bench: Benchmark, pictures: FolderCollection, store: SqliteStore, tmp_path: Path
) -> None:
    (run,) = await make_run(bench, CachedLMM(oracle_of(pictures), store), tmp_path / "a", name)
    recording = exported(tmp_path / "runs.fsr", tmp_path / "a", store)
    store.remove([entry.key for entry in store.entries()])  # nothing is left but the file
    (again,) = await replay(recording, tmp_path / "b")
    assert_same_rankings(again.out, run.out)
    assert again.metrics == run.metrics and again.cost.calls == again.cost.cached == run.cost.calls > 0
    told = [json.loads((each.out / "manifest.json").read_text())["configuration"] for each in (run, again)]
    assert told[0] == told[1]
    assert sorted((run.out / "images.jsonl").read_text().splitlines()) == sorted(
        (again.out / "images.jsonl").read_text().splitlines()
    )
    other = exported(tmp_path / "again.fsr", again.out, _refilled(store, tmp_path / "runs.fsr"))
    assert other.runs == recording.runs, "what was replayed can be exported in its turn"


def _refilled(store: SqliteStore, file: Path) -> SqliteStore:
    store.put_all(read_entries(Archive(file)))
    return store


async def test_full_retrieval_is_replayed_with_all_its_searches(
    bench: Benchmark, pictures: FolderCollection, store: SqliteStore, tmp_path: Path
) -> None:
    agent = load_strategy("agent", prompts="fieldnotes")
    refine = agent.refine and agent.refine.model_copy(update={"rounds": 2, "fewest": 30})
    strategy = agent.model_copy(update={"retrieve": agent.retrieve.model_copy(update={"top_k": 8}), "refine": refine})
    finder, whole = Finder(), replace(bench, candidate_sets=None)
    lmm = CachedLMM(oracle_of(pictures), store)
    (run,) = await make_run(whole, lmm, tmp_path / "a", strategy, retriever=finder)
    assert finder.searches > len(bench.queries), "some thought again"
    recording = exported(tmp_path / "runs.fsr", tmp_path / "a", store)
    (again,) = await replay(recording, tmp_path / "b")
    assert_same_rankings(again.out, run.out)

    silent = {"retriever": recording.searches, "calibration": None, "live": False}
    with pytest.raises(CacheMissError, match=r"the search for the 100 images nearest to query q00 \('.+'\) was never"):
        await make_run(recording.benchmark, None, tmp_path / "c", "clip", **silent)


async def test_a_search_may_want_fewer(bench: Benchmark, store: SqliteStore, tmp_path: Path) -> None:
    whole = replace(bench, candidate_sets=None)
    await make_run(whole, None, tmp_path / "a", "clip", retriever=Finder(), calibration=None)
    recording = exported(tmp_path / "runs.fsr", tmp_path / "a", store)
    assert recording.lmm is None and recording.searches is not None
    query = bench.queries[0]
    for k in (1, 5, 32, 100, 1000):  # there are no more than 32
        assert recording.searches.search(Search(query.model_copy(update={"id": "renamed"}), k)) == tuple(
            Finder().search(Search(query, k))
        )
    with pytest.raises(CacheMissError, match="descriptions 'a crab'"):
        recording.searches.search(Search(query, 5, ("a crab",)))


async def test_one_missing_response_is_named(
    bench: Benchmark, pictures: FolderCollection, store: SqliteStore, tmp_path: Path
) -> None:
    (run,) = await make_run(bench, CachedLMM(oracle_of(pictures), store), tmp_path / "a", "yes-no")
    lines = list(recorded_lines([tmp_path / "a"], store))
    asked = [line for line in lines if isinstance(line, ResponseLine)]
    gone = asked[len(asked) // 2]
    request = json.loads(gone.request)["messages"][0]["content"]
    recording = make_recording(line for line in lines if line is not gone)
    with pytest.raises(CacheMissError) as caught:
        await replay(recording, tmp_path / "b")
    said = str(caught.value)
    assert gone.key in said and "model oracle" in said and "\n" not in said
    assert f"images {request[0]['image_id']};" in said and request[1]["text"][-50:] in said
    kept = (tmp_path / "b" / "yes-no" / "results.jsonl").read_text().splitlines()
    assert len(kept) < len(bench.queries)
    (whole,) = await replay(make_recording(lines), tmp_path / "b")
    assert_same_rankings(whole.out, run.out)


async def test_other_strategies_are_run_on_recorded_calls(
    bench: Benchmark, pictures: FolderCollection, store: SqliteStore, tmp_path: Path
) -> None:
    lmm = CachedLMM(oracle_of(pictures), store)
    await make_run(bench, lmm, tmp_path / "a", "yes-no", calibration=None)
    recording = exported(tmp_path / "runs.fsr", tmp_path / "a", store)
    (replayed,) = await replay(recording, tmp_path / "b", "yes-no-fused")
    (asked,) = await make_run(bench, lmm, tmp_path / "c", "yes-no-fused", calibration=None)
    assert_same_rankings(replayed.out, asked.out)
    with pytest.raises(CacheMissError, match="true or false"):
        await replay(recording, tmp_path / "d", "true-false")


async def test_what_failed_fails_again_and_what_is_missing_is_no_failure(
    bench: Benchmark, pictures: FolderCollection, store: SqliteStore, tmp_path: Path
) -> None:
    faulty = Faulty(oracle_of(pictures), share=0.4, seed=1)
    (run,) = await make_run(bench, CachedLMM(faulty, store), tmp_path / "a", "agent")
    assert run.unknown > 20
    write_recording(tmp_path / "runs.fsr", [run.out], store)
    lines = list(read_recording(Archive(tmp_path / "runs.fsr")))
    failures = [line for line in lines if isinstance(line, FailureLine)]
    assert {line.error for line in failures} == {INJECTED}
    (again,) = await replay(make_recording(lines), tmp_path / "b")
    assert_same_rankings(again.out, run.out)
    assert again.unknown == run.unknown
    with pytest.raises(CacheMissError, match=failures[0].key):
        await replay(make_recording(line for line in lines if line is not failures[0]), tmp_path / "c")


async def test_an_image_that_could_not_be_read_can_not_be_read_again(
    bench: Benchmark, pictures: FolderCollection, store: SqliteStore, tmp_path: Path
) -> None:
    candidates = (bench.candidate_sets or {})[bench.queries[0].id]
    lost = candidates[3].image_id
    there = tmp_path / "pictures"
    shutil.copytree(pictures.root, there)
    (there / lost).write_bytes(b"no picture")
    broken = replace(bench, images=FolderCollection(there))
    (run,) = await make_run(broken, CachedLMM(oracle_of(pictures), store), tmp_path / "a", "yes-no")
    assert run.unknown
    recording = exported(tmp_path / "runs.fsr", tmp_path / "a", store)
    (again,) = await replay(recording, tmp_path / "b")
    assert_same_rankings(again.out, run.out)
    errors = [
        [v.error for v in read_results(out)[bench.queries[0].id].verdicts if v.image_id == lost]
        for out in (run.out, again.out)
    ]
    assert errors[0] == errors[1] != [None]


async def test_a_budget_and_a_part_of_the_queries(
    bench: Benchmark, pictures: FolderCollection, store: SqliteStore, tmp_path: Path
) -> None:
    budget = Budget(max_calls=9)
    lmm = CachedLMM(oracle_of(pictures), store)
    (run,) = await make_run(bench, lmm, tmp_path / "a", "agent", budget=budget, limit=4)
    assert run.ended
    recording = exported(tmp_path / "runs.fsr", tmp_path / "a", store)
    assert recording.queries == 4
    assert (recording.budget_of("query"), recording.budget_of("run")) == (budget, Budget())
    (again,) = await replay(recording, tmp_path / "b", budget=recording.budget_of("query"), limit=recording.queries)
    assert_same_rankings(again.out, run.out)
    with pytest.raises(CacheMissError):
        await replay(recording, tmp_path / "c", budget=recording.budget_of("query"))
    await make_run(bench, lmm, tmp_path / "more" / "x", "yes-no", budget=Budget(max_calls=3))
    shutil.copytree(tmp_path / "a" / "agent", tmp_path / "more" / "x" / "agent")
    both = make_recording(recorded_lines([tmp_path / "more" / "x"], store))
    with pytest.raises(ConfigError, match="different budgets"):
        both.budget_of("query")


async def test_runs_that_do_not_belong_together(
    bench: Benchmark, pictures: FolderCollection, store: SqliteStore, tmp_path: Path
) -> None:
    lmm = oracle_of(pictures)
    await make_run(bench, CachedLMM(lmm, store), tmp_path / "a", "yes-no", "clip")
    another = oracle_of(pictures)
    another._identity = "another"
    await make_run(bench, CachedLMM(another, store), tmp_path / "b", "yes-no")
    fewer = replace(bench, queries=bench.queries[1:])
    await make_run(fewer, CachedLMM(lmm, store), tmp_path / "c", "yes-no")
    folders = [tmp_path / name for name in "abc"]
    with pytest.raises(ConfigError, match=r"different models\. Export them separately"):
        list(recorded_lines(folders[:2], store))
    with pytest.raises(ConfigError, match="different benchmarks"):
        list(recorded_lines([folders[0], folders[2]], store))
    assert make_recording(recorded_lines([folders[0]], store)).queries == 6
    part = make_recording(recorded_lines([folders[2]], store)).benchmark
    assert part.fingerprint == fewer.fingerprint != bench.fingerprint
    with pytest.raises(ConfigError, match="holds no run"):
        list(recorded_lines([tmp_path], store))


async def test_a_response_that_is_gone_from_the_cache(
    bench: Benchmark, pictures: FolderCollection, store: SqliteStore, tmp_path: Path
) -> None:
    (run,) = await make_run(bench, CachedLMM(oracle_of(pictures), store), tmp_path / "a", "yes-no")
    keys = [entry.key for entry in store.entries()]
    assert store.remove(keys[:2]) == 2
    with pytest.raises(CacheError, match=r"2 of 72 responses are no longer in the response cache, the first is \w+ of"):
        write_recording(tmp_path / "runs.fsr", [run.out], store)
    assert not (tmp_path / "runs.fsr").exists()


async def test_a_run_that_does_not_say_what_it_is_made_from(
    bench: Benchmark, store: SqliteStore, tmp_path: Path
) -> None:
    (run,) = await make_run(bench, None, tmp_path / "a", "clip", calibration=None)
    inputs = run.out / NAME
    content = inputs.read_text()
    inputs.write_text(content.replace('.png":1', '.png":0', 1))
    with pytest.raises(BenchmarkError, match="altered"):
        make_recording(recorded_lines([run.out], store))
    for damaged in ("", content[:-30], content.replace('"kind":"strategy"', '"kind":"pickle"'), content.split("\n")[0]):
        inputs.write_text(damaged)
        with pytest.raises(ConfigError, match="Rerun the command that made it"):
            read_inputs(run.out)
    inputs.unlink()
    with pytest.raises(ConfigError, match="missing or damaged"):
        list(recorded_lines([run.out], store))
    await make_run(bench, None, tmp_path / "a", "clip", calibration=None)
    assert inputs.read_text() == content


def test_a_benchmark_and_a_strategy_come_back_as_they_were(bench: Benchmark) -> None:
    part = replace(bench, queries=bench.queries[2:4])
    for whole in (bench, part, replace(part, candidate_sets=None)):
        line, *queries = benchmark_lines(whole)
        made = make_benchmark(line, queries, whole.images)  # type: ignore[arg-type]
        assert made == whole and made.fingerprint == whole.fingerprint
    for name in list_strategies():
        strategy = load_strategy(name, prompts="fieldnotes")
        back = strategy_line(strategy, UNSURE).strategy()
        assert back == strategy and back.fingerprint == strategy.fingerprint


def test_a_strategy_that_is_none() -> None:
    line = strategy_line(load_strategy("yes-no", prompts="fieldnotes"), None)
    verify = line.definition["verify"]
    for change in ({"name": "../up"}, {"verify": {**verify, "prompt": {**verify["prompt"], "template": "{{ x }}"}}}):
        with pytest.raises(ConfigError, match="can't be read by this version"):
            line.model_copy(update={"definition": {**line.definition, **change}}).strategy()


async def test_the_calibration_is_the_runs_own(
    bench: Benchmark, pictures: FolderCollection, store: SqliteStore, tmp_path: Path
) -> None:
    agent, predicates = load_strategy("agent", prompts="fieldnotes"), load_strategy("predicates", prompts="fieldnotes")
    fitted = UNSURE.model_copy(update={"key": calibration_key("oracle", agent, "e"), "prior_weight": 0.7})
    await make_run(bench, CachedLMM(oracle_of(pictures), store), tmp_path / "a", agent, calibration=fitted)
    recording = exported(tmp_path / "runs.fsr", tmp_path / "a", store)

    def never() -> Calibration | None:
        raise AssertionError("what was recorded comes first")

    assert recording.calibration_of(agent, never) == fitted
    assert recording.calibration_of(predicates.model_copy(update={"name": "agent"}), never) == fitted
    assert recording.calibration_of(load_strategy("yes-no", prompts="fieldnotes"), never) is None
    joint = load_strategy("imagescope", prompts="fieldnotes").model_copy(
        update={"fusion": agent.fusion, "compare": None}
    )
    assert recording.calibration_of(joint, lambda: UNSURE) == UNSURE


def test_a_recording_has_no_pixels(pictures: FolderCollection) -> None:
    images = RecordedImages({"a": "00"}, {"b": "it was broken"})
    with pytest.raises(BrokenImageError, match="hashes and no pixels"):
        images.load("a")
    with pytest.raises(BrokenImageError, match="it was broken"):
        images.pixel_hash("b")
    assert images.pixel_hash("a") == "00" and re.fullmatch("[a-z]+", images.pixel_hash("c"))


async def test_hostile_lines(bench: Benchmark, pictures: FolderCollection, store: SqliteStore, tmp_path: Path) -> None:
    (run,) = await make_run(bench, CachedLMM(oracle_of(pictures), store), tmp_path / "a", "yes-no", limit=1)
    lines = list(recorded_lines([run.out], store))
    (known,) = (line for line in lines if line.kind == "run")
    gone = known.model_copy(update={"configuration": {**known.configuration, "strategy": {"fingerprint": "x"}}})
    with pytest.raises(ConfigError, match="not as it was recorded"):
        make_recording([gone if line is known else line for line in lines])
    with pytest.raises(CacheError, match="has no benchmark or no runs"):
        make_recording([line for line in lines if line.kind != "run"])
    with pytest.raises(BenchmarkError, match="has no queries"):
        make_recording([line for line in lines if line.kind != "query"])

    def written(*texts: str) -> Archive:
        write_archive(tmp_path / "x", None, (("x", text) for text in texts))
        return Archive(tmp_path / "x")

    for text in ("{}", "7", '{"kind":"pickle"}', "[" * 50_000, '{"kind":"failure","key":"short","error":""}'):
        with pytest.raises(CacheError, match="line 2: not a line of a recording"):
            list(read_recording(written(text)))
    responses = [line for line in lines if isinstance(line, ResponseLine)]
    another = next(line for line in responses if line.response != responses[0].response)
    for swapped in (
        {"key": another.key},
        {"provenance": '{"model":"another"}'},
        {"response": another.response},
        {"response": "[]"},
        {"request": "{}"},
        {"provenance": "[]"},
        {"provenance": "7"},
    ):
        bad = responses[0].model_copy(update=swapped)
        assert entry_fault(bad.entry()) is not None
        with pytest.raises(CacheError, match="was altered"):
            list(read_entries(written(bad.model_dump_json())))
    assert [entry_fault(line.entry()) for line in responses] == [None] * len(responses)


async def test_what_was_imported_answers(
    bench: Benchmark, pictures: FolderCollection, store: SqliteStore, tmp_path: Path
) -> None:
    (run,) = await make_run(bench, CachedLMM(oracle_of(pictures), store), tmp_path / "a", "agent")
    write_recording(tmp_path / "runs.fsr", [run.out], store)
    elsewhere = SqliteStore(tmp_path / "elsewhere.sqlite")
    new = elsewhere.put_all(read_entries(Archive(tmp_path / "runs.fsr")))
    assert new == elsewhere.stats().entries == store.stats().entries
    assert elsewhere.put_all(read_entries(Archive(tmp_path / "runs.fsr"))) == 0
    silent = oracle_of(pictures)
    (again,) = await make_run(bench, CachedLMM(silent, elsewhere, "replay"), tmp_path / "b", "agent")
    assert_same_rankings(again.out, run.out)
    assert silent.requests == []
    elsewhere.close()


def test_queries_at_once_do_not_matter(
    bench: Benchmark, pictures: FolderCollection, store: SqliteStore, tmp_path: Path
) -> None:
    (run,) = asyncio.run(make_run(bench, CachedLMM(oracle_of(pictures), store), tmp_path / "a", "pairwise"))
    recording = exported(tmp_path / "runs.fsr", tmp_path / "a", store)
    for most in (1, 6):
        (again,) = asyncio.run(replay(recording, tmp_path / str(most), query_concurrency=most))
        assert_same_rankings(again.out, run.out)
