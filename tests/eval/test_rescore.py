"""Ranking a finished run again: what the graph would have made of the same answers, without it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fieldscope.agent.lmm.base import LMMResponse
from fieldscope.agent.lmm.cached import CachedLMM
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.ordering import Fusion
from fieldscope.agent.strategies.strategy import Strategy, load_strategy
from fieldscope.cache.sqlite import SqliteStore
from fieldscope.core.errors import CacheError, ConfigError
from fieldscope.eval.harness import evaluate
from fieldscope.eval.runs.read import read_results
from fieldscope.eval.runs.recording import recorded_lines
from fieldscope.eval.runs.replay import make_recording
from fieldscope.eval.runs.rescore import Rescorer, Responses, require_same_questions
from fieldscope.eval.types import Benchmark, RunSummary
from fieldscope.retrieval.collection import FolderCollection
from tests.agent.faulty import Faulty
from tests.agent.oracle import draw_cases, oracle_of, paint
from tests.eval.test_replay import UNSURE, assert_same_rankings, make_run


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> FolderCollection:
    return paint(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def bench(pictures: FolderCollection) -> Benchmark:
    cases = draw_cases(5, seed=1, candidates=12)
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


async def again(
    run: RunSummary, out: Path, strategy: Strategy, *, calibration: object = UNSURE, responses: Responses | None = None
) -> RunSummary:
    recording = make_recording(recorded_lines([run.out], None))
    deps = Resources(recording.benchmark.images, recording.lmm, calibration=calibration)  # type: ignore[arg-type]
    rescorer = Rescorer(strategy, read_results(run.out), deps, responses)
    (summary,) = await evaluate(recording.benchmark, [rescorer], out, live=False)
    return summary


@pytest.mark.parametrize("name", ["clip", "yes-no", "yes-no-fused", "predicates", "imagescope", "pairwise", "agent"])
async def test_the_same_strategy_ranks_the_same(
    name: str, bench: Benchmark, pictures: FolderCollection, store: SqliteStore, tmp_path: Path
) -> None:
    """Also where a fifth of the calls failed."""
    strategy = load_strategy(name, prompts="fieldnotes")
    lmm = CachedLMM(Faulty(oracle_of(pictures)), store) if strategy.prompts else None
    (run,) = await make_run(bench, lmm, tmp_path / "a", strategy)
    rescored = await again(run, tmp_path / "b", strategy)
    assert_same_rankings(rescored.out, run.out)
    told, expected = (json.loads((out / "metrics.json").read_text()) for out in (rescored.out, run.out))
    assert told["per_query"] == expected["per_query"] and told["asked"] == expected["asked"]
    found = read_results(rescored.out)
    for query_id, result in read_results(run.out).items():
        assert found[query_id].ended == result.ended and found[query_id].reasons == result.reasons
        assert [event.kind for event in found[query_id].trace].count("ranked") == 1


@pytest.mark.parametrize("weight", [0.0, 0.3, 5.0])
async def test_new_weights_are_those_that_a_run_would_have(
    weight: float, bench: Benchmark, pictures: FolderCollection, store: SqliteStore, tmp_path: Path
) -> None:
    lmm = CachedLMM(oracle_of(pictures), store)
    (run,) = await make_run(bench, lmm, tmp_path / "a", "yes-no")
    fused = load_strategy("yes-no-fused", prompts="fieldnotes").model_copy(
        update={"fusion": Fusion(method="log_odds", prior_weight=weight), "name": f"weight-{weight:g}"}
    )
    (asked,) = await make_run(bench, lmm, tmp_path / "b", fused)
    rescored = await again(run, tmp_path / "c", fused)
    assert_same_rankings(rescored.out, asked.out)
    began = next(iter(read_results(rescored.out).values())).trace[0]
    assert began.data["strategy"] == fused.name and began.data["strategy_fingerprint"] == fused.fingerprint
    assert began.data["rescored"] == load_strategy("yes-no", prompts="fieldnotes").fingerprint


async def test_another_calibration(
    bench: Benchmark, pictures: FolderCollection, store: SqliteStore, tmp_path: Path
) -> None:
    lmm, predicates = CachedLMM(oracle_of(pictures), store), load_strategy("predicates", prompts="fieldnotes")
    (run,) = await make_run(bench, lmm, tmp_path / "a", predicates)
    other = UNSURE.model_copy(update={"prior_weight": 20.0, "temperature": 3.0})
    assert predicates.verify is not None and predicates.verify.stop_below is None, "so that all are asked"
    (asked,) = await make_run(bench, lmm, tmp_path / "b", predicates, calibration=other)
    rescored = await again(run, tmp_path / "c", predicates, calibration=other)
    assert_same_rankings(rescored.out, asked.out)
    assert (rescored.out / "run.trec").read_bytes() != (run.out / "run.trec").read_bytes()


async def test_a_part_of_what_was_asked(
    bench: Benchmark, pictures: FolderCollection, store: SqliteStore, tmp_path: Path
) -> None:
    """The whole query alone, and the first stage alone, from a run that asked predicates, too."""
    lmm, agent = CachedLMM(oracle_of(pictures), store), load_strategy("predicates", prompts="fieldnotes")
    assert agent.verify is not None and agent.verify.whole is not None
    texts = tuple(query for query in bench.queries if query.reference_image is None and not query.dialogue)
    simple = Benchmark("facts", "test", texts, bench.qrels, bench.images, bench.candidate_sets)
    (run,) = await make_run(simple, lmm, tmp_path / "a", agent)
    (asked, silent) = await make_run(simple, lmm, tmp_path / "b", "yes-no-fused", "clip")
    assert_same_rankings(
        (await again(run, tmp_path / "c", load_strategy("yes-no-fused", prompts="fieldnotes"))).out, asked.out
    )
    clip = await again(run, tmp_path / "c", load_strategy("clip", prompts="fieldnotes"))
    assert_same_rankings(clip.out, silent.out)
    assert clip.asked == 0


async def test_answers_are_read_again(
    bench: Benchmark, pictures: FolderCollection, store: SqliteStore, tmp_path: Path
) -> None:
    (run,) = await make_run(bench, CachedLMM(oracle_of(pictures), store), tmp_path / "a", "agent")

    def stored(key: str) -> str | None:
        entry = store.get(key)
        return entry and entry.response

    def swapped(key: str) -> str | None:
        """As if yes meant no."""
        response = LMMResponse.model_validate_json(stored(key) or "")
        words = {"Yes": "No", "No": "Yes"}
        turned = (lp.model_copy(update={"token": words.get(lp.token, lp.token)}) for lp in response.answer_logprobs)
        return response.model_copy(update={"answer_logprobs": tuple(turned)}).model_dump_json()

    agent = load_strategy("agent", prompts="fieldnotes")
    assert_same_rankings((await again(run, tmp_path / "b", agent, responses=stored)).out, run.out)
    turned = read_results((await again(run, tmp_path / "c", agent, responses=swapped)).out)
    for query_id, result in read_results(run.out).items():
        for one, other in zip(result.verdicts, turned[query_id].verdicts, strict=True):
            if one.p_yes is not None:
                assert other.p_yes == pytest.approx(1 - one.p_yes)
    with pytest.raises(CacheError, match="can't be read again"):
        await again(run, tmp_path / "d", agent, responses=lambda key: None)
    with pytest.raises(CacheError, match=r"can't be read\. Ask again"):
        await again(run, tmp_path / "e", agent, responses=lambda key: "{")


def test_a_strategy_that_asks_something_else(tmp_path: Path) -> None:
    asked = {prompt.name: prompt.fingerprint for prompt in load_strategy("yes-no", prompts="fieldnotes").prompts}
    require_same_questions(load_strategy("yes-no-fused", prompts="fieldnotes"), asked, tmp_path)
    require_same_questions(load_strategy("clip", prompts="fieldnotes"), asked, tmp_path)
    with pytest.raises(ConfigError, match=r"'match_true_false', and the run in .+ with --replay"):
        require_same_questions(load_strategy("true-false", prompts="fieldnotes"), asked, tmp_path)
