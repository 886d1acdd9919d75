"""Each client's way to say the same, and one reply that all of them can read."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PILImage

from fieldscope.agent.budget import Budget
from fieldscope.service.server.api.calls import ImageDocument, Options, TextDocument
from fieldscope.service.server.limits import Limits
from tests.service.api.desk import BLUE, GREEN, RED, Desk, data_url, picture

PATHS = ("/v1/rerank", "/rerank", "/v2/rerank")
Body = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "wild"
    made.mkdir()
    PILImage.new("RGB", (8, 6), RED).save(made / "red.png")
    PILImage.new("RGB", (8, 6), GREEN).save(made / "green.png")
    return made


@pytest.fixture
def desk(tmp_path: Path, folder: Path) -> Desk:
    return Desk(tmp_path).open(wild=folder)


def image_url(url: str) -> Body:
    return {"type": "image_url", "image_url": {"url": url}}


RED_URL, BLUE_URL = data_url(picture(RED)), data_url(picture(BLUE))
SPELLINGS: dict[str, Any] = {
    "cohere's objects": [{"text": url} for url in (RED_URL, "fieldscope://wild/green.png", BLUE_URL)],
    "strings": [RED_URL, "fieldscope://wild/green.png", BLUE_URL],
    "jina": [
        {"image": RED_URL},
        {"image": "fieldscope://wild/green.png"},
        {"image": base64.b64encode(picture(BLUE)).decode()},
    ],
    "jina, by id": [{"image": "red.png"}, {"image": "green.png"}, {"image": BLUE_URL}],
    "vllm": [
        {"content": [image_url(RED_URL)]},
        {"content": [image_url("fieldscope://wild/green.png")]},
        {"content": [image_url(BLUE_URL)]},
    ],
    "vllm's object": {"content": [image_url(url) for url in (RED_URL, "fieldscope://wild/green.png", BLUE_URL)]},
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("documents", SPELLINGS.values(), ids=SPELLINGS.keys())
async def test_every_spelling_of_three_pictures_is_the_same_call(desk: Desk, path: str, documents: Any) -> None:
    reply = await desk.post(path, {"model": "whatever", "query": "a red crab", "documents": documents})
    assert reply.status_code == 200, reply.text
    assert reply.headers["X-Fieldscope-Trace"] == "trace-1"
    told = reply.json()
    assert (told["id"], told["model"], told["strategy"]) == ("trace-1", "bundled", "agent")
    assert [(each["index"], each["relevance_score"]) for each in told["results"]] == [(2, 0.75), (1, 0.5), (0, 0.25)]
    assert told["usage"] == {"prompt_tokens": 40, "completion_tokens": 2, "total_tokens": 42}
    assert told["meta"]["tokens"] == {"input_tokens": 40, "output_tokens": 2}
    assert told["meta"]["warnings"] == ["a flag"]
    assert desk.seen == [(0xD0, 0x10, 0x10), (0x10, 0xD0, 0x10), (0x10, 0x10, 0xD0)]
    (call,) = desk.calls
    assert (call.query, call.query_image, call.options) == ("a red crab", None, Options())


async def test_words_and_pictures_mixed(desk: Desk) -> None:
    documents = [
        "a red crab",
        {"text": "a data:image/png URL further on is words"},
        RED_URL,
        {"content": [{"type": "text", "text": "two"}, {"type": "text", "text": "lines"}]},
    ]
    await desk.post("/v1/rerank", {"query": "q", "documents": documents})
    texts = [document.text if isinstance(document, TextDocument) else None for document in desk.calls[0].documents]
    assert texts == ["a red crab", "a data:image/png URL further on is words", None, "two\nlines"]


async def test_the_same_picture_twice_is_two_documents_of_one_id(desk: Desk) -> None:
    as_bitmap = data_url(picture(RED, "BMP"), "image/bmp")
    reply = await desk.post("/v1/rerank", {"query": "q", "documents": [RED_URL, as_bitmap, RED_URL]})
    assert {each["index"] for each in reply.json()["results"]} == {0, 1, 2}
    assert len({document.image_id for document in desk.calls[0].documents if isinstance(document, ImageDocument)}) == 1


@pytest.mark.parametrize(
    ("query", "words", "has_picture"),
    [
        ("a fox", "a fox", False),
        ({"text": "a fox"}, "a fox", False),
        (RED_URL, "", True),
        ({"text": RED_URL}, "", True),
        ("fieldscope://wild/red.png", "", True),
        ({"image": RED_URL}, "", True),
        ({"image": "red.png", "text": "at night"}, "at night", True),
        ({"content": [image_url(RED_URL), {"type": "text", "text": "at night"}]}, "at night", True),
        ("bell\x07 and\x00 nul", "bell  and  nul", False),
    ],
)
async def test_a_query_is_words_or_a_picture_or_both(desk: Desk, query: Any, words: str, has_picture: bool) -> None:
    reply = await desk.post("/v1/rerank", {"query": query, "documents": ["a"]})
    assert reply.status_code == 200, reply.text
    assert (desk.calls[0].query, desk.calls[0].query_image is not None) == (words, has_picture)


@pytest.mark.parametrize(("top_n", "count"), [(1, 1), (2, 2), (3, 3), (50, 3), (0, 3), (None, 3)])
async def test_top_n(desk: Desk, top_n: int | None, count: int) -> None:
    reply = await desk.post("/v2/rerank", {"query": "q", "documents": ["a", "b", "c"], "top_n": top_n})
    assert len(reply.json()["results"]) == count


@pytest.mark.parametrize(
    ("path", "asked", "document", "returned"),
    [
        ("/v1/rerank", {}, "words", {"text": "words"}),  # Jina's default
        ("/v1/rerank", {}, {"text": "words"}, {"text": "words"}),
        ("/v1/rerank", {}, RED_URL, None),  # which nobody wants back unasked
        ("/v1/rerank", {"return_documents": True}, RED_URL, {"text": RED_URL}),
        ("/v1/rerank", {"return_documents": True}, {"image": RED_URL}, {"image": RED_URL}),
        ("/v1/rerank", {"return_documents": False}, "words", None),
        ("/v2/rerank", {}, "words", None),  # Cohere's
        ("/v2/rerank", {"return_documents": True}, "words", {"text": "words"}),
        ("/v2/rerank", {}, {"content": [image_url(RED_URL)]}, {"multi_modal": [image_url(RED_URL)]}),  # vLLM's
        ("/rerank", {"return_documents": False}, {"content": [image_url(RED_URL)]}, None),
    ],
)
async def test_documents_come_back_as_each_client_expects(
    desk: Desk, path: str, asked: Body, document: Any, returned: Body | None
) -> None:
    reply = await desk.post(path, {"query": "q", "documents": [document], **asked})
    (result,) = reply.json()["results"]
    assert result.get("document") == returned


async def test_options_from_the_body_and_from_headers(desk: Desk) -> None:
    headers = {
        "X-Fieldscope-Strategy": "clip",
        "X-Fieldscope-Budget-Max-Calls": "7",
        "X-Fieldscope-Budget-Max-Tokens": "900",
        "X-Fieldscope-Budget-Deadline": "1.5",
        "X-Fieldscope-Explain": "3",
    }
    body: Body = {"query": "q", "documents": ["a", "b"]}
    reply = await desk.post("/v1/rerank", body, headers)
    assert reply.json()["results"][0]["reason"] == "reason 1"
    assert reply.json()["results"][0]["p_match"] == 0.5
    own = {"strategy": "yes-no", "budget": {"max_calls": 2}, "explain": 0}
    reply = await desk.post("/v1/rerank", body | own, headers)
    assert set(reply.json()["results"][0]) == {"index", "relevance_score", "judged", "document"}
    await desk.post("/v1/rerank", body | {"explain": True})
    await desk.post("/v1/rerank", body, {"X-Fieldscope-Explain": "true"})
    await desk.post("/v1/rerank", body | {"explain": False}, {"X-Fieldscope-Explain": "true"})
    assert [call.options for call in desk.calls] == [
        Options("clip", Budget(7, 900, 1.5), 3),
        Options("yes-no", Budget(2, 900, 1.5), 0),
        Options(explain=10),
        Options(explain=10),
        Options(),
    ]


BAD: dict[str, tuple[Body, int, str]] = {
    "no documents": ({"documents": []}, 422, "documents"),
    "no documents in vLLM's object": ({"documents": {"content": []}}, 422, "documents"),
    "no documents at all": ({"documents": None}, 422, "documents"),
    "empty query": ({"query": ""}, 422, "no words"),
    "blank query": ({"query": " \n\x00"}, 422, "no words"),
    "no query": ({"query": None}, 422, "query"),
    "an empty object": ({"documents": ["a", {}]}, 422, "document 1"),
    "words beside a picture": (
        {"documents": [{"text": "a", "image": "red.png"}]},
        422,
        "document 0 has both words and an image",
    ),
    "two pictures": ({"documents": [{"content": [image_url(RED_URL)] * 2}]}, 422, "document 0 has 2 images"),
    "top_n below 0": ({"top_n": -1}, 422, "top_n"),
    "top_n as a text": ({"top_n": "2"}, 422, "top_n"),
    "a misspelt budget": ({"budget": {"max_call": 2}}, 422, "max_call"),
    "a deadline of nothing": ({"budget": {"deadline": 0}}, 422, "deadline"),
    "explain below 0": ({"explain": -1}, 422, "explain"),
    "a video": ({"documents": [{"content": [{"type": "video_url", "video_url": {"url": "x"}}]}]}, 422, "documents"),
    "too long": ({"query": "x" * 101}, 422, "the query has 101 characters"),
    "too long a document": ({"documents": ["a", "x" * 101]}, 422, "document 1 has 101 characters"),
    "too many": ({"documents": ["a"] * 21}, 422, "21 documents, over the limit of 20"),
    "an unknown id": ({"documents": ["a", "fieldscope://wild/fox.png"]}, 404, "document 1: "),
    "an unknown collection": ({"documents": ["fieldscope://zoo/red.png"]}, 404, "document 0: "),
    "an unknown bare id": ({"documents": [{"image": "fox.png"}]}, 404, "document 0: 'fox.png' is not an image"),
    "a file's address": ({"documents": [{"image": "file:///etc/passwd"}]}, 404, "document 0: "),
    "a picture of the query's": ({"query": {"image": "fox.png"}}, 404, "the query: "),
    "another host": ({"documents": [{"image": "https://example.org/a.png"}]}, 400, "--image-host example.org"),
}


@pytest.mark.parametrize(("change", "status", "sentence"), BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("path", PATHS)
async def test_what_can_not_be_used_is_refused_with_a_sentence(
    tmp_path: Path, folder: Path, path: str, change: Body, status: int, sentence: str
) -> None:
    desk = Desk(tmp_path, Limits(max_documents=20, max_text=100)).open(wild=folder)
    reply = await desk.post(path, {"query": "q", "documents": ["a"], **change})
    assert reply.status_code == status, reply.text
    assert sentence in reply.json()["error"]["message"]
    assert reply.json()["message"] == reply.json()["error"]["message"]
    assert not desk.calls
    assert len(desk.pictures) == 0


@pytest.mark.parametrize("value", ["-1", "soon", "", "1001", "yes"])
async def test_a_header_that_says_nothing_is_refused(desk: Desk, value: str) -> None:
    reply = await desk.post("/v1/rerank", {"query": "q", "documents": ["a"]}, {"X-Fieldscope-Explain": value})
    assert reply.status_code == 422


async def test_sql_and_html_are_words_like_any_other(desk: Desk) -> None:
    nasty = "'; DROP TABLE traces; --<script>alert(1)</script>\u202e" + "\"'`${7*7}{{7*7}}"
    body: Body = {"query": nasty, "documents": [nasty, {"text": nasty}], "model": nasty, "user": nasty}
    reply = await desk.post("/v1/rerank", body)
    assert reply.status_code == 200
    assert desk.calls[0].query == nasty
    assert reply.json()["results"][0]["document"] == {"text": nasty}
    for field in ("strategy", "top_n", "explain", "return_documents"):
        refused = await desk.post("/v1/rerank", body | {field: nasty})
        assert refused.headers["content-type"] == "application/json"
        assert refused.status_code == (200 if field == "strategy" else 422)


async def test_the_openapi_document_has_examples_and_every_answer(desk: Desk) -> None:
    with desk.app() as app:
        document = app.openapi()
    for path in PATHS:
        operation = document["paths"][path]["post"]
        assert {"200", "400", "401", "404", "413", "422", "429", "503"} <= set(operation["responses"])
        assert "X-Fieldscope-Trace" in operation["responses"]["200"]["headers"]
        named = {parameter["name"].lower() for parameter in operation["parameters"]}
        assert {"x-fieldscope-strategy", "x-fieldscope-explain", "x-fieldscope-budget-deadline"} <= named
    fields = document["components"]["schemas"]["RerankFields"]["properties"]
    assert all("examples" in fields[name] for name in ("query", "documents", "strategy", "budget"))
