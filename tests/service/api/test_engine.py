from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message

from fieldscope.agent.lmm.base import LMMRequest
from fieldscope.agent.lmm.scripted import Answer, ScriptedLMM
from fieldscope.agent.types import RankedCandidate
from fieldscope.core.errors import LMMServerError
from fieldscope.service.server.api import deadline, engine
from fieldscope.service.server.api.relevance import falling, merged, relevances
from tests.waiting import until

CRABS = "two red crabs on a beach in the rain"
ALL = range(1, 13)


class Run(Protocol):
    def __call__(self, *args: object) -> Result: ...


class World(Protocol):
    pictures: Path
    asked: list[LMMRequest]


def ids(*names: object) -> list[str]:
    return [f"fieldscope://fieldnotes/{name}" for name in names]


def order(reply: Any) -> list[int]:
    assert reply.status_code == 200, reply.text
    return [result["index"] for result in reply.json()["results"]]


class SlowLMM:
    """Answers when it is let, yes to all."""

    identity = "slow"

    def __init__(self) -> None:
        self.let_go = asyncio.Event()
        self.asked = 0
        self._answers = ScriptedLMM(lambda request: 0.9)

    async def generate(self, request: LMMRequest) -> Any:
        self.asked += 1
        await self.let_go.wait()
        return await self._answers.generate(request)

    async def aclose(self) -> None: ...


@pytest.mark.parametrize("strategy", ["clip", "yes-no-fused", "agent"])
def test_the_order_is_that_of_the_command_line(world: World, run: Run, opened: Any, strategy: str) -> None:
    told = run("rerank", "--query", CRABS, "--images", world.pictures, "--strategy", strategy, "--json")
    assert told.exit_code == 0, told.output
    payload = json.loads(told.stdout)
    expected = [int(Path(ranked["image"]).stem) for ranked in payload["ranking"]]
    reversed_ = list(reversed(ALL))

    async def ask() -> None:
        async with opened() as service:
            reply = await service.rerank(query=CRABS, documents=ids(*reversed_), strategy=strategy)
            assert [reversed_[index] for index in order(reply)] == expected
            scores = [result["relevance_score"] for result in reply.json()["results"]]
            assert all(before > after for before, after in itertools.pairwise(scores))
            assert scores[-1] > 0 and scores[0] < 1
            assert reply.json()["strategy"] == strategy

    asyncio.run(ask())


async def test_uploaded_pictures_rank_as_the_collections_own(world: World, opened: Any) -> None:
    import base64

    async with opened() as service:
        by_id = order(await service.rerank(query=CRABS, documents=ids(*ALL), strategy="yes-no-fused"))
        uploads = [
            "data:image/png;base64," + base64.b64encode((world.pictures / f"{n:06d}.png").read_bytes()).decode()
            for n in ALL
        ]
        reply = await service.rerank(query=CRABS, documents=uploads, strategy="yes-no-fused")
        assert order(reply) == by_id
        assert "warnings" not in reply.json()["meta"]  # the bundled models know these pictures


async def test_a_foreign_picture_is_said_to_be_one(world: World, opened: Any, photos: Path) -> None:
    import base64

    picture = "data:image/png;base64," + base64.b64encode((photos / "red.png").read_bytes()).decode()
    async with opened() as service:
        reply = await service.rerank(query=CRABS, documents=[picture, *ids(1)], strategy="yes-no-fused")
        assert "from outside of it" in reply.json()["meta"]["warnings"][0]


async def test_the_same_picture_twice_is_two_documents_side_by_side(world: World, opened: Any) -> None:
    async with opened() as service:
        reply = await service.rerank(query=CRABS, documents=ids(8, 1, 8, 1), strategy="yes-no-fused")
        assert order(reply) == [1, 3, 0, 2]


async def test_words_that_the_bundled_models_do_not_know_are_named(world: World, opened: Any) -> None:
    async with opened() as service:
        reply = await service.rerank(query="a xylophone", documents=ids(1))
        assert reply.status_code == 422
        assert reply.json()["error"]["code"] == "unknown_words"
        assert "'xylophone'" in reply.json()["message"]
        assert "/" not in reply.json()["message"].replace("--", "")  # no path of this machine
        assert not world.asked


