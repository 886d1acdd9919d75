from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import ir_measures
import pytest

from fieldscope.agent.budget import Account, Budget
from fieldscope.agent.graph import Agent
from fieldscope.agent.lmm.base import LMM, LMMRequest, LMMResponse
from fieldscope.agent.lmm.cached import CachedLMM
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.agent.types import Call, Comparison, Reason, RerankResult, Verdict
from fieldscope.agent.usage import Usage
from fieldscope.cache.sqlite import SqliteStore
from fieldscope.core.errors import BrokenImageError, CacheMissError, ConfigError, LMMConnectionError, LMMError
from fieldscope.core.types import Candidate, Query
from fieldscope.eval.harness import evaluate
from fieldscope.eval.measures.scoring import HEADLINE, score
from fieldscope.eval.model_watch import PATIENCE
from fieldscope.eval.reported import RIGHTLY, WRONGLY
from fieldscope.eval.types import Benchmark, RunSummary
from tests.waiting import Crowd

Rows = list[dict[str, Any]]
MakeLMM = Callable[..., ScriptedLMM]
MODEL = {"lmm": "red is yes", "encoder": None, "seed": 0}


def agents(bench: Benchmark, lmm: LMM | None, *names: str) -> list[Agent]:
    return [Agent(Resources(images=bench.images, lmm=lmm), load_strategy(name, prompts="fieldnotes")) for name in names]


def results_in(folder: Path) -> dict[str, RerankResult]:
    lines = (folder / "results.jsonl").read_text().splitlines()
    return {result.query_id: result for result in map(RerankResult.model_validate_json, lines)}


def orders(folder: Path) -> dict[str, list[str]]:
    return {query: [ranked.image_id for ranked in result.ranking] for query, result in results_in(folder).items()}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_strategies_are_run_and_written(bench: Benchmark, make_lmm: MakeLMM, tmp_path: Path) -> None:
    lmm = make_lmm(bench.images)
    clip, yes_no = await evaluate(bench, agents(bench, lmm, "clip", "yes-no"), tmp_path, provenance=MODEL)
    assert tuple(clip.metrics) == (*HEADLINE, RIGHTLY, WRONGLY)
    assert 0 < (clip.metrics["mAP@50"] or 0) < 1
    assert {yes_no.metrics[name] for name in HEADLINE} == {1.0}
    assert list(clip.by_supercategory) == ["Appearance", "Behavior", "Context", "Species"]
    assert (yes_no.queries, yes_no.scored, yes_no.unknown) == (5, 5, 0)
    assert yes_no.cost == Usage(40, yes_no.cost.prompt_tokens, 40, 0, yes_no.cost.seconds, yes_no.cost.wall)
    assert yes_no.cost.prompt_tokens > 40
    assert yes_no.cost.wall > 0
    assert clip.cost.calls == 0
    for summary in (clip, yes_no):
        assert set(content(summary.out)) == {
            "manifest.json", "collection.json", "results.jsonl", "images.jsonl", "run.trec", "qrels.trec",
            "metrics.json",
        }  # fmt: skip
        assert set(results_in(summary.out)) == {query.id for query in bench.queries}


async def test_the_written_metrics_are_those_that_trec_eval_computes(
    bench: Benchmark, make_lmm: MakeLMM, tmp_path: Path
) -> None:
    names = ("clip", "yes-no-fused")
    for summary in await evaluate(bench, agents(bench, make_lmm(bench.images), *names), tmp_path):
        run = list(ir_measures.read_trec_run(str(summary.out / "run.trec")))  # type: ignore[no-untyped-call]
        qrels = list(ir_measures.read_trec_qrels(str(summary.out / "qrels.trec")))  # type: ignore[no-untyped-call]
        wanted = {
            "mAP@50": ir_measures.AP @ 50,
            "nDCG@50": ir_measures.nDCG @ 50,
            "nDCG@100": ir_measures.nDCG @ 100,
            "MRR": ir_measures.RR,
            "P@10": ir_measures.P @ 10,
        }
        theirs = ir_measures.calc_aggregate(list(wanted.values()), qrels, run)
        written = json.loads((summary.out / "metrics.json").read_text())
        for name, measure in wanted.items():
            assert written["metrics"][name] == pytest.approx(theirs[measure], abs=1e-9)
        for metric in ir_measures.iter_calc([ir_measures.AP @ 50], qrels, run):
            assert written["per_query"][metric.query_id]["AP@50"] == pytest.approx(metric.value)
        for query_id, found in written["per_query"].items():
            assert found["positives"] == sum(bench.qrels[query_id].values())


