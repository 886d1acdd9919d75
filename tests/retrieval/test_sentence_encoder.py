"""Encoders of sentence-transformers: pictures and words together, instructions, prompts, padding, and refusals."""

from __future__ import annotations

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from fieldscope.core.errors import ConfigError
from fieldscope.retrieval.encoder import QueryInputs, load_encoder
from fieldscope.retrieval.sentence_encoder import SentenceEncoder
from fieldscope.retrieval.transformers_clip import TransformersClip
from tests.retrieval.tiny_models import change_json, list_modules, make_clip, make_siglip, write_json
from tests.vllm.tiny_checkpoints import make

RED, BLUE = (PILImage.new("RGB", (64, 96), color) for color in ("red", "blue"))
PROMPT = "Instruct: Given a web search query, retrieve passages\nQuery: "


@pytest.fixture(scope="module")
def qwen_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("qwen3-vl-embedding", tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def qwen(qwen_folder: Path) -> SentenceEncoder:
    encoder = load_encoder(f"path:{qwen_folder}")
    assert isinstance(encoder, SentenceEncoder)
    return encoder


@pytest.fixture(scope="module")
def clip_folder_of_the_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return list_modules(make_clip(tmp_path_factory.mktemp("clip")), "SentenceTransformer", ("text", "image"))


def test_pictures_words_and_instructions_each_change_the_vector(qwen: SentenceEncoder) -> None:
    assert qwen.uses == {"text", "image", "instruction"}
    queries = [
        QueryInputs("on snow"),
        QueryInputs("on snow", instruction="Find the same animal."),
        QueryInputs("on snow", RED),
        QueryInputs("on snow", BLUE),
        QueryInputs("on sand", RED),
        QueryInputs("", RED),
    ]
    vectors = np.stack([qwen.encode_query(query) for query in queries])
    assert vectors.dtype == np.float32 and vectors.shape == (len(queries), qwen.dim)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    closest = (vectors @ vectors.T - np.eye(len(queries))).max()
    assert closest < 0.9999


def test_a_picture_has_one_vector_alone_and_in_a_batch(qwen: SentenceEncoder) -> None:
    images = [RED, BLUE, PILImage.new("RGB", (128, 64), "teal")]
    together = qwen.encode_images(images)
    alone = np.concatenate([qwen.encode_images([image]) for image in images])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert qwen.encode_images([]).shape == (0, qwen.dim)


def test_vectors_are_those_of_the_library(qwen: SentenceEncoder, qwen_folder: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(qwen_folder), device="cpu", model_kwargs={"dtype": "float32"})
    np.testing.assert_allclose(qwen.encode_images([BLUE])[0], model.encode_document(BLUE), atol=1e-6)
    expected = model.encode_query({"image": RED, "text": "on snow"}, prompt="Find it.")
    ours = qwen.encode_query(QueryInputs("on snow", RED, "Find it."))
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_words_that_look_like_an_address_are_read_and_not_fetched(qwen: SentenceEncoder, tmp_path: Path) -> None:
    file = tmp_path / "secret.png"
    RED.save(file)
    of_the_picture = qwen.encode_query(QueryInputs("", RED))
    for text in ("https://example.org/a.jpg", str(file)):  # a fetch would raise: tests reach this machine only
        assert float(qwen.encode_query(QueryInputs(text)) @ of_the_picture) < 0.99


def test_queries_from_many_threads(qwen: SentenceEncoder) -> None:
    queries = [QueryInputs("red crab " * (1 + number)) for number in range(8)]
    expected = [qwen.encode_query(query) for query in queries]
    with ThreadPoolExecutor(4) as pool:
        for vector, alone in zip(pool.map(qwen.encode_query, queries), expected, strict=True):
            np.testing.assert_allclose(vector, alone, atol=1e-6)


def test_a_clip_takes_pictures_and_words_apart(clip_folder_of_the_library: Path) -> None:
    encoder = load_encoder(f"sentence-transformers:{clip_folder_of_the_library}")
    assert isinstance(encoder, SentenceEncoder) and encoder.uses == {"text"}
    same = TransformersClip.load(clip_folder_of_the_library)
    np.testing.assert_allclose(encoder.encode_images([RED]), same.encode_images([RED]), atol=1e-5)
    plain = encoder.encode_query(QueryInputs("red crab"))
    np.testing.assert_allclose(plain, same.encode_query(QueryInputs("red crab")), atol=1e-6)
    np.testing.assert_array_equal(encoder.encode_query(QueryInputs("red crab", instruction="ignored")), plain)
    with pytest.raises(ConfigError, match="the query has a reference image"):
        encoder.encode_query(QueryInputs("on snow", RED))


def test_siglips_texts_are_padded_unless_the_checkpoint_says_otherwise(tmp_path: Path) -> None:
    folder = list_modules(make_siglip(tmp_path / "siglip"), "SentenceTransformer", ("text", "image"))
    padded = SentenceEncoder.load(folder).encode_query(QueryInputs("two red crabs"))
    reference = TransformersClip.load(folder).encode_query(QueryInputs("two red crabs"))
    np.testing.assert_allclose(padded, reference, atol=1e-6)
    list_modules(folder, "SentenceTransformer", ("text", "image"), processing_kwargs={"text": {"padding": True}})
    assert float(SentenceEncoder.load(folder).encode_query(QueryInputs("two red crabs")) @ padded) < 0.99


@pytest.mark.parametrize(
    ("saved", "read"),
    [(PROMPT, "Instruct: the crab\nQuery: red fish"), ("query in rain: ", "the crab\nred fish")],
)
def test_an_instruction_takes_the_place_of_a_prompt(tmp_path: Path, saved: str, read: str) -> None:
    clip = make_clip(tmp_path / "clip")
    folder = list_modules(clip, "SentenceTransformer", ("text", "image"), prompts={"query": saved})
    encoder = SentenceEncoder.load(folder)
    assert encoder.uses == {"text", "instruction"}
    bare = TransformersClip.load(clip)
    instructed = encoder.encode_query(QueryInputs("red fish", instruction="the crab"))
    np.testing.assert_allclose(instructed, bare.encode_query(QueryInputs(read)), atol=1e-6)
    np.testing.assert_allclose(
        encoder.encode_query(QueryInputs("red fish")), bare.encode_query(QueryInputs(f"{saved}red fish")), atol=1e-6
    )


def test_a_template_that_refuses_the_system_has_no_place_for_an_instruction(qwen_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(qwen_folder, tmp_path / "copy")
    template = (copy / "chat_template.jinja").read_text()
    refusal = "{% if messages[0].role == 'system' %}{{ raise_exception('no system message') }}{% endif %}"
    (copy / "chat_template.jinja").write_text(refusal + template)
    encoder = SentenceEncoder.load(copy)
    assert encoder.uses == {"text", "image"}
    plain, instructed = (encoder.encode_query(QueryInputs("a crab", None, words)) for words in (None, "Find it."))
    np.testing.assert_array_equal(plain, instructed)


def test_the_fingerprint_is_all_files_of_the_model(qwen: SentenceEncoder, qwen_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(qwen_folder, tmp_path / "copy")
    change_json(copy / "config.json", dtype="bfloat16", transformers_version="9.9")
    assert SentenceEncoder.load(copy).fingerprint == qwen.fingerprint
    change_json(copy / "1_Pooling" / "config.json", pooling_mode="mean")
    changed = SentenceEncoder.load(copy).fingerprint
    (copy / "chat_template.jinja").write_text((qwen_folder / "chat_template.jinja").read_text() + " ")
    assert len({qwen.fingerprint, changed, SentenceEncoder.load(copy).fingerprint}) == 3


def test_code_and_pickles_that_come_with_a_model_are_refused(qwen_folder: Path, tmp_path: Path) -> None:
    remote = shutil.copytree(qwen_folder, tmp_path / "remote")
    change_json(
        remote / "config.json", model_type="mine", auto_map={"AutoConfig": "mine.Config", "AutoModel": "mine.Mine"}
    )
    (remote / "mine.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w')")
    module = shutil.copytree(qwen_folder, tmp_path / "module")
    write_json(module / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": "mine.Transformer"}])
    outside = shutil.copytree(qwen_folder, tmp_path / "outside")
    entry = {"idx": 0, "name": "0", "path": "../module", "type": "sentence_transformers.models.Transformer"}
    write_json(outside / "modules.json", [entry])
    pickled = shutil.copytree(qwen_folder, tmp_path / "pickled")
    dense = {
        "idx": 3,
        "name": "3",
        "path": "3_Dense",
        "type": "sentence_transformers.sentence_transformer.modules.Dense",
    }
    write_json(pickled / "modules.json", [entry | {"path": ""}, dense])
    (pickled / "3_Dense").mkdir()
    (pickled / "3_Dense" / "pytorch_model.bin").write_bytes(b"no matter")
    adapter = shutil.copytree(qwen_folder, tmp_path / "adapter")
    write_json(adapter / "adapter_config.json", {"base_model_name_or_path": "owner/model"})
    for folder, reason in (
        (remote, r"needs code of its own \(mine\.Config\), which Fieldscope never runs"),
        (module, r"needs code of its own \(mine\.Transformer\)"),
        (outside, "leads out of its folder"),
        (pickled, "3_Dense has its weights in pytorch_model.bin only"),
        (adapter, "holds an adapter without its model"),
    ):
        with pytest.raises(ConfigError, match=reason) as caught:
            load_encoder(f"path:{folder}")
        assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "owned").exists()


def test_what_makes_no_vectors_for_pictures_is_refused(qwen_folder: Path, tmp_path: Path) -> None:
    texts = list_modules(make_clip(tmp_path / "texts"), "SentenceTransformer", ("text",))
    reranker = list_modules(make_clip(tmp_path / "reranker"), "CrossEncoder", ("text", "image"))
    broken = shutil.copytree(qwen_folder, tmp_path / "broken")
    (broken / "modules.json").write_text("[")
    for folder, reason in (
        (texts, "encodes text only; give a model for pictures"),
        (reranker, "is a CrossEncoder, which makes no vectors for a first stage; name it as the scorer"),
        (broken, "can't be read as JSON"),
    ):
        with pytest.raises(ConfigError, match=reason):
            load_encoder(f"path:{folder}")


def test_without_the_extra_the_command_says_what_to_install(
    clip_folder_of_the_library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ConfigError, match=r"install it with pip install 'fieldscope\[encoders\]'"):
        load_encoder(f"path:{clip_folder_of_the_library}")


def test_a_checkpoint_that_lacks_weights_is_refused(clip_folder_of_the_library: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(clip_folder_of_the_library, tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"lacks weights of CLIPModel, text_projection\.weight"):
        load_encoder(f"path:{copy}")
