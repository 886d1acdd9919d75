"""What a run will ask, computed by hand and by running it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.agent.budget import Budget
from fieldscope.agent.calibration import UNCALIBRATED, Calibration
from fieldscope.agent.graph import Agent
from fieldscope.agent.lmm.base import LMMRequest, LMMResponse, TokenLogprob, Tokens
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.strategy import Strategy, list_strategies, load_strategy
from fieldscope.agent.strategies.verification import Joint
from fieldscope.agent.types import Call, Comparison, Predicate, RankedCandidate, Reason, RerankResult, Verdict
from fieldscope.core.types import Query
from fieldscope.eval.harness import evaluate
from fieldscope.eval.tuning.estimate import (
    estimate,
    largest_requests,
    predicates_per_word,
    profile,
    rule_of_thumb,
)
from fieldscope.eval.types import Benchmark
from fieldscope.prompts.examples import Example, Picture

TEXT = Query(id="t", text="two red crabs on a beach")  # six words
COMPOSED = Query(id="c", text="make it snow", reference_image="r")
MEASURED = Calibration(
    predicates_per_word=0.5,
    tokens={
        f"{stage}:{side}": number
        for stage, numbers in {
            "caption": (70, 9), "synthesize": (40, 90), "refine": (60, 90), "decompose": (50, 80), "verify": (80, 1),
            "compare": (150, 1), "explain": (82, 12), "joint": (99, 30),
        }.items()
        for side, number in zip(("prompt", "completion"), numbers, strict=True)
    },
)  # fmt: skip


def calls(told: Any) -> dict[str, float]:
    return {stage: spending.calls for stage, spending in told.stages.items()}


def test_the_shipped_strategies_by_hand() -> None:
    def of(name: str, query: Query = TEXT, pool: int = 100) -> tuple[dict[str, float], bool]:
        told = estimate([query], [pool], load_strategy(name, prompts="fieldnotes"), MEASURED)
        return calls(told), told.bound

    assert of("clip") == ({}, False)
    assert of("yes-no") == of("yes-no-fused") == ({"verify": 100}, False)
    assert of("true-false") == ({"verify": 10}, False)
    assert of("true-false", pool=4) == ({"verify": 4}, False)
    assert of("predicates") == ({"synthesize": 1, "decompose": 1, "verify": 400}, False)
    composed = {"caption": 1, "synthesize": 1, "decompose": 1, "check": 1.5, "verify": 250}
    assert of("predicates", COMPOSED) == (composed, False)
    assert of("imagescope") == ({"synthesize": 2, "decompose": 2, "verify": 20 * 12, "compare": 3}, True)
    assert of("pairwise") == ({"compare": 60}, True)
    assert of("pairwise", pool=3) == ({"compare": 6}, True)
    assert of("pairwise", pool=1) == ({"compare": 0}, True)
    assert of("setwise") == ({"compare": 40}, False)
    assert of("setwise", pool=5) == ({"compare": 10}, False)
    useless = MEASURED.model_copy(update={"comparison_weight": 0.0})
    assert calls(estimate([TEXT], [100], load_strategy("setwise", prompts="fieldnotes"), useless)) == {"compare": 0}
    everything = {"synthesize": 2, "refine": 2, "decompose": 4, "verify": 2 * 100 * 13, "compare": 16, "explain": 3}
    everything["inspect"] = 2 * 100 * 4
    assert of("agent") == (everything, True)


def test_tokens_are_the_measured_ones_and_else_a_rule_of_thumb() -> None:
    measured = estimate([TEXT, TEXT], [100, 10], load_strategy("predicates", prompts="fieldnotes"), MEASURED)
    assert measured.prompt_tokens == 2 * (40 + 50) + 80 * 4 * 110
    assert measured.completion_tokens == 2 * (90 + 80) + 4 * 110
    assert measured.calls == 4 + 440
    strategy = load_strategy("yes-no", prompts="fieldnotes")
    assert strategy.verify is not None
    prompt = strategy.verify.prompt
    thumb = estimate([TEXT], [1], strategy)
    assert thumb.prompt_tokens == round(600 + len(prompt.render(query=TEXT.text)) / 4)
    assert thumb.completion_tokens == 1
    counted = estimate([TEXT], [7], strategy, measure=lambda system, text, images: 64 * images + len(text.split()))
    assert counted.prompt_tokens == 7 * (64 + len(prompt.render(query=TEXT.text).split()))


def test_a_composed_comparison_shows_the_reference_too() -> None:
    def images_of(query: Query, name: str) -> float:
        told = estimate(
            [query], [50], load_strategy(name, prompts="fieldnotes"), measure=lambda system, text, images: images
        )
        return told.stages["compare"].prompt_tokens / told.stages["compare"].calls

    assert [images_of(query, name) for name in ("pairwise", "setwise") for query in (TEXT, COMPOSED)] == [2, 3, 4, 5]


def test_the_pictures_and_words_of_a_prompts_examples_are_read_with_every_call() -> None:
    pictures = tuple(Picture(path=f"{name}.jpg", sha256=name) for name in ("heron", "fish"))
    examples = (
        Example(images=pictures, text="Does this show a heron?", answer="No"),
        Example(images=pictures[:1], text="Does this show a fish?", answer="Yes"),
    )
    plain = load_strategy("yes-no", prompts="fieldnotes")
    assert plain.verify is not None
    prompt = plain.verify.prompt.model_copy(update={"examples": examples})
    shown = plain.model_copy(update={"verify": plain.verify.model_copy(update={"prompt": prompt})})

    def measure(system: str, text: str, images: int) -> float:
        return 1_000 * images + len(text)

    def read(strategy: Strategy) -> int:
        return estimate([TEXT], [10], strategy, measure=measure).prompt_tokens

    said = "".join(example.text + example.answer for example in examples)
    assert read(shown) - read(plain) == 10 * (3_000 + len(said))
    without, with_examples = largest_requests([plain, shown], [TEXT])
    assert with_examples.images - without.images == 3
    assert with_examples.words > without.words


def test_full_retrieval_looks_at_as_many_as_it_retrieves() -> None:
    assert calls(estimate([TEXT], [5000], load_strategy("yes-no", prompts="fieldnotes"), given=False)) == {
        "verify": 100
    }
    assert calls(estimate([TEXT], [60], load_strategy("yes-no", prompts="fieldnotes"), given=False)) == {"verify": 60}
    wider = calls(estimate([TEXT], [5000], load_strategy("agent", prompts="fieldnotes"), given=False))
    assert wider["verify"] == (100 + 150) * 13


def test_scored_pairs_are_counted_and_are_no_calls() -> None:
    two, pools = [TEXT, TEXT], [100, 60]
    alone = estimate(two, pools, load_strategy("cross-encoder"))
    assert (alone.pairs, alone.calls, calls(alone)) == (160, 0, {})
    cascade, agent = (load_strategy(name, prompts="fieldnotes") for name in ("cascade", "agent"))
    of_agent = calls(estimate(two, pools, agent))
    assert of_agent.pop("inspect") == 2 * 160 * 4 and calls(estimate(two, pools, cascade)) == of_agent
    assert estimate([TEXT], [5000], cascade, given=False).pairs == 150, "a search may be widened once"
    own = {"score": {"predicates": True}, "fusion.scorer_weight": 1.0}
    scored = estimate([TEXT], [10], load_strategy("predicates", own, prompts="fieldnotes"), MEASURED)
    plain = estimate([TEXT], [10], load_strategy("predicates", prompts="fieldnotes"), MEASURED)
    assert calls(scored)["verify"] == 10 and scored.pairs == calls(plain)["verify"], "the whole query is the LMM's"


@pytest.mark.parametrize(("words", "predicates"), [(1, 1), (2, 1), (8, 4), (200, 12)])
def test_predicates_are_expected_from_the_words(words: int, predicates: int) -> None:
    query = Query(id="q", text=" ".join(["crab"] * words))
    assert calls(estimate([query], [10], load_strategy("predicates", prompts="fieldnotes"), MEASURED))[
        "verify"
    ] == 10 * (1 + predicates)


def test_budgets_are_kept() -> None:
    queries, pools, strategy = [TEXT] * 3, [100] * 3, load_strategy("predicates", prompts="fieldnotes")

    def within(**budgets: Budget) -> Any:
        return estimate(queries, pools, strategy, MEASURED, **budgets)  # type: ignore[arg-type]

    assert calls(within(budget=Budget(max_calls=50))) == {"synthesize": 3, "decompose": 3, "verify": 3 * 48}
    assert calls(within(budget=Budget(max_calls=1))) == {"synthesize": 3, "decompose": 0, "verify": 0}
    assert within(run_budget=Budget(max_calls=50)).calls == 50
    tokens = within(budget=Budget(max_tokens=1000))
    assert tokens.prompt_tokens + tokens.completion_tokens == pytest.approx(3000, abs=2)
    assert within(budget=Budget(max_calls=0)).calls == 0
    dear = estimate([TEXT], [100], load_strategy("agent", prompts="fieldnotes"), MEASURED, budget=Budget(max_calls=20))
    assert dear.calls == 20  # of a bound the dearest calls, whichever come first
    assert dear.stages["compare"].calls > 0 == dear.stages["verify"].calls


NUMBER = st.integers(0, 300)


@given(st.sampled_from(list_strategies()), NUMBER, NUMBER, st.integers(0, 5000), st.booleans())
def test_a_budget_never_adds(name: str, pool: int, most_calls: int, most_tokens: int, found: bool) -> None:
    strategy = load_strategy(name, prompts="fieldnotes")
    free = estimate([TEXT, COMPOSED], [pool, pool], strategy, MEASURED, given=not found)
    bounded = estimate(
        [TEXT, COMPOSED], [pool, pool], strategy, MEASURED, given=not found, budget=Budget(most_calls, most_tokens)
    )
    assert bounded.calls <= min(free.calls, 2 * most_calls)
    assert bounded.prompt_tokens + bounded.completion_tokens <= min(
        free.prompt_tokens + free.completion_tokens, 2 * most_tokens + 2
    )
    assert bounded.stages.keys() == free.stages.keys()


def result(*parts: Any, text: str = "two red crabs", predicates: int = 0) -> RerankResult:
    def of(kind: type) -> tuple[Any, ...]:
        return tuple(part for part in parts if isinstance(part, kind))

    return RerankResult(
        query_id="q",
        query_text=text,
        strategy="agent",
        ranking=(RankedCandidate(image_id="a", rank=1, score=0, prior=0, prior_rank=1),),
        predicates=tuple(Predicate(id=f"p{n}", question="?", kind="colour") for n in range(predicates)),
        verdicts=of(Verdict),
        comparisons=of(Comparison),
        reasons=of(Reason),
        calls=of(Call),
    )


def test_what_finished_results_say_of_a_call() -> None:
    def spent(prompt: int, completion: int = 1) -> dict[str, Any]:
        return {"state": "answered", "prompt_tokens": prompt, "completion_tokens": completion}

    judged = {"predicate": "p0", "image_id": "a"}
    one = result(
        Call(stage="synthesize", **spent(40, 90)),
        Call(stage="decompose", **spent(30, 60) | {"state": "unknown"}),  # its text could not be read, and was paid for
        Verdict(**judged, **spent(80)),
        Verdict(**judged, **spent(90)),
        Verdict(**judged, state="unknown"),  # no response
        Verdict(**judged, state="not_asked"),
        Verdict(**judged, joint=True, state="answered"),
        Comparison(shown=("a", "b"), **spent(150)),
        Reason(image_id="a", **spent(82, 12)),
    )
    two = result(Verdict(**judged, **spent(100, 4)))
    assert profile([one, two]) == {
        "synthesize:prompt": 40, "synthesize:completion": 90, "decompose:prompt": 30, "decompose:completion": 60,
        "verify:prompt": 90, "verify:completion": 2, "compare:prompt": 150, "compare:completion": 1,
        "explain:prompt": 82, "explain:completion": 12,
    }  # fmt: skip
    assert profile([]) == {}


def test_predicates_for_a_word() -> None:
    whole = result(text="never taken apart").model_copy(
        update={"predicates": (Predicate(id="query", question="?"),)},
    )
    decomposed = [result(text="one two three four", predicates=3), result(text="one two", predicates=1)]
    assert predicates_per_word([*decomposed, whole]) == pytest.approx(4 / 6)
    assert predicates_per_word([whole]) == UNCALIBRATED.predicates_per_word


def test_which_strategies_are_only_bounded() -> None:
    bounded = {name for name in list_strategies() if load_strategy(name, prompts="fieldnotes").open_ended}
    assert bounded == {"agent", "cascade", "imagescope", "imagescope-published", "joint", "pairwise"}
    joint = {"prompt": "ask_joint", "sample": 0.0}
    told = load_strategy("predicates", prompts="fieldnotes").model_dump(mode="json", exclude_none=True)
    told = {key: value for key, value in told.items() if key in ("fusion", "name")}
    made = Strategy.model_validate(
        told
        | {
            "synthesize": {"prompt": "synthesize", "again": "synthesize_again", "caption": "caption"},
            "decompose": {"prompt": "decompose"},
            "verify": {"prompt": "ask_predicate", "joint": joint},
        }
    )
    assert made.open_ended
    assert calls(estimate([TEXT], [5], made))["joint"] == 10
    where_it_pays = made.model_copy(
        update={"verify": made.verify and made.verify.model_copy(update={"joint": Joint(**joint, use="calibrated")})}
    )
    assert "joint" not in calls(estimate([TEXT], [5], where_it_pays))
    assert calls(estimate([TEXT], [5], where_it_pays, Calibration(joint_loss=0.0)))["joint"] == 10


class Thinking(ScriptedLMM):
    """Answers whatever is asked, in the shape that is asked for, and counts tokens as `rule_of_thumb` does."""

    def __init__(self) -> None:
        super().__init__(self._reply)

    def _reply(self, request: LMMRequest) -> LMMResponse:
        text = "a" if request.json_schema is None else self._json(request.text)
        letters = "answer a or b" in request.text or "a, b, c or d" in request.text
        first, second = ("A", "B") if letters else ("Yes", "No")
        spoken = tuple(TokenLogprob(token=t, logprob=math.log(p)) for t, p in ((first, 0.7), (second, 0.3)))
        usage = Tokens(
            prompt_tokens=int(rule_of_thumb("", request.text, len(request.images))),
            completion_tokens=1 if request.top_logprobs else max(1, len(text) // 4),
        )
        return LMMResponse(text=text, answer_logprobs=spoken if request.top_logprobs else (), usage=usage)

    @staticmethod
    def _json(asked: str) -> str:
        if asked.startswith("You write questions"):
            count = asked.count(". addition:")
            questions = [f"is fact {n} there, which is a longer question?" for n in range(count)]
            return json.dumps(
                {"predicates": [{"question": q, "expected": "yes", "words": "", "type": "colour"} for q in questions]}
            )
        words = asked.partition('query: "')[2].partition('"')[0].split()
        facts = [{"text": word, "words": word, "type": "addition"} for word in words[::2]]
        said = " ".join(words)
        return json.dumps(
            {"thought": said * 3, "core": said, "detailed": said, "comprehensive": said, "instructions": facts}
        )


async def used(bench: Benchmark, name: str, out: Path, calibration: Sequence[RerankResult] = ()) -> tuple[Any, Any]:
    """What was estimated, and what a run then used."""
    agent = Agent(Resources(images=bench.images, lmm=Thinking()), load_strategy(name, prompts="fieldnotes"))
    pools = [len(bench.candidates(query.id) or ()) for query in bench.queries]
    ratio = predicates_per_word(calibration) if calibration else 13 / 22  # a predicate for every other word
    fitted = Calibration(tokens=profile(calibration), predicates_per_word=ratio)
    told = estimate(bench.queries, pools, agent.strategy, fitted)
    (summary,) = await evaluate(bench, [agent], out)
    return told, summary.cost


BOUNDED = ("agent", "imagescope", "imagescope-published", "joint", "pairwise")


@pytest.mark.parametrize("name", sorted(set(list_strategies()) - {"cascade", "cross-encoder", *BOUNDED}))
async def test_without_early_stop_the_estimate_is_close(bench: Benchmark, tmp_path: Path, name: str) -> None:
    told, cost = await used(bench, name, tmp_path)
    assert told.calls == pytest.approx(cost.calls, rel=0.15)
    assert told.prompt_tokens == pytest.approx(cost.prompt_tokens, rel=0.15)


@pytest.mark.parametrize("name", BOUNDED)
async def test_with_early_stop_the_estimate_is_a_bound(bench: Benchmark, tmp_path: Path, name: str) -> None:
    told, cost = await used(bench, name, tmp_path)
    assert 0 < cost.calls <= told.calls
    assert cost.prompt_tokens <= told.prompt_tokens
    assert cost.completion_tokens <= told.completion_tokens


async def test_a_measured_strategy_is_known_to_the_token(bench: Benchmark, tmp_path: Path) -> None:
    await used(bench, "predicates", tmp_path)
    lines = (tmp_path / "predicates" / "results.jsonl").read_text().splitlines()
    results = [RerankResult.model_validate_json(line) for line in lines]
    told, cost = await used(bench, "predicates", tmp_path / "again", results)
    assert told.calls == pytest.approx(cost.calls, rel=0.02)
    assert told.prompt_tokens == pytest.approx(cost.prompt_tokens, rel=0.02)
    assert told.completion_tokens == pytest.approx(cost.completion_tokens, rel=0.02)