@pytest.mark.parametrize("name", ["agnet", "/etc/passwd", "../agent.yaml", "agent.yaml", "x" * 10_000])
async def test_a_strategy_goes_by_its_name_alone(world: World, opened: Any, name: str) -> None:
    async with opened() as service:
        reply = await service.rerank(query=CRABS, documents=ids(1), strategy=name)
        assert reply.status_code == 400
        assert reply.json()["error"]["code"] == "unknown_strategy"
        assert len(reply.text) < 1200


async def test_a_strategy_of_ones_own_is_offered(world: World, opened: Any, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    text = "name: mine\nverify: {prompt: match_yes_no, top_k: 2}\nfusion: {method: p_yes}\n"
    (mine / "any.yaml").write_text(text, encoding="utf-8")
    async with opened(strategies=(mine,), strategy="mine") as service:
        reply = await service.rerank(query=CRABS, documents=ids(*ALL))
        assert reply.json()["strategy"] == "mine"
        assert len(world.asked) == 2


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "..%2f..%2fetc%2fpasswd", "/etc/passwd", "000001.png", "1/../1", "", "1\x00", "' OR 1=1 --"],
)
async def test_nothing_outside_of_a_collection_is_reached(world: World, opened: Any, name: str) -> None:
    async with opened() as service:
        reply = await service.rerank(query=CRABS, documents=[f"fieldscope://fieldnotes/{name}"])
        assert reply.status_code == 404
        assert reply.json()["error"]["code"] == "unknown_image"
        assert not world.asked


async def test_reasons_are_given_where_they_are_asked_for(world: World, opened: Any) -> None:
    lmm = ScriptedLMM(lambda request: "No, there is none." if "give the reason" in request.text else 0.2)
    async with opened(lmm) as service:
        plain = await service.rerank(query=CRABS, documents=ids(*ALL), strategy="agent")
        explained = await service.rerank(query=CRABS, documents=ids(*ALL), strategy="agent", explain=2)
        assert order(plain) == order(explained)
        reasons = [result.get("reason") for result in explained.json()["results"]]
        assert reasons[:2] == ["No, there is none."] * 2
        assert set(reasons[2:]) == {None}
        assert sum("give the reason" in request.text for request in lmm.requests) == 2


async def test_texts_and_pictures_are_ranked_together(world: World, opened: Any) -> None:
    def answer(request: LMMRequest) -> Answer:
        return 0.5 if request.images else (0.9 if "yes indeed" in request.text else 0.1)

    async with opened(ScriptedLMM(answer)) as service:
        documents = ["nothing", *ids(1), "yes indeed"]
        reply = await service.rerank(query=CRABS, documents=documents, strategy="yes-no")
        assert order(reply) == [2, 1, 0]
        result = (await service.client.get(f"/v1/traces/{reply.headers['x-fieldscope-trace']}")).json()
        assert [call["stage"] for call in result["calls"]] == ["document", "document"]


async def test_texts_without_an_answer_are_ranked_by_clip_and_said_to_be(world: World, opened: Any) -> None:
    texts = ["a white owl at night", "two red crabs", CRABS]
    async with opened() as service:  # its model never answers about a text
        for strategy, flags in (("agent", 1), ("clip", 0)):
            reply = await service.rerank(query=CRABS, documents=texts, strategy=strategy)
            assert order(reply) == [2, 1, 0]
            told = reply.json()["meta"].get("warnings", [])
            assert [("ranked by CLIP" in each) for each in told] == [True] * flags
        mixed = await service.rerank(query=CRABS, documents=["a xylophone", *texts[:2]], strategy="yes-no-fused")
        assert order(mixed) == [2, 1, 0]
        assert "neither the model nor CLIP could judge the text: document 0" in " ".join(
            mixed.json()["meta"]["warnings"]
        )
        picture = await service.rerank(query={"image": ids(5)[0]}, documents=texts, strategy="yes-no-fused")
        assert len(order(picture)) == 3


async def test_texts_of_which_nothing_can_be_known_are_an_error(world: World, opened: Any) -> None:
    async with opened() as service:
        for strategy in ("agent", "clip"):
            reply = await service.rerank(query=CRABS, documents=["a xylophone", "a zither"], strategy=strategy)
            assert (reply.status_code, reply.json()["error"]["code"]) == (422, "unknown_words")
            assert "'xylophone', 'zither'" in reply.json()["message"]
        with_picture = await service.rerank(query=CRABS, documents=["a xylophone", *ids(1)], strategy="yes-no-fused")
        assert len(order(with_picture)) == 2
    async with opened(encoder="none") as service:
        reply = await service.rerank(query=CRABS, documents=["two red crabs", "an owl"])
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "lmm_failed")
        assert "retry-after" not in reply.headers  # it would say nothing then, either
    async with opened(ScriptedLMM(lambda request: LMMServerError("it is on fire"))) as service:
        reply = await service.rerank(query=CRABS, documents=["two red crabs", "an owl"])
        assert (reply.status_code, int(reply.headers["retry-after"]) > 0) == (503, True)


