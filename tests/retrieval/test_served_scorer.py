"""Scorers over HTTP: which form a server takes, what is read of its answers, and what is never taken for a score."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fieldscope.core.errors import ConfigError, LMMConnectionError, LMMError, LMMRequestError, LMMServerError
from fieldscope.core.fingerprint import fingerprint_pixels
from fieldscope.core.image_encoding import ImageEncoding
from fieldscope.retrieval.encoder import QueryInputs
from fieldscope.retrieval.rerank_forms import Form, read_scores
from fieldscope.retrieval.scorer import Document
from fieldscope.retrieval.served_scorer import ServedScorer
from fieldscope.retrieval.server import ModelServer
from tests.retrieval.rerankers import (
    MODEL,
    Reranker,
    read_anything_as_text,
    read_jina,
    read_jina_base64,
    read_parts,
    read_text,
)

QUERY = QueryInputs("two owls at night")
Start = Any


def noise(seed: int, side: int = 24) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


@pytest.fixture
def start() -> Iterator[Start]:
    """`start(reranker)` serves it until the test ends."""
    with ExitStack() as stack:
        yield lambda reranker: stack.enter_context(reranker.serving())


def connect(reranker: Reranker, path: str = "", **options: Any) -> ServedScorer:
    server = ModelServer(reranker.url + path, MODEL, "--scorer", sleep=lambda seconds: None, **options)
    return ServedScorer(server)


def expected(reranker: Reranker, query: str, *documents: Document) -> list[float]:
    read = [d if isinstance(d, str) else f"image:{fingerprint_pixels(d)}" for d in documents]
    return [reranker.score(query, document) for document in read]


def old_vllm() -> Reranker:
    return Reranker(whole_list=True)


@pytest.mark.parametrize(
    ("reranker", "form"),
    [
        (Reranker(), "/v1/rerank parts"),
        (Reranker(paths=("/rerank",)), "/rerank parts"),
        (Reranker(paths=("/v2/rerank",)), "/v2/rerank parts"),
        (Reranker(paths=("/score",)), "/score parts"),
        (Reranker(paths=("/v1/score",)), "/v1/score parts"),
        (old_vllm(), "/v1/rerank parts-object"),
        (Reranker(paths=("/v1/rerank",), read=read_jina), "/v1/rerank jina"),
        (Reranker(paths=("/v1/rerank",), read=read_jina_base64), "/v1/rerank jina-base64"),
    ],
)
def test_pictures_and_texts_are_scored_in_the_form_that_the_server_takes(
    start: Start, reranker: Reranker, form: str
) -> None:
    scorer = connect(start(reranker))
    documents = [noise(1), "an owl", noise(2), "owls"]
    assert scorer.score(QUERY, documents) == expected(reranker, QUERY.text, *documents)
    assert scorer.form == form
    assert f"#{form}#" in scorer.fingerprint
    before = len(reranker.asked)
    scorer.score(QUERY, documents)
    assert len(reranker.asked) == before + 4  # nothing is found out twice
    scorer.close()


@pytest.mark.parametrize(
    ("path", "endpoint"), [("/v1", "/v1/rerank"), ("/v1/rerank", "/v1/rerank"), ("/score", "/score")]
)
def test_an_address_keeps_its_path(start: Start, path: str, endpoint: str) -> None:
    reranker = start(Reranker())
    scorer = connect(reranker, path)
    assert scorer.score(QUERY, ["an owl"]) == expected(reranker, QUERY.text, "an owl")
    assert {path for path, _ in reranker.asked} == {endpoint}


@pytest.mark.parametrize("path", ["/v2/rerank", ""])
def test_a_server_of_texts_refuses_pictures_in_plain_words(start: Start, path: str) -> None:
    reranker = start(Reranker(paths=("/v2/rerank",), read=read_text, tokens=None))
    scorer = connect(reranker, path)
    assert scorer.score(QUERY, ["an owl", "a crab"]) == expected(reranker, QUERY.text, "an owl", "a crab")
    assert scorer.form in ("rerank texts", "/v2/rerank texts")
    with pytest.raises(ConfigError, match="takes texts only"):
        scorer.score(QUERY, [noise(1)])
    with pytest.raises(ConfigError, match="takes texts only"):
        scorer.score(QueryInputs("owls", noise(1)), ["an owl"])


def test_a_server_that_reads_a_picture_s_letters_gets_none(start: Start) -> None:
    reranker = start(Reranker(read=read_anything_as_text))
    scorer = connect(reranker)
    with pytest.raises(ConfigError, match="takes texts only"):
        scorer.score(QUERY, [noise(1)])
    assert scorer.form == "/v1/rerank texts"


def test_no_picture_is_ever_a_string(start: Start) -> None:
    for read in (read_parts, read_jina, read_jina_base64, read_text, read_anything_as_text):
        reranker = start(Reranker(read=read))
        scorer = connect(reranker)
        with suppress(ConfigError):
            scorer.score(QueryInputs("", noise(3)), [noise(1)])
        for _, body in reranker.asked:
            documents = body.get("documents", body.get("text_2"))
            strings = [given for given in (body.get("query"), *documents) if isinstance(given, str)]
            assert not any("base64" in string or len(string) > 100 for string in strings)


def test_a_query_may_be_words_a_picture_or_both(start: Start) -> None:
    reranker = start(Reranker())
    scorer = connect(reranker)
    asked = noise(5)
    sha = f"image:{fingerprint_pixels(asked)}"
    for inputs, read in ((QUERY, QUERY.text), (QueryInputs("", asked), sha), (QueryInputs("by day", asked), None)):
        assert scorer.score(inputs, [noise(1)]) == expected(reranker, read or f"{sha} + by day", noise(1))


def test_jina_takes_one_of_both(start: Start) -> None:
    reranker = start(Reranker(paths=("/v1/rerank",), read=read_jina))
    scorer = connect(reranker)
    asked = noise(5)
    assert scorer.score(QueryInputs("", asked), ["an owl"]) == expected(
        reranker, f"image:{fingerprint_pixels(asked)}", "an owl"
    )
    with pytest.raises(ConfigError, match="and not both"):
        scorer.score(QueryInputs("by day", asked), ["an owl"])


def test_an_instruction_goes_where_there_is_a_field_for_it(start: Start) -> None:
    reranker = start(Reranker())
    connect(reranker).score(QueryInputs("owls", instruction="find birds"), ["an owl"])
    assert reranker.asked[-1][1]["instruction"] == "find birds"
    jina = start(Reranker(read=read_jina))
    with pytest.raises(ConfigError, match="no instruction"):
        connect(jina).score(QueryInputs("owls", instruction="find birds"), ["an owl"])


def test_an_instruction_that_the_server_does_not_read_is_refused(start: Start) -> None:
    reranker = start(Reranker())
    reranker.reply = lambda number, path, body: (
        reranker.answer(path, {name: value for name, value in body.items() if name != "instruction"})
        if "instruction" in body
        else None
    )
    with pytest.raises(ConfigError, match="does not read the instruction"):
        connect(reranker).score(QueryInputs("owls", instruction="find birds"), ["an owl"])


def test_a_document_is_alone_in_its_request(start: Start) -> None:
    reranker = start(Reranker())
    scorer = connect(reranker)
    scorer.score(QUERY, [noise(n) for n in range(9)])
    assert all(len(body["documents"]) == 1 for _, body in reranker.asked)


def test_pictures_are_scaled_and_encoded_as_the_settings_say(start: Start) -> None:
    reranker = start(Reranker())
    server = ModelServer(reranker.url, MODEL, "--scorer")
    scorer = ServedScorer(server, ImageEncoding("jpeg", max_side=150))
    scorer.score(QUERY, [noise(1, 200)])
    url = reranker.asked[-1][1]["documents"][0]["content"][0]["image_url"]["url"]
    assert url.startswith("data:image/jpeg;base64,")
    assert "#jpeg95<=150#" in scorer.fingerprint
    assert ServedScorer(server).fingerprint != scorer.fingerprint


RESULT = {"index": 0, "relevance_score": 0.75}


@pytest.mark.parametrize(
    "results",
    [
        [],
        [RESULT, RESULT],
        [{"index": 1, "relevance_score": 0.75}],
        [{"index": -1, "relevance_score": 0.75}],
        [{"index": True, "relevance_score": 0.75}],
        [{"index": "0", "relevance_score": 0.75}],
        [{"relevance_score": 0.75}],
        [{"index": 0, "relevance_score": None}],
        [{"index": 0, "relevance_score": "0.75"}],
        [{"index": 0, "relevance_score": True}],
        [{"index": 0}],
        [{"index": 0, "relevance_score": float("nan")}],
        [{"index": 0, "relevance_score": float("inf")}],
        [{"index": 0, "relevance_score": float("-inf")}],
        ["0.75"],
        {"0": 0.75},
        None,
    ],
)
def test_what_is_no_score_is_none_and_says_why(start: Start, results: Any) -> None:
    reranker = start(Reranker())
    scorer = connect(reranker)
    scorer.find_form()
    bad = noise(2)

    def reply(number: int, path: str, body: Any) -> Any:
        seen = read_parts(body["documents"][0])
        return (200, {}, {"results": results}) if seen.endswith(fingerprint_pixels(bad)) else None

    reranker.reply = reply
    documents = [noise(1), bad, noise(3)]
    good = expected(reranker, QUERY.text, *documents)
    assert scorer.score(QUERY, documents) == [good[0], None, good[2]]
    pairs = scorer.ask(QUERY, documents)
    assert pairs[1].error and pairs[0].error is None
    assert pairs[0].tokens == 5 + 64


@pytest.mark.parametrize(
    ("indexes", "scores"),
    [
        ([2, 0, 1], [0.0, 1.0, 2.0]),
        ([2, 0], [0.0, None, 2.0]),
        ([0, 0, 2], [None, None, 2.0]),
    ],
)
def test_scores_belong_to_their_indexes(indexes: list[int], scores: list[float | None]) -> None:
    results = [{"index": index, "relevance_score": float(index)} for index in indexes]
    assert [pair.value for pair in read_scores({"results": results}, 3)] == scores


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_document_that_the_server_refuses_does_not_take_the_others_along(start: Start, status: int) -> None:
    reranker = start(Reranker())
    scorer = connect(reranker)
    scorer.find_form()
    reranker.reply = lambda n, path, body: (
        (status, {}, {"error": {"message": "the prompt is longer than the maximum model length of 1024"}})
        if body["documents"] == ["too long"]
        else None
    )
    pairs = scorer.ask(QUERY, ["an owl", "too long"])
    assert pairs[0].value is not None and pairs[1].value is None
    assert "maximum model length" in (pairs[1].error or "")


def test_what_can_pass_is_tried_again(start: Start) -> None:
    reranker = start(Reranker())
    scorer = connect(reranker)
    scorer.find_form()
    first = len(reranker.asked)
    reranker.reply = lambda n, path, body: (503, {"Retry-After": "0"}, {"error": "busy"}) if n < first + 2 else None
    assert scorer.score(QUERY, ["an owl"]) == expected(reranker, QUERY.text, "an owl")
    assert len(reranker.asked) == first + 3


@pytest.mark.parametrize(
    ("status", "error"), [(401, LMMRequestError), (403, LMMRequestError), (404, LMMRequestError), (500, LMMServerError)]
)
def test_a_server_that_refuses_everything_is_an_error(
    start: Start, status: int, error: type[LMMError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FIELDSCOPE_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    reranker = start(Reranker())
    scorer = connect(reranker, attempts=2)
    scorer.find_form()
    reranker.reply = lambda n, path, body: (status, {}, {"detail": "no"})
    with pytest.raises(error) as caught:
        scorer.score(QUERY, ["an owl", "a crab", noise(1)])
    if status in (401, 403):
        assert "FIELDSCOPE_API_KEY" in str(caught.value)


def test_nobody_there(start: Start) -> None:
    with Reranker().serving() as reranker:
        scorer = connect(reranker, attempts=2)
    with pytest.raises(LMMConnectionError, match="start the server or check --scorer"):
        scorer.score(QUERY, ["an owl"])


def test_a_server_without_rerankers(start: Start) -> None:
    with pytest.raises(LMMRequestError, match=r"scores no documents.*check the address and the model in --scorer"):
        connect(start(Reranker(paths=()))).score(QUERY, ["an owl"])


def test_another_model(start: Start) -> None:
    reranker = start(Reranker())
    scorer = ServedScorer(ModelServer(reranker.url, "other", "--scorer"))
    with pytest.raises(LMMRequestError, match=f"serves {MODEL}, not other"):
        scorer.base()


def test_the_fingerprint_holds_what_the_server_tells(start: Start) -> None:
    def base(pages: dict[str, Any]) -> str:
        return connect(start(Reranker(pages=pages))).fingerprint

    usual = base({})
    assert usual.startswith(f"scorer:{MODEL}#jpeg95#/v1/rerank parts#root=")
    assert base({"/version": {"version": "0.33.0"}}) != usual
    other = {"data": [{"id": MODEL, "owned_by": "vllm", "root": "/models/other"}]}
    assert base({"/v1/models": other}) != usual
    assert base({"/v1/models": None, "/version": None}) == f"scorer:{MODEL}#jpeg95#/v1/rerank parts"


def test_a_key_is_sent_and_never_shown(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDSCOPE_API_KEY", "sk-secret")
    reranker = start(Reranker())
    scorer = connect(reranker)
    scorer.score(QUERY, ["an owl"])
    assert {headers["authorization"] for headers in reranker.headers} == {"Bearer sk-secret"}
    reranker.reply = lambda n, path, body: (401, {}, {"detail": "sk-secret is no key"})
    with pytest.raises(LMMRequestError) as caught:
        scorer.score(QUERY, ["an owl"])
    assert "sk-secret" not in str(caught.value)
    silent = connect(reranker, api_key="")
    with pytest.raises(LMMRequestError):
        silent.find_form()
    assert "authorization" not in reranker.headers[-1]


def test_a_form_that_was_found_before_is_used(start: Start) -> None:
    reranker = start(Reranker())
    scorer = connect(reranker)
    assert not scorer.use_form("/v9/rerank parts") and scorer.form is None
    assert scorer.use_form("/score parts")
    assert scorer.score(QUERY, ["an owl"]) == expected(reranker, QUERY.text, "an owl")
    assert [path for path, _ in reranker.asked] == ["/score"]


def test_a_server_that_cannot_tell_pictures_apart_is_noticed(start: Start) -> None:
    scorer = connect(start(Reranker(score=lambda query, document: 0.5)))
    scorer.find_form()
    assert scorer.found is not None and not scorer.found.tells_apart and scorer.found.counts_tokens
    seeing = connect(start(Reranker(tokens=None)))
    seeing.find_form()
    assert seeing.found is not None and seeing.found.tells_apart and not seeing.found.counts_tokens


def test_several_documents_a_request_are_another_fingerprint(start: Start) -> None:
    reranker = start(Reranker())
    server = ModelServer(reranker.url, MODEL, "--scorer")
    scorer = ServedScorer(server, per_request=4)
    documents: list[Document] = [noise(n) for n in range(6)]
    assert scorer.score(QUERY, documents) == expected(reranker, QUERY.text, *documents)
    assert sorted(len(body["documents"]) for _, body in reranker.asked[-2:]) == [2, 4]
    assert "parts*4#" in scorer.fingerprint


@pytest.mark.parametrize("argument", ["http://localhost:1", "http://localhost:1#", "localhost#m", "http://u:p@h#m"])
def test_an_argument_that_names_no_model(argument: str) -> None:
    with pytest.raises(ConfigError):
        ServedScorer.open(argument, lambda: pytest.fail("no encoder is needed"))


def test_a_body_is_plain_json() -> None:
    body = Form("/score", "score", "parts").body("m", QUERY, [noise(1), "x"], lambda document: "data:image/png;base64,")
    assert json.loads(json.dumps(body)) == body and set(body) == {"model", "text_1", "text_2"}


def test_a_picture_is_encoded_once(start: Start) -> None:
    encoded: list[tuple[int, int]] = []

    class Counting(ImageEncoding):
        def data_url(self, image: Image.Image) -> str:
            encoded.append(image.size)
            return super().data_url(image)

    reranker = start(Reranker())
    scorer = ServedScorer(ModelServer(reranker.url, MODEL, "--scorer"), Counting())
    scorer.find_form()
    encoded.clear()
    query = QueryInputs("", noise(9, 31))
    documents = [noise(n, 20 + n) for n in range(8)]
    scorer.score(query, documents)
    scorer.score(query, documents)
    assert sorted(encoded) == [*((20 + n, 20 + n) for n in range(8)), (31, 31)]


def test_letters_that_are_cut_off_are_noticed_too(start: Start) -> None:
    reranker = start(Reranker(read=read_anything_as_text, tokens=lambda read: min((len(read) + 3) // 4, 512)))
    scorer = connect(reranker)
    assert scorer.find_form() == "/v1/rerank texts"


def test_a_server_that_is_still_loading_is_waited_for(start: Start) -> None:
    reranker = start(Reranker())
    reranker.reply = lambda n, path, body: (503, {"Retry-After": "0"}, {"error": "loading"}) if n < 3 else None
    assert connect(reranker).find_form() == "/v1/rerank parts"


def test_a_server_that_fails_at_pictures_takes_texts(start: Start) -> None:
    reranker = start(Reranker())
    reranker.reply = lambda n, path, body: (500, {}, {"error": "unexpected"}) if "image" in json.dumps(body) else None
    scorer = connect(reranker)
    assert scorer.find_form() == "/v1/rerank texts"
    assert len(reranker.asked) == 4 * 5 + 1  # nothing is repeated