async def test_metrics_by_supercategory_are_means_within_it(bench: Benchmark, tmp_path: Path) -> None:
    (summary,) = await evaluate(bench, agents(bench, None, "clip"), tmp_path)
    written = json.loads((summary.out / "metrics.json").read_text())
    for group, means in summary.by_supercategory.items():
        inside = [q for q, meta in bench.meta.items() if meta.supercategory == group]
        mean = sum(written["per_query"][q]["AP@50"] for q in inside) / len(inside)
        assert means["mAP@50"] == pytest.approx(mean)


async def test_the_manifest_says_what_was_run(bench: Benchmark, make_lmm: MakeLMM, tmp_path: Path) -> None:
    (agent,) = agents(bench, make_lmm(bench.images), "yes-no")
    (summary,) = await evaluate(bench, [agent], tmp_path, provenance=MODEL)
    manifest = json.loads((summary.out / "manifest.json").read_text())
    found = manifest["configuration"]
    assert found["benchmark"] == {"name": bench.name, "split": "test", "fingerprint": bench.fingerprint}
    assert found["strategy"]["fingerprint"] == agent.strategy.fingerprint
    assert found["strategy"]["prompts"] == {p.name: p.fingerprint for p in agent.strategy.prompts} != {}
    assert {key: found[key] for key in MODEL} == MODEL
    assert manifest["environments"][0]["libraries"]["numpy"]
    assert manifest["environments"][0]["python"].startswith("3.")
    hashes = [json.loads(line) for line in (summary.out / "images.jsonl").read_text().splitlines()]
    assert {entry["image_id"]: entry["sha256"] for entry in hashes} == {
        image: bench.images.pixel_hash(image) for judged in bench.qrels.values() for image in judged
    }


async def test_the_same_command_again_asks_nothing(bench: Benchmark, make_lmm: MakeLMM, tmp_path: Path) -> None:
    lmm = make_lmm(bench.images)
    (first,) = await evaluate(bench, agents(bench, lmm, "yes-no"), tmp_path, provenance=MODEL)
    before = content(first.out)
    asked = len(lmm.requests)
    (second,) = await evaluate(bench, agents(bench, lmm, "yes-no"), tmp_path, provenance=MODEL)
    assert len(lmm.requests) == asked == 40
    assert (second.metrics, second.by_supercategory) == (first.metrics, first.by_supercategory)
    assert (second.cost.calls, second.cost.cached) == (40, 40)
    assert second.cost.prompt_tokens == first.cost.prompt_tokens
    assert {name for name, was in before.items() if content(first.out)[name] != was} == {"metrics.json"}


async def test_a_limit_can_be_lifted_later(bench: Benchmark, make_lmm: MakeLMM, tmp_path: Path) -> None:
    lmm = make_lmm(bench.images)
    (part,) = await evaluate(bench, agents(bench, lmm, "yes-no"), tmp_path, limit=2)
    assert (part.queries, len(lmm.requests)) == (2, 16)
    assert {line.split()[0] for line in (part.out / "qrels.trec").read_text().splitlines()} == {"q000", "q001"}
    (whole,) = await evaluate(bench, agents(bench, lmm, "yes-no"), tmp_path)
    assert (whole.queries, whole.cost.calls, whole.cost.cached, len(lmm.requests)) == (5, 40, 16, 40)
    with pytest.raises(ConfigError, match="at least 1"):
        await evaluate(bench, agents(bench, lmm, "yes-no"), tmp_path, limit=0)