async def test_a_picture_alone_is_a_query(world: World, opened: Any) -> None:
    lmm = ScriptedLMM(lambda request: "two red crabs" if "describe" in request.text else 0.5)
    async with opened(lmm) as service:
        reply = await service.rerank(query={"image": ids(1)[0]}, documents=ids(8, 2, 11), strategy="yes-no-fused")
        assert order(reply)[0] == 1  # the nearest to it; the LMM has no opinion
        assert any('"two red crabs"' in request.text for request in lmm.requests)
        nearest = await service.rerank(query={"image": ids(5)[0]}, documents=ids(8, 6, 11), strategy="clip")
        assert order(nearest)[0] == 1


async def test_a_search_finds_and_reranks(world: World, opened: Any) -> None:
    async with opened() as service:
        reply = await service.client.post("/v1/search", json={"query": CRABS, "top_n": 2, "strategy": "yes-no-fused"})
        assert reply.status_code == 200, reply.text
        assert {found["image"] for found in reply.json()["results"]} == {"1", "2"}


async def test_time_that_runs_out_leaves_the_ranking_that_is_known_and_says_so(
    world: World, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service's clock stands still until the LMM is asked, so that a slow machine loses no time before that."""
    now = 0.0

    class Late(SlowLMM):
        async def generate(self, request: LMMRequest) -> Any:
            nonlocal now
            now = 0.5
            return await super().generate(request)

    for module in (engine, deadline):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    async with opened(Late(), grace=0.1, limits={"max_seconds": 0.5}) as service:
        reply = await service.rerank(query=CRABS, documents=ids(*ALL), strategy="yes-no-fused")
        by_prior = await service.rerank(query=CRABS, documents=ids(*ALL), strategy="clip")
        assert order(reply) == order(by_prior)
        assert "time or budget ran out" in " ".join(reply.json()["meta"]["warnings"])


async def test_time_that_runs_out_with_nothing_known_is_an_error(world: World, opened: Any) -> None:
    async with opened(SlowLMM(), encoder="none", grace=0.1, limits={"max_seconds": 0.3}) as service:
        reply = await service.rerank(query=CRABS, documents=ids(1, 2), strategy="yes-no")
        assert reply.status_code == 504
        assert reply.json()["error"]["code"] == "deadline"


async def test_an_lmm_that_never_answers_is_not_passed_off_as_a_ranking(world: World, opened: Any) -> None:
    async with opened(ScriptedLMM(lambda request: LMMServerError("it is on fire"))) as service:
        reply = await service.rerank(query=CRABS, documents=ids(1, 2), strategy="yes-no-fused")
        assert reply.status_code == 503
        assert reply.json()["error"]["code"] == "lmm_failed"
        assert "it is on fire" in reply.json()["message"]
        assert int(reply.headers["retry-after"]) > 0


async def test_a_budget_is_kept_and_told(world: World, opened: Any) -> None:
    async with opened() as service:
        reply = await service.rerank(query=CRABS, documents=ids(*ALL), strategy="yes-no-fused", budget={"max_calls": 3})
        assert len(order(reply)) == 12
        assert len(world.asked) == 3
        assert "stage 'verify'" in " ".join(reply.json()["meta"]["warnings"])


async def test_without_a_clip_nothing_is_searched_and_the_lmm_ranks_alone(world: World, opened: Any) -> None:
    async with opened(encoder="none") as service:
        reply = await service.rerank(query=CRABS, documents=ids(8, 1), strategy="yes-no")
        assert order(reply) == [1, 0]
        clip = await service.rerank(query=CRABS, documents=ids(8, 1), strategy="clip")
        assert (clip.status_code, clip.json()["error"]["code"]) == (422, "no_first_stage")
        search = await service.client.post("/v1/search", json={"query": CRABS})
        assert (search.status_code, search.json()["error"]["code"]) == (409, "not_searchable")


async def test_a_full_queue_answers_429_and_recovers(world: World, opened: Any) -> None:
    lmm = SlowLMM()
    async with opened(lmm, limits={"at_work": 1, "waiting": 1}) as service:

        def ask() -> Awaitable[Any]:
            return asyncio.ensure_future(service.rerank(query=CRABS, documents=ids(1), strategy="yes-no"))

        first, second = ask(), ask()
        await until(lambda: service.engine.admission.waiting == 1)
        refused = await ask()
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        lmm.let_go.set()
        assert [order(await first), order(await second), order(await ask())] == [[0], [0], [0]]


async def test_a_client_that_hangs_up_frees_its_place(world: World, opened: Any) -> None:
    lmm = SlowLMM()
    async with opened(lmm, limits={"at_work": 1, "waiting": 0}) as service:
        gone = asyncio.Event()
        body = json.dumps({"query": CRABS, "documents": ids(1), "strategy": "yes-no"}).encode()
        waiting = [{"type": "http.request", "body": body, "more_body": False}]
        sent: list[Message] = []

        async def receive() -> Message:
            if waiting:
                return waiting.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": "/v1/rerank", "query_string": b"", "scheme": "http",
            "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")], "server": ("localhost", 80),
        }  # fmt: skip
        call = asyncio.create_task(service.app(scope, receive, send))
        await until(lambda: lmm.asked)
        assert (await service.rerank(query=CRABS, documents=ids(2), strategy="yes-no")).status_code == 429
        gone.set()
        await call
        assert not sent
        assert service.engine.admission.at_work == 0
        lmm.let_go.set()
        assert order(await service.rerank(query=CRABS, documents=ids(2), strategy="yes-no")) == [0]


