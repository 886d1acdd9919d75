"""Documents that are nothing but strings: which are pictures, which are words, and which can't be judged."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image as PILImage

from fieldscope.agent.lmm.base import LMMRequest
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.service.server.api.references import is_blank, reference_in
from tests.service.api.facts import COLLECTION
from tests.service.api.whole import open_app

ID = f"fieldscope://{COLLECTION}/01.png"
OTHERS = [f"fieldscope://{COLLECTION}/02.png", f"fieldscope://{COLLECTION}/03.png"]
PATHS = ("/v1/rerank", "/rerank", "/v2/rerank")


def encoded(kind: str) -> str:
    stream = io.BytesIO()
    PILImage.new("RGB", (9, 7), "#aa1100").save(stream, kind)
    return base64.b64encode(stream.getvalue()).decode()


PNG = encoded("PNG")
PICTURES = {
    "an id between blanks": f"  {ID}\n",
    "LlamaIndex's metadata before the id": f"file_name: 01.png\nauthor: me\n\n{ID}",
    "metadata before a data URL": f"file_name: 01.png\n\ndata:image/png;base64,{PNG}",
    "LangChain's YAML": f"image: {ID}\n",
    "YAML with quotes and more keys": f"id: 7\nimage: '{ID}'\ntitle: a crab\n",
    "YAML with the id alone": "image: 01.png\ncaption: by night\n",
    "YAML of a data URL": f"image_url: data:image/png;base64,{PNG}",
    "YAML of bytes": f"image: !!binary |\n  {PNG[:40]}\n  {PNG[40:]}\n",
    "JSON": json.dumps({"image": ID, "title": "a crab"}),
    "JSON in vLLM's words": json.dumps({"type": "image_url", "image_url": {"url": ID}}),
    "base64 of a PNG": PNG,
    "base64 with line breaks": f"{PNG[:60]}\n{PNG[60:]}\n",
    "base64 for addresses": PNG.replace("+", "-").replace("/", "_"),
    **{f"base64 of a {kind}": encoded(kind) for kind in ("JPEG", "GIF", "BMP", "TIFF", "WEBP")},
    "an untyped data URL": f"data:application/octet-stream;base64,{PNG}",
    "a data URL without a type": f"data:;base64,{PNG}",
    "a file's name": "01.png",
}
UNJUDGED = {
    "nothing": "",
    "blanks": " \n\t ",
    "no visible character": "\u200b\ufeff",
    "an address": "https://pictures.example/crab.jpg",
    "a file": "file:///home/alice/crab.jpg",
    "a bucket": "s3://bucket/crab",
    "a data URL of a page": "data:text/html;base64,PGI+",
    "a data URL without a picture": "data:application/octet-stream;base64,AAAA",
    "broken base64": PNG[:-20] + "!",
    "base64 of something else": base64.b64encode(b"%PDF-1.7\n" * 40).decode(),
    "a file's name that nothing has": "photos/crab.jpeg",
    "YAML of an address": "image: https://pictures.example/crab.jpg\ntitle: a crab",
}
WORDS = {
    "a caption": "two red crabs on a beach",
    "a caption in YAML": "image: two red crabs on a beach",
    "an address within words": "see https://pictures.example/crab.jpg for more",
    "a picture within words": f"words before {ID}",
    "a file's name within words": "the picture crab.jpg",
    "a scheme": "data: it is all there",
    "one word": "crab",
    "a mapping": "title: crab\ncolour: red",
    "JSON without a picture": '{"title": "crab", "image": null}',
    "JSON that is none": "{image: crab}",
    "metadata with a picture's name": "image: nothing.png\ncaption: two red crabs",
}


def answering(request: LMMRequest) -> float | str:
    return 0.3 if not request.images else 0.6


async def order(client: httpx.AsyncClient, documents: Any, path: str = "/v1/rerank") -> tuple[list[int], list[str]]:
    """Places, best first, and warnings. Scores fall strictly and none of them stands at even odds."""
    body = {"query": "crab", "documents": documents, "strategy": "yes-no"}
    reply = await client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    results = reply.json()["results"]
    scores = [result["relevance_score"] for result in results]
    assert all(0 < score < 1 and score != 0.5 for score in scores)
    assert scores == sorted(set(scores), reverse=True)
    return [result["index"] for result in results], reply.json()["meta"].get("warnings", [])


@pytest.mark.parametrize("document", PICTURES.values(), ids=PICTURES.keys())
async def test_a_string_that_stands_for_a_picture_is_looked_at(tmp_path: Path, document: str) -> None:
    lmm = ScriptedLMM(answering)
    async with open_app(tmp_path, lmm) as client:
        for path in PATHS:
            places, warnings = await order(client, [document, "a red crab"], path)
            assert places == [0, 1] and warnings == []
    asked = [request for request in lmm.requests if request.images]
    assert len(asked) == 1, "one picture, once: the rest came out of the cache"


@pytest.mark.parametrize("document", UNJUDGED.values(), ids=UNJUDGED.keys())
async def test_what_can_not_be_judged_ranks_last_and_is_named(tmp_path: Path, document: str) -> None:
    def no(request: LMMRequest) -> float:
        assert request.images or "red crab" in request.text
        return 0.001

    async with open_app(tmp_path, ScriptedLMM(no)) as client:
        for given in (document, {"text": document}, {"content": [{"type": "text", "text": document}]}):
            places, (nothing, warning) = await order(client, [given, *OTHERS, "a red crab"])
            assert places[-1] == 0
            assert nothing.startswith("No image seems to match")
            assert warning.startswith("ranked last, because they can't be judged: document 0")


@pytest.mark.parametrize("document", WORDS.values(), ids=WORDS.keys())
async def test_words_remain_words(tmp_path: Path, document: str) -> None:
    lmm = ScriptedLMM(answering)
    async with open_app(tmp_path, lmm) as client:
        places, warnings = await order(client, [document, ID])
    assert places == [1, 0] and warnings == []
    assert sum(not request.images for request in lmm.requests) == 1


async def test_an_address_that_may_not_be_fetched_says_what_to_allow(tmp_path: Path) -> None:
    async with open_app(tmp_path, ScriptedLMM(answering)) as client:
        _, (warning,) = await order(client, [ID, "https://pictures.example/crab.jpg"])
        assert "document 1: " in warning and "--image-host pictures.example" in warning
        named = {"query": "crab", "documents": [{"image": "https://pictures.example/crab.jpg"}]}
        reply = await client.post("/v1/rerank", json=named)
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "host_not_allowed")


async def test_only_what_can_be_judged_is_asked_about_and_all_of_nothing_is_a_reply(tmp_path: Path) -> None:
    lmm = ScriptedLMM(answering)
    async with open_app(tmp_path, lmm) as client:
        places, (warning,) = await order(client, [""] * 9)
    assert places == list(range(9)) and lmm.requests == []
    assert "document 4 has no words and no image; and 4 more" in warning


async def test_a_text_without_an_answer_stands_on_its_similarity_and_never_at_even_odds(tmp_path: Path) -> None:
    def silent(request: LMMRequest) -> float | str:
        return 0.01 if request.images else "perhaps"

    async with open_app(tmp_path, ScriptedLMM(silent)) as client:
        for texts in (["a red crab"], ["a red crab"] * 2, ["a red crab", "a blue fish"]):
            _, warnings = await order(client, [*texts, ID])
            assert "ranked by CLIP's similarity" in " ".join(warnings)


@pytest.mark.parametrize(
    ("query", "status"),
    [
        (PNG, 200),
        (f"data:application/octet-stream;base64,{PNG}", 200),
        ("https://pictures.example/crab.jpg", 400),
        ("file:///home/alice/crab.jpg", 404),
        ("\u200b", 422),
    ],
)
async def test_a_query_that_is_a_picture_is_looked_at_or_refused(tmp_path: Path, query: str, status: int) -> None:
    async with open_app(tmp_path, ScriptedLMM(lambda request: 0.6)) as client:
        body = {"query": query, "documents": ["a red crab"], "strategy": "yes-no"}
        reply = await client.post("/v1/rerank", json=body)
        assert reply.status_code == status, reply.text


def test_a_query_keeps_the_words_before_a_picture() -> None:
    found = reference_in(f"the same, at night\n{ID}")
    assert found is not None and (found.picture, found.words) == (ID, "the same, at night")


def test_long_strings_are_read_in_one_pass() -> None:
    """Nothing here may take longer than reading it: else one document holds the service."""
    for text in ("image: a\n" * 200_000, "image: a" + " " * 1_000_000 + "b", " " * 1_000_000 + "x", "\n" * 1_000_000,
                 "{" * 1_000_000 + "}", "a" * 1_000_000 + "!", "data:" + ";" * 1_000_000):  # fmt: skip
        reference_in(text)
    assert is_blank("") and is_blank("\x00 \u200b\n") and not is_blank("🦀")