@pytest.mark.parametrize("cut", [1, 200, 100_000])
async def test_a_torn_last_line_is_asked_again(bench: Benchmark, make_lmm: MakeLMM, tmp_path: Path, cut: int) -> None:
    lmm = make_lmm(bench.images)
    (summary,) = await evaluate(bench, agents(bench, lmm, "yes-no"), tmp_path, query_concurrency=1)
    expected = orders(summary.out)
    lines = (summary.out / "results.jsonl").read_bytes().splitlines(keepends=True)
    torn = b"".join(lines[:3]) + lines[3][: max(len(lines[3]) - cut, 1)]
    (summary.out / "results.jsonl").write_bytes(torn)
    await evaluate(bench, agents(bench, lmm, "yes-no"), tmp_path)
    assert len(lmm.requests) == 40 + 16
    assert orders(summary.out) == expected
    assert (summary.out / "results.jsonl").read_bytes().startswith(b"".join(lines[:3]))


async def test_a_damaged_line_is_asked_again(bench: Benchmark, make_lmm: MakeLMM, tmp_path: Path) -> None:
    lmm = make_lmm(bench.images)
    (summary,) = await evaluate(bench, agents(bench, lmm, "yes-no"), tmp_path)
    path = summary.out / "results.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\x00\x00\xff\n" + b"".join(lines[2:]))
    (again,) = await evaluate(bench, agents(bench, lmm, "yes-no"), tmp_path)
    assert (len(lmm.requests), again.queries) == (48, 5)


@pytest.mark.parametrize("what", ["provenance", "benchmark", "strategy"])
async def test_another_configuration_is_refused_and_nothing_is_overwritten(
    bench: Benchmark, make_lmm: MakeLMM, tmp_path: Path, what: str
) -> None:
    lmm = make_lmm(bench.images)
    (agent,) = agents(bench, lmm, "yes-no")
    (summary,) = await evaluate(bench, [agent], tmp_path, provenance=MODEL)
    with (summary.out / "results.jsonl").open("ab") as results:
        results.write(b'{"torn')
    before = content(tmp_path)
    provenance = MODEL | {"lmm": "another"} if what == "provenance" else MODEL
    other = replace(bench, name="another") if what == "benchmark" else bench
    if what == "strategy":
        verify = agent.strategy.verify and agent.strategy.verify.model_copy(update={"top_k": 3})
        agent = Agent(agent.resources, agent.strategy.model_copy(update={"verify": verify}))
    differing = "lmm" if what == "provenance" else what
    with pytest.raises(ConfigError, match=rf"another configuration \(other {differing}\)"):
        await evaluate(other, [agent], tmp_path, provenance=provenance)
    assert content(tmp_path) == before


async def test_no_strategy_starts_where_one_folder_is_refused(bench: Benchmark, tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "thesis.txt").write_text("mine")
    lmm = ScriptedLMM(lambda _: 0.5)
    with pytest.raises(ConfigError, match=r"thesis\.txt but no manifest"):
        await evaluate(bench, agents(bench, lmm, "yes-no", "clip"), tmp_path)
    assert lmm.requests == []


@pytest.mark.parametrize("manifest", ["", "{", "[]", '{"format": 2, "began": "", "configuration": {}}'])
async def test_a_manifest_of_another_version_is_refused(bench: Benchmark, tmp_path: Path, manifest: str) -> None:
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "manifest.json").write_text(manifest)
    with pytest.raises(ConfigError, match="another version"):
        await evaluate(bench, agents(bench, None, "clip"), tmp_path)
    assert (tmp_path / "clip" / "manifest.json").read_text() == manifest


async def test_another_process_in_the_folder_is_noticed(bench: Benchmark, tmp_path: Path) -> None:
    class Nested(Agent):
        async def rerank(self, *args: Any, **kwargs: Any) -> RerankResult:
            await evaluate(bench, agents(bench, None, "clip"), tmp_path)
            return await super().rerank(*args, **kwargs)

    with pytest.raises(ConfigError, match="another process is writing"):
        await evaluate(
            bench, [Nested(Resources(images=bench.images), load_strategy("clip", prompts="fieldnotes"))], tmp_path
        )
    assert (await evaluate(bench, agents(bench, None, "clip"), tmp_path))[0].queries == 5