async def test_a_service_that_stops_lets_calls_end_with_what_they_know_and_nobody_in(world: World, opened: Any) -> None:
    lmm = SlowLMM()
    async with opened(lmm, limits={"at_work": 1}) as service:
        tasks = [
            asyncio.create_task(service.rerank(query=CRABS, documents=ids(1), strategy="yes-no-fused"))
            for _ in range(2)
        ]
        await until(lambda: lmm.asked and service.engine.admission.waiting)
        assert (await service.client.get("/readyz")).status_code == 200
        service.engine.stop(grace=10)
        waited = await tasks[1]
        assert (waited.status_code, waited.json()["error"]["code"]) == (503, "shutting_down")
        late = await service.rerank(query=CRABS, documents=ids(1))
        assert late.status_code == 503 and int(late.headers["retry-after"]) > 0
        ready = await service.client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["parts"]["service"] == "the service is shutting down"
        assert (await service.client.get("/healthz")).status_code == 200
        lmm.let_go.set()
        assert order(await tasks[0]) == [0]


async def test_many_calls_at_once_each_get_their_own_order(world: World, opened: Any) -> None:
    async with opened(limits={"at_work": 4}) as service:
        rotations = [[*ALL[n:], *ALL[:n]] for n in range(12)] * 3
        replies = await asyncio.gather(
            *(service.rerank(query=CRABS, documents=ids(*each), strategy="yes-no-fused") for each in rotations)
        )
        orders = [[each[index] for index in order(reply)] for each, reply in zip(rotations, replies, strict=True)]
        assert all(each == orders[0] for each in orders)
        assert len({reply.headers["x-fieldscope-trace"] for reply in replies}) == len(replies)
        assert len(world.asked) == 12  # what was asked once is not asked again


async def test_whatever_goes_wrong_goes_out_as_json_without_a_traceback(
    world: World, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened() as service:

        async def fail(*args: Any) -> None:
            raise RuntimeError("a secret of ours")

        monkeypatch.setattr(service.engine, "rerank", fail)
        for reply, status in (
            (await service.rerank(query=CRABS, documents=ids(1)), 500),
            (await service.client.get("/v1/nowhere"), 404),
            (await service.client.get("/v1/rerank"), 405),
            (await service.client.post("/v1/rerank", content=b"{", headers={"content-type": "application/json"}), 422),
            (await service.rerank(query=CRABS), 422),
            (await service.rerank(query=3, documents=[]), 422),
        ):
            assert reply.status_code == status
            told = reply.json()
            assert told["message"] == told["error"]["message"] != ""
            assert "\n" not in told["message"] and len(told["message"]) < 300
            assert "secret" not in reply.text and "Traceback" not in reply.text
            assert reply.headers["x-request-id"]
        assert "'documents'" in (await service.rerank(query=CRABS)).json()["message"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("OPTIONS", "/v1/jobs", "GET, POST"),
        ("PUT", "/v1/jobs/job-1", "GET, DELETE"),
        ("OPTIONS", "/v1/searches/estimate", "POST"),
        ("OPTIONS", "/v1/searches/s-1", "GET, PATCH, DELETE"),
        ("GET", "/v1/rerank", "POST"),
        ("DELETE", "/healthz", "GET"),
        ("DELETE", "/static/viewer.js", "GET, HEAD"),
    ],
)
async def test_a_method_that_is_not_taken_is_told_which_ones_are(
    world: World, opened: Any, method: str, path: str, allowed: str
) -> None:
    async with opened() as service:
        reply = await service.client.request(method, path)
        assert (reply.status_code, reply.headers["allow"]) == (405, allowed)
        assert reply.json()["error"]["code"] == "method_not_allowed"


