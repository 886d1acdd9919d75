"""Rerankers in this process: logits and one sigmoid, pictures and texts, instructions, faults, and refusals."""

from __future__ import annotations

import math
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PILImage

from fieldscope.core.errors import ConfigError
from fieldscope.retrieval.cross_encoder import CrossEncoderScorer
from fieldscope.retrieval.encoder import QueryInputs
from fieldscope.retrieval.scorer import SCORERS, Document, ExplainingScorer
from tests.retrieval.tiny_models import change_json, list_modules, make_clip, make_text_reranker
from tests.vllm.tiny_checkpoints import make

RED, BLUE = (PILImage.new("RGB", (64, 96), color) for color in ("red", "blue"))
QUERY = QueryInputs("a red crab")


@pytest.fixture(scope="module")
def qwen_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("qwen3-vl-reranker", tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def qwen(qwen_folder: Path) -> CrossEncoderScorer:
    scorer = SCORERS.load("path")(str(qwen_folder), no_encoder)
    assert isinstance(scorer, CrossEncoderScorer)
    return scorer


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_text_reranker(tmp_path_factory.mktemp("texts"))


def no_encoder() -> Any:
    raise AssertionError("a reranker needs no encoder")


def test_a_document_has_its_score_in_any_order_and_company(qwen: CrossEncoderScorer) -> None:
    documents: list[Document] = [RED, BLUE, "a crab", "a fish on the beach"]
    scores = qwen.score(QUERY, documents)
    assert scores[::-1] == pytest.approx(qwen.score(QUERY, documents[::-1]), abs=1e-6)
    assert scores == pytest.approx([qwen.score(QUERY, [document])[0] for document in documents], abs=1e-5)
    assert len(set(scores)) == len(documents)
    assert qwen.score(QUERY, []) == []


def test_the_sigmoid_is_taken_once_and_logits_are_the_librarys(qwen: CrossEncoderScorer, qwen_folder: Path) -> None:
    import torch
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(qwen_folder), device="cpu", model_kwargs={"dtype": "float32"})
    expected = model.predict([("a red crab", RED), ("a red crab", BLUE)], activation_fn=torch.nn.Identity()).tolist()
    logits = qwen.logits(QUERY, [RED, BLUE])
    assert logits == pytest.approx(expected, abs=1e-5)
    assert qwen.score(QUERY, [RED, BLUE]) == pytest.approx([1 / (1 + math.exp(-logit)) for logit in expected], abs=1e-6)


def test_the_checkpoints_own_activation_changes_nothing(text_folder: Path, tmp_path: Path) -> None:
    scores = CrossEncoderScorer.load(text_folder).score(QUERY, ["red crab", "blue fish in rain"])
    copy = shutil.copytree(text_folder, tmp_path / "copy")
    change_json(copy / "config.json", sentence_transformers={"activation_fn": "torch.nn.modules.linear.Identity"})
    assert CrossEncoderScorer.load(copy).score(QUERY, ["red crab", "blue fish in rain"]) == scores
    assert all(score is not None and 0 < score < 1 for score in scores)


def test_the_query_is_its_words_its_picture_and_an_instruction(qwen: CrossEncoderScorer) -> None:
    queries = [
        QUERY,
        QueryInputs("a red crab", instruction="Find what lies on snow."),
        QueryInputs("a red crab", RED),
        QueryInputs("a red crab", BLUE),
        QueryInputs("", BLUE),
    ]
    logits = [qwen.logits(query, [RED])[0] for query in queries]
    assert len(set(logits)) == len(queries)


def test_words_that_look_like_an_address_are_read_and_not_fetched(qwen: CrossEncoderScorer, tmp_path: Path) -> None:
    file = tmp_path / "secret.png"
    RED.save(file)
    of_the_picture, *others = qwen.logits(
        QUERY, [RED, "https://example.org/a.jpg", str(file), "data:image/png;base64,AA"]
    )
    assert None not in others and of_the_picture not in others
    assert qwen.logits(QueryInputs("https://example.org/a.jpg"), [RED]) != [None]