async def test_an_image_that_changed_under_way_is_noticed(
    rows: Rows, benchmark_of: Callable[[Rows], Benchmark], make_lmm: MakeLMM, tmp_path: Path
) -> None:
    rows[8]["inat24_image_id"] = rows[0]["inat24_image_id"]  # a candidate of two queries
    bench = benchmark_of(rows)
    await evaluate(bench, agents(bench, make_lmm(bench.images), "yes-no"), tmp_path / "out", limit=1)
    rows[0]["image"] = rows[1]["image"]
    bench = benchmark_of(rows)
    with pytest.raises(ConfigError, match="image 0 changed since"):
        await evaluate(bench, agents(bench, make_lmm(bench.images), "yes-no"), tmp_path / "out")


async def test_names_that_can_name_no_folder_are_refused(bench: Benchmark, tmp_path: Path) -> None:
    (agent,) = agents(bench, None, "clip")
    with pytest.raises(ConfigError, match="same name"):
        await evaluate(bench, [agent, agent], tmp_path)
    bad = Agent(agent.resources, agent.strategy.model_copy(update={"name": "../clip"}))
    with pytest.raises(ConfigError, match="can't name a run folder"):
        await evaluate(bench, [bad], tmp_path)
    assert list(tmp_path.glob("clip*")) == []


class Flaky(ScriptedLMM):
    """Answers like another model, but fails for every n-th call."""

    def __init__(self, lmm: ScriptedLMM, every: int) -> None:
        super().__init__(lambda _: 0.5, identity=lmm.identity)
        self.lmm = lmm
        self.every = every

    async def generate(self, request: LMMRequest) -> LMMResponse:
        self.requests.append(request)
        if self.every and len(self.requests) % self.every == 0:
            raise LMMConnectionError("the server went away")
        return await self.lmm.generate(request)


class Refusing(ScriptedLMM):
    """Answers like another model, but won't speak of one thing."""

    def __init__(self, lmm: ScriptedLMM, taboo: str) -> None:
        super().__init__({taboo: "I can't say"}, identity=lmm.identity)
        self.lmm = lmm
        self.taboo = taboo

    async def generate(self, request: LMMRequest) -> LMMResponse:
        if self.taboo in request.text:
            return await super().generate(request)
        self.requests.append(request)
        return await self.lmm.generate(request)


async def test_unknown_verdicts_are_counted_and_asked_again(
    bench: Benchmark, make_lmm: MakeLMM, tmp_path: Path
) -> None:
    lmm = Flaky(make_lmm(bench.images), every=20)
    cached = CachedLMM(lmm, SqliteStore(tmp_path / "cache.sqlite"))
    (first,) = await evaluate(bench, agents(bench, cached, "yes-no"), tmp_path / "out", query_concurrency=1)
    assert (first.unknown, first.cost.calls) == (2, 40)
    lmm.every = 0
    (second,) = await evaluate(bench, agents(bench, cached, "yes-no"), tmp_path / "out")
    assert len(lmm.requests) == 42
    assert (second.unknown, second.cost.calls, second.cost.cached) == (0, 40, 38)
    assert {second.metrics[name] for name in HEADLINE} == {1.0}


async def test_a_dead_model_ends_the_run_and_keeps_what_was_finished(
    bench: Benchmark, make_lmm: MakeLMM, tmp_path: Path
) -> None:
    lmm = Flaky(make_lmm(bench.images), every=0)
    await evaluate(bench, agents(bench, lmm, "yes-no"), tmp_path, limit=1)
    lmm.every = 1
    with pytest.raises(LMMError, match=r"24 calls in a row failed \(the server went away\)"):
        await evaluate(bench, agents(bench, lmm, "yes-no"), tmp_path, query_concurrency=1)
    assert PATIENCE <= len(lmm.requests) - 8 < 32
    lmm.every = 0
    (summary,) = await evaluate(bench, agents(bench, lmm, "yes-no"), tmp_path)
    assert (summary.cost.calls, summary.unknown, len(orders(summary.out))) == (40, 0, 5)


