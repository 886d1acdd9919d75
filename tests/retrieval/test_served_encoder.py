"""Encoders over HTTP: in which form a server is asked, what its vectors are, and what is never taken for one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fieldscope.core.errors import (
    ConfigError,
    ContextLengthError,
    LMMConnectionError,
    LMMRequestError,
    LMMResponseError,
    LMMServerError,
)
from fieldscope.core.types import Query
from fieldscope.retrieval.embedding_forms import FORMS, Recipe, recipe_of
from fieldscope.retrieval.encoder import QueryInputs, load_encoder
from fieldscope.retrieval.query_vectors import QueryVectors
from fieldscope.retrieval.served_encoder import ServedEncoder
from fieldscope.retrieval.server import ModelServer
from tests.retrieval.embedders import DIM, MODEL, Embedder, answered, of_pixels, of_words

QUERY = "a red crab, far away"
INSTRUCTION = "Find blue things."
Start = Callable[[Embedder], Embedder]


@pytest.fixture
def start() -> Iterator[Start]:
    """`start(embedder)` serves it until the test ends."""
    with ExitStack() as stack:
        yield lambda embedder: stack.enter_context(embedder.serving())


def connect(embedder: Embedder, path: str = "", model: str = MODEL, **options: Any) -> ServedEncoder:
    server = ModelServer(embedder.url + path, model, "--encoder", **{"sleep": lambda seconds: None, **options})
    return ServedEncoder(server, getattr(embedder, "notes", []).append)


def noise(seed: int, side: int = 24) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def unit(vector: np.ndarray) -> Any:
    return pytest.approx(vector / np.linalg.norm(vector), abs=1e-6)


def noting(embedder: Embedder) -> list[str]:
    """What an encoder that is connected afterwards says of its server."""
    embedder.notes = []  # type: ignore[attr-defined]
    return embedder.notes  # type: ignore[attr-defined, no-any-return]


def test_text_picture_and_both_are_parts_of_one_message(start: Start) -> None:
    embedder = start(Embedder())
    encoder, picture = connect(embedder), noise(1)
    assert encoder.dim == DIM and encoder.uses == {"text", "image", "instruction"}
    assert encoder.encode_query(QueryInputs(QUERY)) == unit(of_words(QUERY))
    assert encoder.encode_query(QueryInputs(QUERY, picture)) == unit(of_words(QUERY) + of_pixels(picture))
    assert encoder.encode_query(QueryInputs("", picture)) == unit(of_pixels(picture))
    instructed = encoder.encode_query(QueryInputs(QUERY, picture, INSTRUCTION))
    assert instructed == unit(2 * of_words(INSTRUCTION) + of_words(QUERY) + of_pixels(picture))
    body = embedder.asked[-1]
    system, user = body["messages"]
    assert system == {"role": "system", "content": [{"type": "text", "text": INSTRUCTION}]}
    assert [part["type"] for part in user["content"]] == ["image_url", "text"] and user["role"] == "user"
    assert body["add_generation_prompt"] and body["add_special_tokens"] and body["encoding_format"] == "base64"
    assert body["model"] == MODEL and "input" not in body


def test_pictures_are_vectors_of_length_one_in_their_order(start: Start) -> None:
    encoder, pictures = connect(start(Embedder())), [noise(n, 20 + n) for n in range(40)]
    seen: list[tuple[int, int]] = []
    vectors = encoder.encode_images(pictures, lambda done, total: seen.append((done, total)))
    assert vectors.shape == (40, DIM) and vectors.dtype == np.float32 and seen[-1] == (40, 40)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-6)
    for vector, picture in zip(vectors, pictures, strict=True):
        assert vector == unit(of_pixels(picture))
    assert encoder.encode_images([]).shape == (0, DIM)


def test_large_pictures_are_scaled_and_small_ones_lossless(start: Start) -> None:
    embedder = start(Embedder())
    connect(embedder).encode_images([Image.new("RGB", (3000, 1000), (200, 0, 0)), noise(2)])
    urls = [body["messages"][0]["content"][0]["image_url"]["url"][:22] for body in embedder.asked[-2:]]
    assert sorted(urls) == ["data:image/jpeg;base64", "data:image/png;base64,"]


def test_many_pictures_are_out_at_once(start: Start) -> None:
    together = threading.Barrier(4)  # of which nobody passes alone

    def reply(number: int, body: dict[str, Any]) -> None:
        if number >= 5:  # after two texts and three pictures to try
            together.wait(timeout=60)

    encoder = connect(start(Embedder(reply=reply)))
    assert encoder.encode_images([noise(n) for n in range(4)]).shape == (4, DIM)


def test_a_server_without_base64_is_read_as_numbers(start: Start) -> None:
    embedder = start(Embedder(base64=False))
    encoder = connect(embedder)
    assert encoder.encode_query(QueryInputs(QUERY)) == unit(of_words(QUERY))
    assert [body["encoding_format"] for body in embedder.asked] == ["base64", "float", "float", "float"]


def test_a_server_of_texts_is_asked_once_and_said_so(start: Start) -> None:
    embedder = Embedder(messages=False)
    notes = noting(start(embedder))
    encoder = connect(embedder)
    assert encoder.encode_query(QueryInputs(QUERY, instruction=INSTRUCTION)) == unit(of_words(QUERY))
    assert encoder.uses == {"text"}
    assert ["messages" in body for body in embedder.asked] == [True, True, False, False, False]
    assert len(notes) == 1 and "encodes texts only" in notes[0] and "input is required" in notes[0]
    with pytest.raises(ConfigError, match=r"takes no pictures: the server refuses `messages`.*multimodal embedder"):
        encoder.encode_images([noise(1)])
    assert len(embedder.asked) == 5


@pytest.mark.parametrize(
    ("pictures", "reason"),
    [
        ("refused", r"takes no pictures \(.*At most 0 image"),
        ("ignored", "gives different pictures the same vector"),
        ("letters", "reads the letters of a picture's data URL as text"),
    ],
)
def test_a_model_that_sees_no_picture_is_refused(start: Start, pictures: Any, reason: str) -> None:
    encoder = connect(start(Embedder(pictures=pictures)))
    with pytest.raises(ConfigError, match=reason):
        encoder.encode_images([noise(1)])
    assert encoder.encode_query(QueryInputs(QUERY)) == unit(of_words(QUERY))


@pytest.mark.parametrize(
    ("embedder", "uses"),
    [
        (Embedder(together=False), {"text"}),  # CLIP: an instruction would be one more caption
        (Embedder(system="ignored"), {"text", "image"}),
        (Embedder(system="refused"), {"text", "image"}),
        (Embedder(pictures="ignored"), {"text"}),
        (Embedder(pictures="refused"), {"text"}),
        (Embedder(pictures="letters"), {"text"}),
    ],
)
def test_what_a_server_takes_is_found_out(start: Start, embedder: Embedder, uses: set[str]) -> None:
    encoder = connect(start(embedder))
    assert encoder.uses == uses
    asked = len(embedder.asked)
    assert encoder.uses == uses and len(embedder.asked) == asked
    assert encoder.encode_query(QueryInputs(QUERY, None, INSTRUCTION)) == unit(of_words(QUERY))
    if "image" not in uses:
        with pytest.raises(ConfigError, match="takes no picture together with words"):
            encoder.encode_query(QueryInputs(QUERY, noise(1)))


@pytest.mark.parametrize("together", [True, False])
def test_a_composed_query_is_one_input_or_a_sum(start: Start, together: bool) -> None:
    encoder, picture = connect(start(Embedder(together=together))), noise(1)
    query = Query(id="q", text=QUERY, reference_image="r")
    vector = QueryVectors(encoder).of(query, lambda _: encoder.encode_images([picture])[0], lambda _: picture)
    words, pixels = of_words(QUERY), of_pixels(picture)
    both = words + pixels if together else words / np.linalg.norm(words) + pixels / np.linalg.norm(pixels)
    assert vector == unit(both)


def wrong(number: int, *vectors: np.ndarray, **answer: Any) -> Callable[[int, dict[str, Any]], Any]:
    """A server whose answers are these from the request of this number on."""
    return lambda n, body: answered(*vectors, **answer) if n >= number else None


NAN = np.array([0.1, np.nan] * 4)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (wrong(2, np.ones(DIM + 1)), f"a vector of {DIM + 1} numbers after some of {DIM}"),
        (wrong(1, np.ones(DIM - 1)), f"a vector of {DIM - 1} numbers after some of {DIM}"),
        (wrong(0, NAN), "4 of 8 numbers that are not finite"),
        (wrong(2, NAN), "4 of 8 numbers that are not finite"),
        (wrong(2, np.full(DIM, np.inf)), "8 of 8 numbers that are not finite"),
        (wrong(2, np.zeros(DIM)), "a vector of zeros"),
        (wrong(2, np.empty(0)), "an empty vector"),
        (wrong(2), "0 vectors for one input"),
        (wrong(2, np.ones(DIM), np.ones(DIM)), "2 vectors for one input"),
        (wrong(2, np.ones(DIM), indexes=[1]), "numbers its only vector 1 in place of 0"),
        (wrong(2, np.ones((2, DIM)), encoding="float"), r"no embeddings as OpenAI's API has them \(data.0.embedding"),
        (wrong(0, np.ones(DIM)), "gives different texts the same vector"),
        (lambda n, body: (200, {}, {"data": [{"index": 0, "embedding": "AAA"}]}), "no base64 of 32-bit numbers"),
        (lambda n, body: (200, {}, {"data": [{"index": 0, "embedding": "AAAA"}]}), "no base64 of 32-bit numbers"),
        (lambda n, body: (200, {}, {"object": "list"}), r"no embeddings as OpenAI's API has them \(data"),
        (lambda n, body: (200, {}, b"<html>"), "gave no JSON"),
        (lambda n, body: (200, {}, b'{"data": [{"index": 0, "embedding": [NaN]}]}'), "1 of 1 numbers that are not"),
    ],
)
def test_what_is_no_vector_is_an_error(start: Start, reply: Any, reason: str) -> None:
    encoder = connect(start(Embedder(reply=reply)))
    with pytest.raises(LMMResponseError, match=reason) as caught:
        encoder.encode_query(QueryInputs(QUERY))
    assert "\n" not in str(caught.value)


def test_what_can_pass_is_tried_again_as_the_server_says(start: Start) -> None:
    failures = [(503, {}, {"error": "loading"}), (429, {"Retry-After": "7"}, {"error": {"message": "slow down"}})]
    slept: list[float] = []
    encoder = connect(start(Embedder(reply=lambda n, body: failures[n] if n < 2 else None)), sleep=slept.append)
    assert encoder.encode_query(QueryInputs(QUERY)) == unit(of_words(QUERY))
    assert len(slept) == 2 and slept[1] >= 7


@pytest.mark.parametrize(
    ("status", "body", "error", "reason"),
    [
        (401, {"error": "no key"}, LMMRequestError, "put the server's API key in FIELDSCOPE_API_KEY"),
        (404, {"error": {"message": "The model does not exist."}}, LMMRequestError, "The model does not exist"),
        (503, {"error": "overloaded"}, LMMServerError, "overloaded"),
        (400, {"error": {"message": "maximum context length is 8"}}, ContextLengthError, "maximum context length"),
        (
            400,
            {"error": {"message": "The model does not support Embeddings API"}},
            LMMRequestError,
            "not support Embed",
        ),
    ],
)
def test_a_server_that_refuses_everything_is_an_error(
    start: Start, status: int, body: Any, error: type[Exception], reason: str
) -> None:
    encoder = connect(start(Embedder(reply=lambda n, request: (status, {}, body))), attempts=2)
    with pytest.raises(error, match=reason):
        encoder.encode_query(QueryInputs(QUERY))


def test_no_server_and_no_such_model() -> None:
    embedder = Embedder()
    reason = f"serves {MODEL}, not other: write the model's name after # in --encoder"
    with embedder.serving(), pytest.raises(LMMRequestError, match=reason):
        _ = connect(embedder, model="other").fingerprint
    with pytest.raises(LMMConnectionError, match="start the server or check --encoder"):
        _ = connect(embedder, attempts=1).dim


def test_the_fingerprint_is_the_model_and_not_its_address(start: Start) -> None:
    def told(pages: dict[str, Any] | None = None, **options: Any) -> str:
        return connect(start(Embedder(pages=pages or {}, **options))).fingerprint

    def entry(**facts: Any) -> dict[str, Any]:
        return {"/v1/models": {"data": [{"id": MODEL, "owned_by": "vllm", **facts}]}}

    first = told()
    assert told() == first  # on another port
    assert told(base64=False) == first  # the same numbers
    others = [told(entry(root="other/weights")), told(entry(root="/models/tiny", revision="2")), told(messages=False)]
    assert len({first, *others}) == 4


def test_a_server_that_says_nothing_of_its_weights_is_noted(start: Start) -> None:
    embedder = Embedder(pages={"/v1/models": None, "/version": None})
    notes = noting(start(embedder))
    assert connect(embedder).fingerprint
    assert len(notes) == 1 and "does not report which weights" in notes[0] and "make the index again" in notes[0]


@pytest.mark.parametrize("path", ["", "/v1", "/v1/", "/v1/embeddings"])
def test_an_address_keeps_its_path(start: Start, path: str) -> None:
    embedder = start(Embedder())
    assert connect(embedder, path).dim == DIM
    assert set(embedder.paths) == {"/v1/embeddings"}


def test_families_get_what_they_were_trained_with(start: Start) -> None:
    assert recipe_of("mine", "google/siglip2-base-patch16-224").padding == "max_length"
    qwen = recipe_of("Qwen/Qwen3-VL-Embedding-2B")
    assert qwen == Recipe(instruction="Represent the user's input.") and recipe_of("mine") == Recipe()
    chat = FORMS[0]
    body = chat.body("m", qwen, "", "data:", None)
    assert body["messages"][0] == {"role": "system", "content": [{"type": "text", "text": qwen.instruction}]}
    assert chat.body("m", qwen, "a", None, "own")["messages"][0]["content"][0]["text"] == "own"
    padded = recipe_of("siglip")
    assert chat.body("m", padded, "a", None, None)["padding"] == "max_length"
    assert "padding" not in chat.body("m", padded, "", "data:", None)
    root = {"/v1/models": {"data": [{"id": MODEL, "root": "Qwen/Qwen3-VL-Embedding-2B"}]}}
    embedder = start(Embedder(pages=root))
    connect(embedder).encode_images([noise(1)])
    assert all(body["messages"][0]["role"] == "system" for body in embedder.asked)


def test_a_key_is_sent_and_never_shown(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDSCOPE_API_KEY", "sk-secret-1")
    embedder = start(Embedder(reply=lambda n, body: (400, {}, {"error": "bad key sk-secret-1"})))
    with pytest.raises(LMMRequestError) as caught:
        connect(embedder).encode_query(QueryInputs(QUERY))
    assert "sk-secret-1" not in str(caught.value)
    assert {headers["authorization"] for headers in embedder.headers} == {"Bearer sk-secret-1"}


@pytest.mark.parametrize("name", ["http://localhost:8000", "openai:http://localhost:8000#", "openai:nowhere#m"])
def test_an_address_without_a_model_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="write"):
        load_encoder(name)


def test_an_encoder_is_loaded_by_its_address(start: Start) -> None:
    embedder = start(Embedder())
    for name in (f"{embedder.url}#{MODEL}", f"openai:{embedder.url}/v1#{MODEL}"):
        assert load_encoder(name).dim == DIM