def test_a_document_that_fails_alone_has_no_score(qwen: CrossEncoderScorer) -> None:
    empty = PILImage.new("RGB", (1, 4000))  # the model's processor refuses these proportions
    scores = qwen.score(QUERY, [RED, empty, BLUE])
    assert scores[1] is None
    assert [scores[0], scores[2]] == pytest.approx(qwen.score(QUERY, [RED, BLUE]), abs=1e-5)
    assert isinstance(qwen, ExplainingScorer)
    [judged] = qwen.ask(QUERY, [empty])
    assert judged.value is None and "the model failed (absolute aspect ratio" in (judged.error or "")


def test_a_score_that_is_no_number_is_none(text_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(text_folder, tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    weights["classifier.bias"].fill_(math.nan)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert CrossEncoderScorer.load(copy).score(QUERY, ["red crab", "fish"]) == [None, None]


def test_queries_from_many_threads(qwen: CrossEncoderScorer) -> None:
    queries = [QueryInputs("red crab " * (1 + number)) for number in range(8)]
    expected = [qwen.score(query, [RED])[0] for query in queries]
    with ThreadPoolExecutor(4) as pool:
        assert [one[0] for one in pool.map(lambda query: qwen.score(query, [RED]), queries)] == pytest.approx(expected)


def test_a_model_for_texts_refuses_pictures_and_instructions(text_folder: Path) -> None:
    scorer = CrossEncoderScorer.load(text_folder)
    assert len(set(scorer.score(QUERY, ["red crab", "blue fish"]))) == 2
    for query, document, reason in (
        (QUERY, RED, "reads texts only; name a scorer that takes pictures"),
        (QueryInputs("", RED), "a crab", "reads texts only"),
        (QueryInputs("a crab", instruction="Find it."), "a crab", "takes no instruction"),
    ):
        with pytest.raises(ConfigError, match=reason):
            scorer.score(query, [document])


def test_an_instruction_that_the_template_does_not_show_is_refused(qwen_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(qwen_folder, tmp_path / "copy")
    template = (copy / "chat_template.jinja").read_text()
    assert "{{ ns.instruct }}" in template
    (copy / "chat_template.jinja").write_text(template.replace("{{ ns.instruct }}", "Find it."))
    scorer = CrossEncoderScorer.load(copy)
    assert scorer.score(QUERY, [RED]) != [None]
    with pytest.raises(ConfigError, match="takes no instruction"):
        scorer.score(QueryInputs("a crab", instruction="Find it."), [RED])


def test_the_fingerprint_is_the_model_and_not_its_precision(
    qwen: CrossEncoderScorer, qwen_folder: Path, text_folder: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(qwen_folder, tmp_path / "copy")
    change_json(copy / "config.json", dtype="bfloat16")
    assert CrossEncoderScorer.load(copy).fingerprint == qwen.fingerprint
    change_json(copy / "1_LogitScore" / "config.json", true_token_id=5)
    fingerprints = {CrossEncoderScorer.load(folder).fingerprint for folder in (copy, text_folder)}
    assert len(fingerprints | {qwen.fingerprint}) == 3


def test_what_is_no_reranker_is_refused(qwen_folder: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(qwen_folder, tmp_path / "bare")
    (bare / "modules.json").unlink()
    encoder = list_modules(make_clip(tmp_path / "encoder"), "SentenceTransformer", ("text", "image"))
    for folder, reason in (
        (bare, "it has no modules.json, and its config.json names Qwen3VLForConditionalGeneration"),
        (encoder, "is a SentenceTransformer and no reranker; name it as the encoder"),
        (make_text_reranker(tmp_path / "labels", labels=3), "gives 3 labels and no score"),
        (tmp_path / "nowhere", "is no folder"),
    ):
        with pytest.raises(ConfigError, match=reason):
            SCORERS.load("path")(str(folder), no_encoder)
    headless = shutil.copytree(make_text_reranker(tmp_path / "texts"), tmp_path / "headless")
    from safetensors.torch import load_file, save_file

    weights = {
        name: tensor for name, tensor in load_file(headless / "model.safetensors").items() if "class" not in name
    }
    save_file(weights, headless / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"lacks weights of BertForSequenceClassification, classifier\.bias"):
        SCORERS.load("path")(str(headless), no_encoder)