async def test_a_query_that_the_model_refuses_does_not_end_the_run(
    rows: Rows, benchmark_of: Callable[[Rows], Benchmark], make_lmm: MakeLMM, tmp_path: Path
) -> None:
    for row in rows[8:32]:
        row["query"] = rows[8]["query"]  # one query of 24 candidates
    bench = benchmark_of(rows)
    lmm = Refusing(make_lmm(bench.images), rows[8]["query"])
    for _ in range(2):
        (summary,) = await evaluate(bench, agents(bench, lmm, "yes-no"), tmp_path, query_concurrency=1)
        assert (summary.queries, summary.unknown, summary.cost.calls) == (3, 24, 40)
        assert len((summary.out / "results.jsonl").read_text().splitlines()) == 3
    assert len(lmm.requests) == 40 + 24


async def test_asking_again_in_vain_takes_nothing_away(bench: Benchmark, make_lmm: MakeLMM, tmp_path: Path) -> None:
    lmm = Flaky(make_lmm(bench.images), every=5)
    (first,) = await evaluate(bench, agents(bench, lmm, "yes-no"), tmp_path, limit=1)
    assert first.unknown == 1
    before = orders(first.out)
    lmm.every = 1
    with pytest.raises(LMMError, match="Check the model"):
        await evaluate(bench, agents(bench, lmm, "yes-no"), tmp_path)
    assert orders(first.out)["q000"] == before["q000"]
    assert sum(verdict.state == "unknown" for verdict in results_in(first.out)["q000"].verdicts) == 1


async def test_a_small_run_without_any_answer_is_an_error_too(bench: Benchmark, tmp_path: Path) -> None:
    lmm = ScriptedLMM(lambda _: LMMConnectionError("nobody is there"))
    with pytest.raises(LMMError, match=r"8 calls in a row failed \(nobody is there\)"):
        await evaluate(bench, agents(bench, lmm, "yes-no"), tmp_path, limit=1)
    assert json.loads((tmp_path / "yes-no" / "metrics.json").read_text())["unknown"] == 8


async def test_broken_images_are_no_fault_of_the_model(
    rows: Rows, benchmark_of: Callable[[Rows], Benchmark], make_lmm: MakeLMM, tmp_path: Path
) -> None:
    for row in rows[:24]:
        row["image"] = b"no picture"
    bench = benchmark_of(rows)
    with pytest.raises(BrokenImageError):
        bench.images.load("0")
    (summary,) = await evaluate(bench, agents(bench, make_lmm(bench.images), "yes-no"), tmp_path, query_concurrency=1)
    assert (summary.unknown, summary.cost.calls) == (24, 40)
    results = results_in(summary.out)
    by_prior = sorted(bench.candidates("q000") or (), key=lambda c: -c.prior)
    assert [r.image_id for r in results["q000"].ranking] == [c.image_id for c in by_prior]


async def test_an_error_of_the_replay_ends_the_run(bench: Benchmark, make_lmm: MakeLMM, tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "cache.sqlite")
    lmm = make_lmm(bench.images)
    await evaluate(bench, agents(bench, CachedLMM(lmm, store), "yes-no"), tmp_path / "a", limit=2)
    with pytest.raises(CacheMissError, match="never recorded"):
        replay = agents(bench, CachedLMM(lmm, store, "replay"), "yes-no")
        await evaluate(bench, replay, tmp_path / "b", query_concurrency=1)
    assert set(orders(tmp_path / "b" / "yes-no")) == {"q000", "q001"}


class Fake:
    """Ranks by a fixed table, once `at_once` queries are in flight."""

    strategy = load_strategy("clip", prompts="fieldnotes")
    account = None

    def __init__(self, finds: dict[str, list[str]], at_once: int = 1) -> None:
        self.finds = finds
        self.crowd = Crowd(at_once)
        self.given: list[object] = []

    async def rerank(
        self, query: Query, candidates: Sequence[Candidate] | None = None, *, budget: Budget | None = None
    ) -> RerankResult:
        self.given.append(candidates)
        async with self.crowd.join():
            pass
        return RerankResult.model_validate(
            {
                "query_id": query.id,
                "query_text": query.text,
                "strategy": "clip",
                "flags": ("the models know another world", f"only {query.id}"),
                "ranking": [
                    {"image_id": image, "rank": rank, "score": -rank, "prior": -rank, "prior_rank": rank}
                    for rank, image in enumerate(self.finds[query.id], start=1)
                ],
            }
        )