async def test_a_request_keeps_its_own_number_and_the_log_has_a_line_for_it(
    world: World, opened: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "fieldscope.access")
    async with opened() as service:
        await service.client.get("/healthz?secret=1", headers={"x-request-id": "mine-1"})
        bad = await service.client.get("/healthz", headers={"x-request-id": "a b\tc"})
        assert bad.headers["x-request-id"] != "a b\tc"
    line = json.loads(caplog.records[0].message)
    assert {name: line[name] for name in ("method", "path", "status", "request")} == {
        "method": "GET", "path": "/healthz", "status": 200, "request": "mine-1",
    }  # fmt: skip
    assert line["ms"] >= 0 and "secret" not in caplog.text


async def test_the_document_of_the_service_is_complete(world: World, opened: Any) -> None:
    async with opened() as service:
        document = (await service.client.get("/openapi.json")).json()
        assert set(document["components"]["securitySchemes"]) == {"bearer", "header"}
        known = {tag["name"] for tag in document["tags"]}
        for path, methods in document["paths"].items():
            for method, described in methods.items():
                where = f"{method} {path}"
                assert set(described["tags"]) <= known, where
                assert described.get("summary"), where
                if path not in ("/healthz", "/readyz", "/metrics"):
                    assert {"401", "403", "422", "500"} <= set(described["responses"]), where


async def test_anything_that_is_no_endpoint_is_the_viewers(world: World, opened: Any) -> None:
    async with opened() as service:
        page = await service.client.get("/")
        assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
        assert (await service.client.get("/served/")).status_code == 200


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=50))
def test_relevances_fall_strictly_within_their_bounds(scores: list[float | None]) -> None:
    strict = falling(scores)
    assert len(strict) == len(scores)
    assert all(0 < score < 1 for score in strict)
    assert all(before > after for before, after in itertools.pairwise(strict))


@given(st.lists(st.floats(0.001, 0.999), unique_by=lambda p: round(p, 4), max_size=20))
def test_probabilities_that_differ_are_given_as_they_are(probabilities: list[float]) -> None:
    falls = sorted(probabilities, reverse=True)
    assert falling(falls) == falls


@given(st.lists(st.floats(0, 1), max_size=12), st.lists(st.floats(0, 1), max_size=12))
def test_a_merged_order_keeps_that_of_the_pictures_and_has_every_document_once(
    pictures: list[float], texts: list[float]
) -> None:
    relevance = dict(zip(range(0, 100, 2), falling(sorted(pictures, reverse=True)), strict=False))
    judged = dict(zip(range(1, 100, 2), texts, strict=False))
    unjudged = [101, 100]
    both = merged(relevance, judged, unjudged)
    assert sorted(index for index, _ in both) == sorted([*relevance, *judged, *unjudged])
    assert [index for index, _ in both][-2:] == [100, 101]
    assert [index for index, _ in both if index in relevance] == list(relevance)
    assert all(before > after for (_, before), (_, after) in itertools.pairwise(both))


def test_without_a_probability_the_score_is_squashed_and_gaps_are_filled() -> None:
    def ranked(rank: int, score: float, p: float | None = None) -> RankedCandidate:
        return RankedCandidate(image_id=str(rank), rank=rank, score=score, prior=0.0, prior_rank=rank, p_match=p)

    assert relevances([ranked(1, 0.0), ranked(2, -1.0)]) == pytest.approx([0.5, 0.268941], abs=1e-6)
    filled = relevances([ranked(1, 0.9, 0.9), ranked(2, 0.8), ranked(3, 0.7, 0.7)])
    assert filled[0] == 0.9 and filled[2] == 0.7 and 0.7 < filled[1] < 0.9
