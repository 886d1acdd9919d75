"""Runs with a scoring model: what they record, replayed without any call, scored again, counted, and ended in time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fieldscope.agent.calibration import Calibration, CalibrationKey, FirstLook
from fieldscope.agent.graph import Agent
from fieldscope.agent.image_scorer import ImageScorer
from fieldscope.agent.lmm.cached import CachedLMM
from fieldscope.agent.resources import CandidateScorer, Resources
from fieldscope.agent.roles import LMMs
from fieldscope.agent.scored import CachedScorer
from fieldscope.agent.strategies.strategy import Strategy, load_strategy
from fieldscope.agent.usage import SCORER
from fieldscope.cache.archive import Archive
from fieldscope.cache.sqlite import SqliteStore
from fieldscope.cache.store import MemoryStore
from fieldscope.core.errors import CacheMissError, ConfigError, LMMConnectionError, LMMError
from fieldscope.eval.harness import evaluate
from fieldscope.eval.report import payload, warnings
from fieldscope.eval.runs.inputs import input_lines
from fieldscope.eval.runs.read import read_results
from fieldscope.eval.runs.recording import read_recording, recorded_lines, write_recording
from fieldscope.eval.runs.replay import make_recording
from fieldscope.eval.runs.rescore import Rescorer, require_same_scores
from fieldscope.eval.types import Benchmark, RunSummary
from fieldscope.retrieval.collection import FolderCollection
from fieldscope.retrieval.encoder import QueryInputs
from fieldscope.retrieval.scorer import Document
from tests.agent.oracle import draw_cases, oracle_of, oracle_scorer, paint

FIT = Calibration(
    key=CalibrationKey(model="oracle", prompts={}),
    scorer_weight=1.0,
    first_look=FirstLook(bias=-1.0, prior_weight=0.5, scorer_weight=2.0),
    scored_scale=2.0,
    spread=5.0,
)
SCORED_PREDICATES = load_strategy(
    "predicates",
    {"name": "scored-predicates", "score": {"predicates": True}, "fusion.scorer_weight": 1.0},
    prompts="fieldnotes",
)
AS_PRIOR = load_strategy(
    "yes-no", {"name": "after-scorer", "score": {}, "retrieve.prior": "scorer"}, prompts="fieldnotes"
)
STRATEGIES = {
    "cross-encoder": load_strategy("cross-encoder"),
    "cascade": load_strategy("cascade", prompts="fieldnotes"),
    "scored-predicates": SCORED_PREDICATES,
    "after-scorer": AS_PRIOR,
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> FolderCollection:
    return paint(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def bench(pictures: FolderCollection) -> Benchmark:
    """A text, a composed and a dialogue query over a dozen candidates each."""
    cases = draw_cases(3, candidates=12)
    return Benchmark(
        name="facts",
        split="test",
        queries=tuple(case.query for case in cases),
        qrels={case.query.id: dict.fromkeys(sorted(case.relevant), 1) for case in cases},
        images=pictures,
        candidate_sets={case.query.id: case.candidates for case in cases},
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "cache.sqlite")
    yield opened
    opened.close()


class Silent:
    """A scoring model whose server is gone."""

    fingerprint = "silent"

    def score(self, inputs: QueryInputs, documents: Sequence[Document]) -> list[float | None]:
        raise LMMConnectionError("connection refused")


async def make_run(
    bench: Benchmark, lmm: Any, scorer: CandidateScorer, out: Path, strategy: Strategy, **options: Any
) -> RunSummary:
    resources = Resources(bench.images, lmm, calibration=FIT, scorer=scorer)
    (summary,) = await evaluate(
        bench,
        [Agent(resources, strategy)],
        out,
        provenance={"encoder": "e", "seed": 0},
        lmms={strategy.name: LMMs.of(lmm).identity() if strategy.prompts else None},
        scorers={strategy.name: scorer.fingerprint},
        inputs={strategy.name: input_lines(bench, strategy, FIT)},
        **options,
    )
    return summary


@pytest.mark.parametrize("name", STRATEGIES)
async def test_a_run_is_replayed_without_the_scorer(
    name: str, bench: Benchmark, pictures: FolderCollection, store: SqliteStore, tmp_path: Path
) -> None:
    strategy, scorer = STRATEGIES[name], oracle_scorer(pictures, refuses=("03.png",))
    seen = ImageScorer(CachedScorer(scorer, store, pictures), pictures)
    lmm = CachedLMM(oracle_of(pictures), store)
    # An image without a score is asked about again by each run, so the result is not finished, and stays.
    run = await make_run(bench, lmm, seen, tmp_path / "a", strategy)
    write_recording(tmp_path / "runs.fsr", [tmp_path / "a"], store)
    recording = make_recording(read_recording(Archive(tmp_path / "runs.fsr")))
    assert recording.scorer is not None and recording.scorer.fingerprint == scorer.fingerprint
    asked = len(scorer.texts)
    again = await make_run(
        recording.benchmark,
        recording.lmm or lmm,
        recording.scorer,
        tmp_path / "b",
        recording.runs[0].strategy,
        live=False,
    )
    assert len(scorer.texts) == asked
    before, after = read_results(run.out), read_results(again.out)
    for query_id, result in before.items():
        assert after[query_id].ranking == result.ranking
        assert [s.value for s in after[query_id].scores] == [s.value for s in result.scores]
    assert again.metrics == run.metrics
    assert run.by_role[SCORER].calls == again.by_role[SCORER].calls == sum(len(r.scores) for r in before.values())
    query = bench.queries[0]
    with pytest.raises(CacheMissError, match="never scored image 99"):
        await recording.scorer.scores(query, ["99.png"])


async def test_a_run_is_ranked_again_from_its_scores(
    bench: Benchmark, pictures: FolderCollection, store: SqliteStore, tmp_path: Path
) -> None:
    scorer = ImageScorer(CachedScorer(oracle_scorer(pictures), store, pictures), pictures)
    lmm = CachedLMM(oracle_of(pictures), store)
    for name in ("cascade", "scored-predicates", "after-scorer"):
        run = await make_run(bench, lmm, scorer, tmp_path / "a", STRATEGIES[name])
        results = read_results(run.out)
        again = Rescorer(STRATEGIES[name], results, Resources(pictures, calibration=FIT))
        other = FIT.model_copy(update={"scorer_weight": 0.0, "scored_scale": 9.0, "first_look": None})
        changed = Rescorer(STRATEGIES[name], results, Resources(pictures, calibration=other))
        moved = 0
        for query in bench.queries:
            result = await again.rerank(query)
            assert result.ranking == results[query.id].ranking and result.scores == results[query.id].scores
            moved += (await changed.rerank(query)).ranking != result.ranking
        assert moved or name == "after-scorer", "its scores are its prior, which has no weight"


def test_scores_that_a_run_does_not_have_are_not_made_up(tmp_path: Path) -> None:
    cascade, agent = STRATEGIES["cascade"], load_strategy("agent", prompts="fieldnotes")
    require_same_scores(cascade, cascade, tmp_path)
    require_same_scores(agent, cascade, tmp_path)
    told = load_strategy("cascade", {"score.instruction": "Find crabs."}, prompts="fieldnotes")
    for strategy, recorded in ((cascade, agent), (told, cascade), (SCORED_PREDICATES, cascade), (agent, AS_PRIOR)):
        with pytest.raises(ConfigError, match="uses other scores of the scoring model"):
            require_same_scores(strategy, recorded, tmp_path)


async def test_pairs_are_counted_apart_from_calls(bench: Benchmark, pictures: FolderCollection, tmp_path: Path) -> None:
    scorer = ImageScorer(CachedScorer(oracle_scorer(pictures), MemoryStore(), pictures), pictures)
    run = await make_run(bench, oracle_of(pictures), scorer, tmp_path, STRATEGIES["cross-encoder"])
    assert run.cost.calls == run.asked == 0 and run.by_role[SCORER].calls == 36 and run.scorer == "oracle scorer"
    told = payload([run])["runs"][0]
    assert told["by_role"][SCORER]["calls"] == 36 and told["cost"]["calls"] == 0 and told["scorer"] == "oracle scorer"
    manifest = json.loads((run.out / "manifest.json").read_text())
    assert manifest["configuration"]["scorer"] == "oracle scorer"
    assert len((run.out / "images.jsonl").read_text().splitlines()) > 12, "the images that were scored have hashes"


async def test_unscored_images_count_as_failures(bench: Benchmark, pictures: FolderCollection, tmp_path: Path) -> None:
    some = sorted({candidate.image_id for candidate in bench.candidates("q00") or ()})[:6]
    refusing = ImageScorer(CachedScorer(oracle_scorer(pictures, some), MemoryStore(), pictures), pictures)
    run = await make_run(bench, oracle_of(pictures), refusing, tmp_path, STRATEGIES["cross-encoder"])
    failed = run.by_role[SCORER].unknown
    assert failed >= 6 and run.unknown_share == failed / 36
    assert f"cross-encoder: {failed} of 36 scored pairs failed" in warnings([run])[0]


async def test_a_scorer_that_is_gone_ends_the_run(bench: Benchmark, pictures: FolderCollection, tmp_path: Path) -> None:
    gone = ImageScorer(CachedScorer(Silent(), MemoryStore(), pictures), pictures)
    with pytest.raises(LMMError, match=r"cross-encoder, scorer: \d+ calls in a row failed \(connection refused\)"):
        await make_run(bench, oracle_of(pictures), gone, tmp_path, STRATEGIES["cross-encoder"])


async def test_runs_of_two_scorers_are_not_exported_together(
    bench: Benchmark, pictures: FolderCollection, store: SqliteStore, tmp_path: Path
) -> None:
    class Other(type(oracle_scorer(pictures))):  # type: ignore[misc]
        fingerprint = "another"

    cross_encoder = STRATEGIES["cross-encoder"]
    for name, scorer in (
        ("one", oracle_scorer(pictures)),
        ("two", Other({pictures.pixel_hash(i): () for i in pictures.ids()})),
    ):
        scoring = ImageScorer(CachedScorer(scorer, MemoryStore(), pictures), pictures)
        named = cross_encoder.model_copy(update={"name": name})
        await make_run(bench, oracle_of(pictures), scoring, tmp_path / "runs", named)
    with pytest.raises(ConfigError, match="different scorers"):
        list(recorded_lines([tmp_path / "runs"], store))