async def test_queries_run_at_once_up_to_the_limit(bench: Benchmark, tmp_path: Path) -> None:
    fake = Fake({query.id: [] for query in bench.queries}, at_once=3)
    (summary,) = await evaluate(bench, [fake], tmp_path, query_concurrency=3)
    assert fake.crowd.most == 3
    assert {summary.metrics[name] for name in HEADLINE} == {0.0}
    assert summary.flags == ("the models know another world",)


async def test_full_retrieval_counts_all_positives(bench: Benchmark, tmp_path: Path) -> None:
    a, b = Query(id="a", text="a"), Query(id="b c", text="b")
    full = Benchmark(
        name="full",
        split="test",
        queries=(a, b),
        qrels={"a": {"x y": 1, "z": 1, "lost": 1, "never": 0}, "b c": {"v": 0}},
        images=bench.images,
    )
    fake = Fake({"a": ["x y", "other", "z"], "b c": ["v"]})
    (summary,) = await evaluate(full, [fake], tmp_path)
    assert fake.given == [None, None]
    assert summary.metrics["mAP@50"] == pytest.approx((1 + 2 / 3) / 3)
    assert summary.metrics["first-stage recall@100"] == pytest.approx(2 / 3)
    assert (summary.queries, summary.scored) == (2, 1)
    docs = ir_measures.read_trec_run(str(summary.out / "run.trec"))  # type: ignore[no-untyped-call]
    assert {unquote(doc.doc_id) for doc in docs} == {"x y", "other", "z", "v"}
    written = json.loads((summary.out / "metrics.json").read_text())
    assert written["per_query"]["b c"]["AP@50"] is None


async def test_the_window_of_a_rerank_benchmark_bounds_its_positives(bench: Benchmark, tmp_path: Path) -> None:
    windowed = Benchmark(
        name="window",
        split="test",
        queries=(Query(id="a", text="a"),),
        qrels={"a": {"x": 1, "outside": 1}},
        images=bench.images,
        candidate_sets={"a": (Candidate("x", 1.0), Candidate("w", 0.5))},
    )
    (summary,) = await evaluate(windowed, [Fake({"a": ["x", "w"]})], tmp_path)
    assert summary.metrics["mAP@50"] == 1.0
    assert (summary.out / "qrels.trec").read_text() == "a 0 x 1\na 0 w 0\n"


async def test_a_ranking_that_is_none_is_not_scored(bench: Benchmark, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="twice"):
        await evaluate(bench, [Fake({query.id: ["x", "y", "x"] for query in bench.queries})], tmp_path)
    tied = Fake({query.id: ["x", "y"] for query in bench.queries})
    result = await tied.rerank(bench.queries[0])
    same = tuple(ranked.model_copy(update={"score": 0.5}) for ranked in result.ranking)
    with pytest.raises(ValueError, match="tied"):
        score(bench, {"q000": result.model_copy(update={"ranking": same})})


class Watching:
    def __init__(self) -> None:
        self.seen: list[tuple[object, ...]] = []

    def begin(self, strategy: str, queries: int, finished: int, cost: Usage) -> None:
        self.seen.append(("begin", strategy, queries, finished, cost.calls, cost.cached))

    def advance(self, cost: Usage) -> None:
        self.seen.append(("advance", cost.calls, cost.unknown))

    def end(self) -> None:
        self.seen.append(("end",))


async def test_progress_is_told(bench: Benchmark, make_lmm: MakeLMM, tmp_path: Path) -> None:
    lmm = make_lmm(bench.images)
    await evaluate(bench, agents(bench, lmm, "yes-no"), tmp_path, limit=2)
    watching = Watching()
    summaries: list[RunSummary] = await evaluate(bench, agents(bench, lmm, "yes-no"), tmp_path, progress=watching)
    assert watching.seen == [("begin", "yes-no", 5, 2, 16, 16), *[("advance", 8, 0)] * 3, ("end",)]
    assert summaries[0].cost.calls == 40


