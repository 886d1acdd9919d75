"""The graph, over real pictures and scripted answers."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence

import pytest

from fieldscope.agent.budget import Budget
from fieldscope.agent.graph import Agent, build_graph
from fieldscope.agent.lmm.base import LMMRequest, LMMResponse, TokenLogprob, Tokens
from fieldscope.agent.lmm.cached import CachedLMM
from fieldscope.agent.lmm.scripted import Answer, ScriptedLMM
from fieldscope.agent.state import CompareTask, RerankState, VerifyTask
from fieldscope.agent.strategies.strategy import Strategy, list_strategies, load_strategy
from fieldscope.agent.types import RerankResult
from fieldscope.cache.store import MemoryStore
from fieldscope.core.errors import CacheMissError, ConfigError, LMMConnectionError, LMMServerError, VocabularyError
from fieldscope.core.types import Candidate, Query, Search
from tests.waiting import PATIENCE, Crowd, until

QUERY = Query(id="q1", text="two red crabs on a beach")
P = {f"{n}.png": p for n, p in enumerate([0.1, 0.2, 0.9, 0.3, 0.8, 0.4, 0.7, 0.6])}
BY_P = ["2.png", "4.png", "6.png", "7.png", "5.png", "3.png", "1.png", "0.png"]
BY_PRIOR = [f"{n}.png" for n in range(8)]

AgentFactory = Callable[..., Agent]
Candidates = tuple[Candidate, ...]


def asked_about(request: LMMRequest) -> str:
    (image,) = request.images
    return image.image_id


def looking(**overrides: Answer) -> ScriptedLMM:
    """A model that says `P` of each picture, but for `overrides` (keyword `_3` is 3.png)."""
    table: dict[str, Answer] = {**P, **{f"{key[1:]}.png": answer for key, answer in overrides.items()}}
    return ScriptedLMM(lambda request: table[asked_about(request)])


def order(result: RerankResult) -> list[str]:
    return [ranked.image_id for ranked in result.ranking]


def verdict_states(result: RerankResult) -> dict[str, str]:
    return {verdict.image_id: verdict.state for verdict in result.verdicts}


async def test_ranks_follow_p_yes(make_agent: AgentFactory, candidates: Candidates) -> None:
    result = await make_agent(looking()).rerank(QUERY, candidates)
    assert order(result) == BY_P
    assert [ranked.p_match for ranked in result.ranking] == pytest.approx(sorted(P.values(), reverse=True))
    assert (result.query_id, result.query_text, result.strategy) == ("q1", QUERY.text, "yes-no")
    assert result.flags == ()


async def test_clip_keeps_the_prior_and_needs_no_model(make_agent: AgentFactory, candidates: Candidates) -> None:
    result = await make_agent(None, "clip").rerank(QUERY, tuple(reversed(candidates)))
    assert order(result) == BY_PRIOR
    assert [ranked.score for ranked in result.ranking] == [c.prior for c in candidates]
    assert result.verdicts == ()


async def test_fusion_lets_the_prior_decide_between_close_calls(
    make_agent: AgentFactory, candidates: Candidates
) -> None:
    lmm = ScriptedLMM(
        lambda request: 0.9 if asked_about(request) == "7.png" else 0.3 - 1e-6 * int(asked_about(request)[0])
    )
    assert order(await make_agent(lmm, "yes-no-fused").rerank(QUERY, candidates)) == ["7.png", *BY_PRIOR[:7]]


async def test_a_verdict_tells_all_about_its_call(make_agent: AgentFactory, candidates: Candidates) -> None:
    response = LMMResponse(
        text=" Yes",
        answer_logprobs=(TokenLogprob(token=" Yes", logprob=-0.1), TokenLogprob(token="no", logprob=-2.5)),
        usage=Tokens(prompt_tokens=40, completion_tokens=1),
        latency=0.25,
        cached=True,
    )
    lmm = looking(_3=response)
    result = await make_agent(lmm).rerank(QUERY, candidates)
    verdict = next(v for v in result.verdicts if v.image_id == "3.png")
    assert (verdict.answer, verdict.prompt_tokens, verdict.completion_tokens) == (" Yes", 40, 1)
    assert (verdict.latency, verdict.cached, verdict.error) == (0.25, True, None)
    assert verdict.p_yes == verdict.p_expected == pytest.approx(1 / (1 + 2.718281828 ** (0.1 - 2.5)))
    request = next(r for r in lmm.requests if asked_about(r) == "3.png")
    assert verdict.request_key == request.key("scripted")
    (predicate,) = result.predicates
    assert (
        predicate.question
        == request.text
        == f'does this image match the description: "{QUERY.text}"? answer yes or no.'
    )


async def test_the_image_comes_first_and_the_question_last(make_agent: AgentFactory, candidates: Candidates) -> None:
    lmm = looking()
    agent = make_agent(lmm)
    await agent.rerank(QUERY, candidates)
    assert sorted(asked_about(request) for request in lmm.requests) == BY_PRIOR
    for request in lmm.requests:
        (message,) = request.messages
        assert [part.type for part in message.content] == ["image", "text"]
        assert request.images[0].sha256 == agent.resources.images.pixel_hash(asked_about(request))
        assert (request.max_tokens, request.top_logprobs, request.temperature) == (1, 20, 0.0)


async def test_what_fails_is_unknown_keeps_its_prior_rank_and_is_told(
    make_agent: AgentFactory, candidates: Candidates
) -> None:
    lmm = looking(
        _0=LMMServerError("the server\nfailed"),
        _3=ValueError("nobody foresaw this"),
        _5=LMMResponse(text="A crab."),
    )
    broken = Candidate("broken.png", 0.05)
    result = await make_agent(lmm).rerank(QUERY, (*candidates, broken))
    unknown = {v.image_id: v.error or "" for v in result.verdicts if v.state == "unknown"}
    assert unknown.keys() == {"0.png", "3.png", "5.png", "broken.png"}
    assert unknown["0.png"] == "the server failed"
    assert unknown["3.png"] == "unforeseen ValueError: nobody foresaw this"
    assert "no log-probability" in unknown["5.png"]
    assert "broken.png" in unknown["broken.png"]
    assert order(result) == ["0.png", "2.png", "4.png", "3.png", "6.png", "5.png", "7.png", "1.png", "broken.png"]
    assert all(r.p_match is None for r in result.ranking if r.image_id in unknown)
    assert result.flags == ("4 of 9 calls gave no answer",)


@pytest.mark.parametrize("error", [LMMConnectionError("no server"), RuntimeError("unforeseen")])
@pytest.mark.parametrize("images", [1, 8])
@pytest.mark.parametrize("strategy", ["yes-no", "yes-no-fused"])
async def test_where_nothing_is_answered_the_prior_stands(
    make_agent: AgentFactory, candidates: Candidates, error: Exception, images: int, strategy: str
) -> None:
    lmm = ScriptedLMM(lambda _: error)
    result = await make_agent(lmm, strategy).rerank(QUERY, candidates[:images])
    assert order(result) == BY_PRIOR[:images]
    assert set(verdict_states(result).values()) == {"unknown"}
    assert len(lmm.requests) == images  # and nothing is asked a second time


@pytest.mark.parametrize("images", [1, 8])
async def test_words_outside_the_vocabulary_end_the_run(
    make_agent: AgentFactory, candidates: Candidates, images: int
) -> None:
    agent = make_agent(ScriptedLMM(lambda _: VocabularyError("'whale' is not in the vocabulary")))
    with pytest.raises(VocabularyError, match="'whale'"):
        await agent.rerank(QUERY, candidates[:images])


@pytest.mark.parametrize("images", [1, 8])
async def test_a_replay_that_misses_a_call_ends_the_run(
    make_agent: AgentFactory, candidates: Candidates, images: int
) -> None:
    store = MemoryStore()
    await make_agent(CachedLMM(looking(), store)).rerank(QUERY, candidates[1:])
    agent = make_agent(CachedLMM(looking(), store, mode="replay"))
    assert order(await agent.rerank(QUERY, candidates[1:])) == BY_P[:-1]
    with pytest.raises(CacheMissError, match=r"0\.png"):
        await agent.rerank(QUERY, candidates[:images])


class CrowdedLMM(ScriptedLMM):
    """Says P once so many calls are in flight at once, and counts how many were cancelled before that."""

    def __init__(self, size: int) -> None:
        super().__init__(lambda request: P[asked_about(request)])
        self.crowd = Crowd(size)
        self.cancelled = 0

    async def generate(self, request: LMMRequest) -> LMMResponse:
        try:
            async with self.crowd.join():
                return await super().generate(request)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


async def test_an_error_raised_on_purpose_ends_the_run_at_once(
    make_agent: AgentFactory, candidates: Candidates
) -> None:
    class OneRefuses(CrowdedLMM):
        async def generate(self, request: LMMRequest) -> LMMResponse:
            if asked_about(request) == "3.png":
                raise VocabularyError("'whale' is not in the vocabulary")
            return await super().generate(request)

    lmm = OneRefuses(len(candidates) + 1)  # the others never get an answer
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(VocabularyError, match="'whale'"):
            await make_agent(lmm).rerank(QUERY, candidates)
    assert lmm.crowd.inside == 0


@pytest.mark.parametrize("bound", [1, 3])
async def test_no_more_calls_are_in_flight_than_allowed(
    make_agent: AgentFactory, candidates: Candidates, bound: int
) -> None:
    lmm = CrowdedLMM(bound)
    result = await make_agent(lmm, max_concurrency=bound).rerank(QUERY, candidates)
    assert lmm.crowd.most == bound
    assert order(result) == BY_P


async def test_queries_run_at_once_without_mixing(make_agent: AgentFactory, candidates: Candidates) -> None:
    agent = make_agent(CrowdedLMM(8))  # more than one query asks alone
    queries = [Query(id=f"q{n}", text=f"query {n}") for n in range(5)]
    results = await asyncio.gather(*(agent.rerank(query, candidates[: n + 3]) for n, query in enumerate(queries)))
    for n, (query, result) in enumerate(zip(queries, results, strict=True)):
        assert (result.query_id, result.predicates[0].words) == (query.id, query.text)
        assert len(result.ranking) == len(result.verdicts) == n + 3


async def test_cancelling_a_query_cancels_its_calls(make_agent: AgentFactory, candidates: Candidates) -> None:
    lmm = CrowdedLMM(len(candidates) + 1)
    running = asyncio.create_task(make_agent(lmm).rerank(QUERY, candidates))
    await until(lambda: lmm.crowd.inside == len(candidates))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert lmm.cancelled == len(candidates)


class RaisingLMM(ScriptedLMM):
    """Raises what no `except Exception` catches."""

    def __init__(self, error: BaseException) -> None:
        super().__init__({})
        self.error = error

    async def generate(self, request: LMMRequest) -> LMMResponse:
        raise self.error


def test_ctrl_c_is_not_swallowed(make_agent: AgentFactory, candidates: Candidates) -> None:
    agent = make_agent(RaisingLMM(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(agent.rerank(QUERY, candidates))


async def test_a_cancellation_from_within_a_call_is_no_unknown_verdict(
    make_agent: AgentFactory, candidates: Candidates
) -> None:
    with pytest.raises(Exception, match="CancelledError"):
        await make_agent(RaisingLMM(asyncio.CancelledError())).rerank(QUERY, candidates)


class FoundImages:
    """A first stage that finds the pictures, and remembers what it was asked."""

    def __init__(self, candidates: Candidates) -> None:
        self.candidates = candidates
        self.asked: list[tuple[Query, int]] = []

    def search(self, search: Search) -> Sequence[Candidate]:
        self.asked.append((search.query, search.k))
        return self.candidates[: search.k]


async def test_without_candidates_the_retriever_finds_them(make_agent: AgentFactory, candidates: Candidates) -> None:
    retriever = FoundImages(candidates)
    agent = make_agent(looking(), retriever=retriever)
    assert order(await agent.rerank(QUERY)) == BY_P
    assert sorted(order(await agent.rerank(QUERY, top_k=3))) == BY_PRIOR[:3]
    assert retriever.asked == [(QUERY, 100), (QUERY, 3)]


async def test_given_candidates_are_taken_as_they_are(make_agent: AgentFactory, candidates: Candidates) -> None:
    retriever = FoundImages(candidates)
    agent = make_agent(looking(), retriever=retriever)
    assert order(await agent.rerank(QUERY, candidates[:2])) == ["1.png", "0.png"]
    assert order(await agent.rerank(QUERY, tuple(reversed(candidates)), top_k=2)) == ["1.png", "0.png"]
    assert (await agent.rerank(QUERY, ())).ranking == ()
    assert retriever.asked == []


async def test_neither_candidates_nor_retriever_is_an_error(make_agent: AgentFactory) -> None:
    with pytest.raises(ConfigError, match="'q1' has no candidates"):
        await make_agent(looking()).rerank(QUERY)


def test_a_strategy_that_asks_needs_a_model(make_agent: AgentFactory) -> None:
    with pytest.raises(ConfigError, match="'yes-no' asks a verifier, but no model has this role"):
        make_agent(None, "yes-no")


async def test_outside_the_window_nothing_is_asked_and_nothing_moves(
    make_agent: AgentFactory, candidates: Candidates
) -> None:
    lmm = looking()
    base = make_agent(lmm)
    windowed = Strategy.model_validate(
        {"name": "w", "verify": {"prompt": "match_yes_no", "top_k": 3}, "fusion": {"method": "p_yes"}}
    )
    result = await Agent(base.resources, windowed).rerank(QUERY, candidates)
    assert order(result) == ["2.png", "1.png", "0.png", *BY_PRIOR[3:]]
    assert len(lmm.requests) == 3
    assert list(verdict_states(result).values()) == ["answered"] * 3 + ["not_asked"] * 5
    assert result.flags == ()


async def test_scores_fall_strictly_even_where_the_model_always_says_the_same(
    make_agent: AgentFactory, candidates: Candidates
) -> None:
    level = tuple(Candidate(c.image_id, 0.5) for c in candidates)
    for strategy in ("yes-no", "yes-no-fused"):
        result = await make_agent(ScriptedLMM(lambda _: 0.5), strategy).rerank(QUERY, level)
        assert all(above.score > below.score for above, below in itertools.pairwise(result.ranking))
        assert order(result) == BY_PRIOR


async def test_the_trace_tells_the_stages_in_order(make_agent: AgentFactory, candidates: Candidates) -> None:
    agent = make_agent(looking(_2=LMMServerError("no")), flags=("foreign images",))
    result = await agent.rerank(QUERY, candidates)
    kinds = [event.kind for event in result.trace]
    assert kinds == ["started", "retrieved", "planned", *["verified"] * 8, "ranked"]
    started, retrieved, planned = (event.data for event in result.trace[:3])
    assert started == {
        "strategy": "yes-no",
        "strategy_fingerprint": agent.strategy.fingerprint,
        "prompts": {"match_yes_no": agent.strategy.prompts[0].fingerprint},
        "model": "scripted",
        "calibrated": False,
    }
    assert retrieved == {"candidates": 8, "given": True}
    assert planned == {"wave": 1, "questions": 8, "images": 8, "left_alone": 0}
    verified = [event.data for event in result.trace if event.kind == "verified"]
    assert [data["image_id"] for data in verified] == BY_PRIOR
    assert [data["states"] for data in verified].count({"unknown": 1}) == 1
    assert result.trace[-1].data == {"answered": 7, "unknown": 1, "not_asked": 0, "ended": None, "nothing": False}
    assert all(event.at >= 0 for event in result.trace)
    assert result.trace[-1].at == max(event.at for event in result.trace)
    assert result.flags == ("foreign images", "1 of 8 calls gave no answer")


def test_the_graph_draws_itself_for_the_documentation(make_agent: AgentFactory) -> None:
    drawing = make_agent(looking()).graph.get_graph().draw_mermaid()
    for edge in (
        "__start__ --> retrieve",
        "retrieve --> plan",
        "plan -.-> verify",
        "verify --> plan",
        "plan -.-> assess",
        "assess -.-> rank",
        "rank --> explain",
        "explain --> __end__",
    ):
        assert edge in drawing


@pytest.mark.parametrize("calls", [0, 3, 8])
async def test_a_budget_asks_the_best_priors_and_says_where_it_ended(
    make_agent: AgentFactory, candidates: Candidates, calls: int
) -> None:
    result = await make_agent(looking()).rerank(QUERY, candidates, budget=Budget(max_calls=calls))
    asked = [verdict.image_id for verdict in result.verdicts if verdict.state == "answered"]
    assert asked == BY_PRIOR[:calls]
    assert result.ended == ("verify" if calls < 8 else None)
    assert len(result.verdicts) == 8 and sorted(order(result)) == BY_PRIOR


@pytest.mark.parametrize("strategy", list_strategies())
def test_every_shipped_strategy_has_a_node_for_each_of_its_stages(strategy: str) -> None:
    loaded = load_strategy(strategy)
    graph = build_graph(loaded).get_graph()
    nodes = set(graph.nodes)
    assert {"retrieve", "rank", "explain"} < nodes
    for stage in ("synthesize", "score", "decompose", "verify", "compare"):
        assert (stage in nodes) == (getattr(loaded, stage) is not None)
    drawing = graph.draw_mermaid()
    assert ("assess -.-> synthesize" in drawing) == (loaded.refine is not None)


def test_pixels_and_clients_stay_out_of_the_state() -> None:
    held = {*RerankState.model_fields, *VerifyTask.model_fields, *CompareTask.model_fields}
    assert held == {
        "query", "given", "fixed", "top_k", "started", "synthesis", "caption", "candidates", "predicates", "wave",
        "round", "fault", "widened", "misread", "verdicts", "comparisons", "reasons", "calls", "trace", "result",
        "image_id", "joint", "description", "orders", "ended", "scores", "first_stage", "looks", "look", "kind",
        "reference", "unread",
    }  # fmt: skip