class Canned:
    """Gives the results it was given, and knows within which budgets it was asked."""

    strategy = load_strategy("agent", prompts="fieldnotes")
    account = None

    def __init__(self, *parts: Any, ended: str | None = None) -> None:
        self.parts = parts
        self.ended = ended
        self.budgets: list[Budget | None] = []

    async def rerank(
        self, query: Query, candidates: Sequence[Candidate] | None = None, *, budget: Budget | None = None
    ) -> RerankResult:
        self.budgets.append(budget)
        kinds: dict[str, type] = {"calls": Call, "verdicts": Verdict, "comparisons": Comparison, "reasons": Reason}
        ranked = [
            {"image_id": c.image_id, "rank": rank, "score": -rank, "prior": 0, "prior_rank": rank}
            for rank, c in enumerate(candidates or (), start=1)
        ]
        parts = {name: tuple(part for part in self.parts if isinstance(part, kind)) for name, kind in kinds.items()}
        told = {"query_id": query.id, "query_text": query.text, "strategy": "agent", "ended": self.ended}
        return RerankResult.model_validate({**told, "ranking": ranked}).model_copy(update=parts)


def asked(state: str = "answered", **changes: Any) -> dict[str, Any]:
    return {"state": state, "prompt_tokens": 10, "completion_tokens": 2, "request_key": "k", **changes}


def verdict(image: str, state: str = "answered", **changes: Any) -> Verdict:
    return Verdict.model_validate({"predicate": "p", "image_id": image, **asked(state, **changes)})


def alone(bench: Benchmark) -> Benchmark:
    """Its first query, which looks for a change of another query's image."""
    query = bench.queries[0].model_copy(update={"reference_image": "107"})
    sets = bench.candidate_sets or {}
    return replace(bench, queries=(query,), candidate_sets={query.id: sets[query.id]})


async def test_the_cost_is_of_everything_that_was_asked(bench: Benchmark, tmp_path: Path) -> None:
    canned = Canned(
        Call(stage="synthesize", **asked()),
        Call(stage="joint", **asked(cached=True)),
        verdict("0"),
        verdict("1", "not_asked"),
        verdict("2", joint=True),
        verdict("5", "unknown"),
        Comparison(shown=("2", "3"), **asked()),
        Comparison(shown=("6", "3"), **asked("not_asked")),
        Reason(image_id="4", **asked()),
    )
    (summary,) = await evaluate(alone(bench), [canned], tmp_path)
    assert summary.cost == Usage(6, 60, 12, 1, summary.cost.seconds, summary.cost.wall, summary.unknown)
    assert (summary.asked, summary.unknown, summary.unknown_share) == (6, 1, 1 / 6)
    hashed = {json.loads(line)["image_id"] for line in (summary.out / "images.jsonl").read_text().splitlines()}
    assert hashed == {"0", "2", "3", "4", "5", "107"}
    assert json.loads((summary.out / "metrics.json").read_text())["asked"] == 6


async def test_a_text_that_could_not_be_read_is_not_asked_for_again(bench: Benchmark, tmp_path: Path) -> None:
    garbage = Call(stage="synthesize", text="no json", **asked("unknown", error="there is no JSON object in it"))
    canned = Canned(garbage, *(verdict(str(n)) for n in range(8)))
    (first,) = await evaluate(alone(bench), [canned], tmp_path)
    (again,) = await evaluate(alone(bench), [canned], tmp_path)
    assert (first.unknown, again.unknown, len(canned.budgets)) == (1, 1, 1)
    failed = Call(stage="synthesize", **asked("unknown", error="gone"))
    lost = Canned(failed, verdict("1"))
    for _ in range(2):
        await evaluate(alone(bench), [lost], tmp_path / "lost")
    assert len(lost.budgets) == 2


async def test_texts_are_no_life_where_nothing_is_said_of_candidates(bench: Benchmark, tmp_path: Path) -> None:
    unsaid = [verdict(str(n), "unknown", error="no log-probabilities") for n in range(8)]
    canned = Canned(Call(stage="synthesize", text="{}", **asked()), *unsaid)
    with pytest.raises(LMMError, match=r"8 calls in a row failed \(no log-probabilities\)"):
        await evaluate(alone(bench), [canned], tmp_path)
    unread = Canned(Call(stage="caption", **asked("unknown", request_key=None)), verdict("1"))
    assert (await evaluate(alone(bench), [unread], tmp_path / "b"))[0].unknown == 1


async def test_runaway_texts_do_not_end_a_run_that_was_judged_from_the_cache(bench: Benchmark, tmp_path: Path) -> None:
    remembered = [verdict(str(n), cached=True) for n in range(8)]
    runaway = Call(stage="synthesize", text="{" * 100, **asked("unknown", error="it is longer than 20000 characters"))
    (summary,) = await evaluate(bench, [Canned(runaway, runaway, *remembered)], tmp_path / "runaway")
    assert (summary.queries, summary.unknown) == (5, 10)
    timed_out = Call(stage="synthesize", **asked("unknown", error="did not answer within 120 s"))
    (summary,) = await evaluate(bench, [Canned(timed_out, *remembered)], tmp_path / "timed out")
    assert (summary.queries, summary.unknown) == (5, 5)


async def test_a_model_that_died_ends_a_run_although_verdicts_come_from_the_cache(
    bench: Benchmark, tmp_path: Path
) -> None:
    gone = [Call(stage="synthesize", **asked("unknown", error="the server went away")) for _ in range(10)]
    with pytest.raises(LMMError, match=r"20 calls in a row failed \(the server went away\)"):
        await evaluate(bench, [Canned(*gone, verdict("1", cached=True))], tmp_path, query_concurrency=1)


async def test_a_budget_that_ends_the_work_finishes_a_query(
    bench: Benchmark, make_lmm: MakeLMM, tmp_path: Path
) -> None:
    lmm = make_lmm(bench.images)
    budget = Budget(max_calls=3, deadline=1000)
    for _ in range(2):
        (summary,) = await evaluate(bench, agents(bench, lmm, "yes-no"), tmp_path, budget=budget)
        assert (summary.cost.calls, summary.unknown, dict(summary.ended)) == (15, 0, {"verify": 5})
    assert len(lmm.requests) == 15
    configuration = json.loads((summary.out / "manifest.json").read_text())["configuration"]
    assert configuration["budget"] == {"query": {"calls": 3, "tokens": None}}
    later = replace(budget, deadline=None)
    await evaluate(bench, agents(bench, lmm, "yes-no"), tmp_path, budget=later)  # a deadline is no configuration
    for other in (None, Budget(max_calls=4), Budget(max_calls=3, max_tokens=10**6)):
        with pytest.raises(ConfigError, match=r"another configuration \(other budget\)"):
            await evaluate(bench, agents(bench, lmm, "yes-no"), tmp_path, budget=other)


def within(bench: Benchmark, lmm: LMM, budget: Budget) -> list[Agent]:
    return [
        Agent(Resources(images=bench.images, lmm=lmm), load_strategy("yes-no", prompts="fieldnotes"), Account(budget))
    ]


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_queries_share_the_budget_of_a_run(
    bench: Benchmark, make_lmm: MakeLMM, tmp_path: Path, concurrency: int
) -> None:
    lmm = make_lmm(bench.images)
    budget = Budget(max_calls=20)
    (part,) = await evaluate(bench, within(bench, lmm, budget), tmp_path, limit=1)
    assert (part.cost.calls, dict(part.ended)) == (8, {})
    (whole,) = await evaluate(bench, within(bench, lmm, budget), tmp_path, query_concurrency=concurrency)
    assert whole.cost.calls == len(lmm.requests) == 20  # what the first process spent counts
    assert sum(whole.ended.values()) in range(3, 5)
    assert len(results_in(whole.out)) == 5
    assert json.loads((whole.out / "manifest.json").read_text())["configuration"]["budget"] == {
        "run": {"calls": 20, "tokens": None}
    }


async def test_what_was_fitted_belongs_to_the_configuration(bench: Benchmark, tmp_path: Path) -> None:
    lmm = ScriptedLMM(lambda _: 0.5)
    await evaluate(bench, agents(bench, lmm, "yes-no"), tmp_path, calibrations={"yes-no": "abc"}, limit=1)
    with pytest.raises(ConfigError, match=r"other calibration\)"):
        await evaluate(bench, agents(bench, lmm, "yes-no"), tmp_path, calibrations={"yes-no": "abd"}, limit=1)
    await evaluate(bench, agents(bench, lmm, "yes-no"), tmp_path, calibrations={"yes-no": "abc", "x": "y"}, limit=1)
