import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fieldscope.agent.lmm.base import ImagePart, LMMRequest, Message, TextPart
from fieldscope.agent.lmm.lanes import Lanes
from fieldscope.agent.lmm.local import LocalLMM
from fieldscope.agent.lmm.yes_no import p_yes
from fieldscope.core.errors import BrokenImageError, ConfigError, LMMRequestError, LMMResponseError


@pytest.fixture
async def lmm(tiny_llava, pictures) -> AsyncIterator[LocalLMM]:
    made = LocalLMM.from_path(tiny_llava, pictures, device="cpu", dtype="float32")
    yield made
    await made.aclose()


def batches_of(lmm: LocalLMM) -> list[int]:
    """From now on, the number of prompts of each run of the model."""
    sizes: list[int] = []
    produce = lmm._produce

    def counted(prompts):
        sizes.append(len(prompts))
        return produce(prompts)

    lmm._produce = counted
    return sizes


def assert_same(one, other) -> None:
    assert one.text == other.text
    assert one.usage == other.usage and one.finish_reason == other.finish_reason
    assert [lp.token for lp in one.answer_logprobs] == [lp.token for lp in other.answer_logprobs]
    for mine, theirs in zip(one.answer_logprobs, other.answer_logprobs, strict=True):
        assert mine.logprob == pytest.approx(theirs.logprob, abs=1e-4)


def by_hand(folder: Path, text: str, pictures, *image_ids: str) -> torch.Tensor:
    """The log-probabilities of the next token, as transformers' own documentation computes them."""
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    processor = AutoProcessor.from_pretrained(folder)
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype="float32").eval()
    content = [{"type": "image"} for _ in image_ids] + [{"type": "text", "text": text}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    shown = [pictures.pictures[image_id] for image_id in image_ids]
    inputs = processor(images=shown or None, text=prompt, return_tensors="pt")
    with torch.no_grad():
        return model(**inputs).logits[0, -1].log_softmax(-1)


@pytest.mark.parametrize("images", [[], ["p0"], ["p1", "p2", "p3"]])
@pytest.mark.parametrize("checkpoint", ["tiny_llava", "tiny_llava_without_cls"])
async def test_one_token_is_what_transformers_says(request, checkpoint, pictures, ask, images) -> None:
    folder = request.getfixturevalue(checkpoint)
    expected = by_hand(folder, "is it red ?", pictures, *images)
    lmm = LocalLMM.from_path(folder, pictures, device="cpu", dtype="float32")
    response = await lmm.generate(ask("is it red ?", *images, top_logprobs=20))
    best = expected.topk(20)
    assert [lp.logprob for lp in response.answer_logprobs] == pytest.approx(best.values.tolist(), abs=1e-4)
    tokens = lmm._tokenizer.convert_ids_to_tokens(best.indices.tolist())
    assert [lp.token for lp in response.answer_logprobs] == tokens
    assert response.text == ("" if tokens[0].startswith("<") else tokens[0])
    assert response.usage.completion_tokens == 1 and response.latency > 0
    patches = 4 if checkpoint == "tiny_llava_without_cls" else 5
    assert response.usage.prompt_tokens == patches * len(images) + len(
        ["<user>", "is", "it", "red", "?", "<assistant>"]
    )
    await lmm.aclose()


async def test_the_picture_and_the_words_matter(lmm, ask) -> None:
    readings = [
        (await lmm.generate(ask(text, image, top_logprobs=20))).answer_logprobs[0].logprob
        for text, image in [("is it red ?", "p0"), ("is it red ?", "p1"), ("is it blue ?", "p0")]
    ]
    assert len({round(value, 3) for value in readings}) == 3


async def test_together_or_alone_the_answers_are_the_same(lmm, ask) -> None:
    texts = ["red ?", "is it a red crab ?", "is it a fox ?", "it is", "one two three four five", "yes no"]
    requests = [
        *(ask(text, f"p{n}", top_logprobs=20) for n, text in enumerate(texts)),
        *(ask(text, "p0", "p1", top_logprobs=5) for text in texts[:3]),
        *(ask(text, top_logprobs=20) for text in [*texts[:3], "is it a red crab ? " * 20]),
        *(ask(text, f"p{n}", top_logprobs=20, max_tokens=6) for n, text in enumerate(texts)),
    ]
    alone = [await lmm.generate(request) for request in requests]
    sizes = batches_of(lmm)
    together = await asyncio.gather(*(lmm.generate(request) for request in requests))
    assert sizes == [6, 3, 3, 1, 6]
    for one, other in zip(alone, together, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("max_tokens", [1, 4])
async def test_a_picture_shown_often_goes_through_the_vision_tower_once(
    tiny_llava, lmm, ask, pictures, max_tokens: int
) -> None:
    questions = [ask(text, "p0", top_logprobs=20, max_tokens=max_tokens) for text in ("is it red ?", "is it blue ?")]
    questions.append(ask("is a crab ?", "p1", top_logprobs=20, max_tokens=max_tokens))
    alone = [await lmm.generate(request) for request in questions]
    pictures.loads.clear()
    fresh = LocalLMM.from_path(tiny_llava, pictures, device="cpu", dtype="float32")
    seen: list[int] = []
    tower = fresh._model.model.vision_tower
    tower.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    together = await asyncio.gather(*(fresh.generate(request) for request in questions))
    await fresh.aclose()
    assert sum(seen) == 2 and pictures.loads == {"p0": 1, "p1": 1}
    for one, other in zip(alone, together, strict=True):
        assert_same(one, other)


async def test_the_last_layer_works_only_where_an_answer_is_read(lmm, ask) -> None:
    rows: dict[str, list[int]] = {"first": [], "last": []}
    layers = lmm._model.get_decoder().layers
    for name, layer in zip(rows, (layers[0], layers[-1]), strict=True):
        layer.mlp.gate_proj.register_forward_pre_hook(
            lambda module, inputs, name=name: rows[name].append(inputs[0].shape[:-1].numel())
        )
    questions = [ask(text, "p0", top_logprobs=20) for text in ("is it red ?", "is a crab ?")]
    await asyncio.gather(*(lmm.generate(request) for request in questions))
    assert sum(rows["last"]) == len(questions)
    assert sum(rows["first"]) > 4 * len(questions)


async def test_pictures_that_are_read_side_by_side_get_the_answers_that_they_get_alone(
    tiny_llava, pictures, ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    lmm = LocalLMM.from_path(tiny_llava, pictures, device="cpu", dtype="float32")
    requests = [ask(text, f"p{n}", top_logprobs=20) for n in range(4) for text in ("is it red ?", "is a crab ?")]
    alone = [await lmm.generate(request) for request in requests]
    await lmm.aclose()
    monkeypatch.setattr(Lanes, "number", 3)
    side_by_side = LocalLMM.from_path(tiny_llava, pictures, device="cpu", dtype="float32")
    rows: list[int] = []
    side_by_side._model.model.vision_tower.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    for _ in range(2):  # first what is unread, and then from what was kept
        together = await asyncio.gather(*(side_by_side.generate(request) for request in requests))
        for one, other in zip(alone, together, strict=True):
            assert_same(one, other)
    assert sum(rows) == 4 and len(rows) > 1
    await side_by_side.aclose()


async def test_batches_are_no_larger_than_allowed(tiny_llava, pictures, ask) -> None:
    lmm = LocalLMM.from_path(tiny_llava, pictures, device="cpu", dtype="float32", max_batch=2)
    sizes = batches_of(lmm)
    await asyncio.gather(*(lmm.generate(ask("is it red ?", f"p{n}")) for n in range(5)))
    assert sizes == [2, 2, 1]
    await lmm.aclose()


async def test_a_long_answer_is_greedy_and_ends(lmm, tiny_llava, pictures, ask) -> None:
    response = await lmm.generate(ask("is it red ?", "p0", max_tokens=8, top_logprobs=20))
    expected = by_hand(tiny_llava, "is it red ?", pictures, "p0")
    first = await lmm.generate(ask("is it red ?", "p0", top_logprobs=20))
    assert response.answer_logprobs[0].logprob == pytest.approx(expected.max().item(), abs=1e-4)
    assert response.text.startswith(first.text)
    assert response.usage.completion_tokens <= 8
    assert (response.finish_reason == "stop") == (response.usage.completion_tokens < 8)
    again = await lmm.generate(ask("is it red ?", "p0", max_tokens=8, top_logprobs=20, seed=9))
    assert again.text == response.text


async def test_every_token_of_an_answer_has_its_alternatives_where_they_are_asked_for(lmm, ask) -> None:
    request = ask("is it red ?", "p0", max_tokens=6, top_logprobs=5)
    with torch.inference_mode():
        produced = lmm._produce([lmm._chats.render(request)])
    response = await lmm.generate(request.model_copy(update={"logprobs_of": "all"}))
    ids = lmm._cut(produced.ids[0])[0]
    assert "".join(token.text for token in response.tokens) == lmm._tokenizer.decode(ids)
    for token, step, written in zip(response.tokens, produced.logits, ids, strict=False):
        scores = step[0].log_softmax(-1)
        best = scores.topk(5).values.tolist()
        assert [each.logprob for each in token.alternatives] == pytest.approx(best, abs=1e-4)
        assert token.logprob == pytest.approx(scores[written].item(), abs=1e-4)
    assert (await lmm.generate(request)).tokens == ()


async def test_an_end_token_ends_each_answer_of_a_batch_by_itself(lmm, ask) -> None:
    """Make the third token of one answer an end token: that answer stops there, others go on until they have it."""
    requests = [ask("is it red ?", f"p{n}", max_tokens=12) for n in range(6)]
    with torch.inference_mode():
        produced = lmm._produce([lmm._chats.render(request) for request in requests]).ids
    rows = [lmm._cut(row)[0] for row in produced]
    end = rows[0][2]
    lmm._ends = [*lmm._ends, end]
    responses = await asyncio.gather(*(lmm.generate(request) for request in requests))
    lengths = [row.index(end) + 1 if end in row else len(row) for row in rows]
    assert [response.usage.completion_tokens for response in responses] == lengths
    assert len(set(lengths)) > 1, "the model is too dull to show anything"
    for row, length, response in zip(rows, lengths, responses, strict=True):
        assert response.text == lmm._tokenizer.decode(row[:length], skip_special_tokens=True)
        assert response.finish_reason == ("stop" if row[length - 1] in lmm._ends else "length")


async def test_the_answers_position_follows_the_marker(lmm, ask) -> None:
    """The tiny model says what it says; its first two tokens are taken for the marker."""
    request = ask("is it red ?", "p0", max_tokens=8, top_logprobs=20)
    with torch.inference_mode():
        tokens = lmm._produce([lmm._chats.render(request)])
    marker = lmm._tokenizer.decode(tokens.ids[0][:2])
    plain = await lmm.generate(request)
    marked = await lmm.generate(request.model_copy(update={"answer_after": marker}))
    assert marked.text == plain.text
    for response, step in ((plain, 0), (marked, 2)):
        expected = tokens.logits[step][0].log_softmax(-1).topk(20).values.tolist()
        assert [lp.logprob for lp in response.answer_logprobs] == pytest.approx(expected, abs=1e-4)
    missing = await lmm.generate(request.model_copy(update={"answer_after": "nowhere"}))
    assert missing.answer_logprobs == () and p_yes(missing.answer_logprobs).state == "unknown"


async def test_sampling_follows_the_seed_whatever_the_company(lmm, ask) -> None:
    def sampled(seed: int, sample: int = 0) -> LMMRequest:
        return ask("is it red ?", "p0", max_tokens=6, temperature=3.0, seed=seed, sample=sample)

    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    alone = [(await lmm.generate(sampled(seed))).text for seed in range(6)]
    together = await asyncio.gather(*(lmm.generate(sampled(seed)) for seed in range(6)))
    assert [response.text for response in together] == alone
    assert len(set(alone)) > 1
    assert len({(await lmm.generate(sampled(0, sample=n))).text for n in range(6)}) > 1
    assert torch.equal(torch.random.get_rng_state(), state)


async def test_one_sampled_token_is_sampled_and_its_log_probabilities_are_the_models(lmm, ask) -> None:
    greedy = await lmm.generate(ask("is it red ?", "p0", top_logprobs=20))
    drawn = [
        await lmm.generate(ask("is it red ?", "p0", top_logprobs=20, temperature=50.0, seed=seed)) for seed in range(8)
    ]
    assert len({response.text for response in drawn}) > 1
    for response in drawn:
        assert [lp.logprob for lp in response.answer_logprobs] == pytest.approx(
            [lp.logprob for lp in greedy.answer_logprobs], abs=1e-4
        )


async def test_an_unreadable_image_fails_its_own_request_only(lmm, ask) -> None:
    broken = LMMRequest(
        messages=(Message(content=(ImagePart(image_id="gone", sha256="0"), TextPart(text="is it red ?"))),)
    )
    results = await asyncio.gather(
        lmm.generate(ask("is it red ?", "p0")),
        lmm.generate(broken),
        lmm.generate(ask("is it red ?", "p1")),
        return_exceptions=True,
    )
    assert isinstance(results[1], BrokenImageError)
    assert [result.finish_reason for result in (results[0], results[2])] == ["length", "length"]


async def test_an_image_token_in_the_text_is_refused(lmm, ask) -> None:
    results = await asyncio.gather(
        lmm.generate(ask("is <image> ?", "p0")), lmm.generate(ask("is it red ?", "p1")), return_exceptions=True
    )
    assert isinstance(results[0], LMMRequestError) and "1 images but 2 times '<image>'" in str(results[0])
    assert not isinstance(results[1], Exception)


async def test_a_template_that_refuses_is_the_requests_fault(lmm, ask) -> None:
    lmm._processor.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(LMMRequestError, match="roles must alternate"):
        await lmm.generate(ask("is it red ?", "p0"))


async def test_template_options_come_from_extra_body(lmm, ask) -> None:
    plain = await lmm.generate(ask("is it", "p0"))
    louder = await lmm.generate(ask("is it", "p0", extra_body={"chat_template_kwargs": {"loud": "red ?"}}))
    assert louder.usage.prompt_tokens == plain.usage.prompt_tokens + 2


async def test_a_batch_too_large_for_the_memory_is_halved(lmm, ask) -> None:
    requests = [ask("is it red ?", f"p{n % 6}", top_logprobs=3) for n in range(8)]
    expected = [await lmm.generate(request) for request in requests]
    produce, tried = lmm._produce, []

    def scarce(prompts):
        tried.append(len(prompts))
        if len(prompts) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return produce(prompts)

    lmm._produce = scarce
    responses = await asyncio.gather(*(lmm.generate(request) for request in requests))
    assert tried == [8, 4, 2, 2, 4, 2, 2]
    for one, other in zip(expected, responses, strict=True):
        assert_same(one, other)


async def test_a_request_that_the_model_chokes_on_fails_alone(lmm, ask) -> None:
    produce = lmm._produce

    def choosy(prompts):
        if any("crab" in prompt.text for prompt in prompts):
            raise IndexError("no crabs\nplease")
        return produce(prompts)

    lmm._produce = choosy
    texts = ["is it red ?", "is a crab ?", "a fox"]
    results = await asyncio.gather(*(lmm.generate(ask(t, "p0")) for t in texts), return_exceptions=True)
    assert isinstance(results[1], LMMResponseError)
    assert str(results[1]) == "the model gave no answer: no crabs; check the checkpoint and the free memory"
    assert not isinstance(results[0], Exception) and not isinstance(results[2], Exception)


async def test_no_log_probabilities_where_none_were_asked_for(lmm, ask) -> None:
    assert (await lmm.generate(ask("is it red ?", "p0"))).answer_logprobs == ()
    assert len((await lmm.generate(ask("is it red ?", "p0", top_logprobs=3))).answer_logprobs) == 3


# Loading


async def test_identity_is_the_files_and_the_data_type(tiny_llava, pictures, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_llava, tmp_path / "elsewhere"))
    (copy / "README.md").write_text("a model card changes no answer")
    one, two, half = (
        LocalLMM.from_path(folder, pictures, dtype=dtype)
        for folder, dtype in ((tiny_llava, "float32"), (copy, "float32"), (copy, "bfloat16"))
    )
    assert one.identity == two.identity and one.identity.startswith("local:") and one.identity.endswith(":float32")
    assert half.identity == one.identity.replace("float32", "bfloat16")
    config = json.loads((copy / "processor_config.json").read_text())
    (copy / "processor_config.json").write_text(json.dumps(config, indent=3))
    assert LocalLMM.from_path(copy, pictures, dtype="float32").identity != one.identity


@pytest.mark.parametrize(
    "abilities, dtype",
    [({}, torch.float32), ({"avx512_bf16": True}, torch.bfloat16), ({"amx_bf16": True}, torch.bfloat16)],
)
def test_half_precision_weights_are_computed_in_what_the_cpu_is_fast_at(
    abilities, dtype, tiny_llava, pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: abilities)
    copy = Path(shutil.copytree(tiny_llava, tmp_path / "half"))
    weights = {name: tensor.half() for name, tensor in load_file(copy / "model.safetensors").items()}
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert LocalLMM.from_path(copy, pictures, device="cpu")._model.dtype == dtype


async def test_weights_under_the_published_names_are_found(tiny_llava, pictures, ask, tmp_path: Path) -> None:
    """LLaVA 1.5 as published, and vLLM, call the tower's weights `vision_tower.vision_model.*`."""
    copy = Path(shutil.copytree(tiny_llava, tmp_path / "published"))
    weights = {
        name.replace("vision_tower.", "vision_tower.vision_model."): tensor
        for name, tensor in load_file(copy / "model.safetensors").items()
    }
    assert any("vision_model" in name for name in weights)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    one, other = (LocalLMM.from_path(folder, pictures, device="cpu", dtype="float32") for folder in (tiny_llava, copy))
    request = ask("is it red ?", "p0", top_logprobs=20)
    assert_same(await one.generate(request), await other.generate(request))
    assert one.identity != other.identity


def break_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def truncate_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def drop_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights[next(name for name in weights if "multi_modal_projector.linear_1.weight" in name)]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def pickle_the_weights(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def drop_the_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def drop_everything(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (break_json, "can't load a model"),
        (truncate_weights, "can't load a model"),
        (drop_a_weight, "it lacks .*multi_modal_projector.linear_1.weight"),
        (pickle_the_weights, "can't load a model"),
        (drop_the_template, "chat template"),
        (drop_everything, "can't load a model"),
    ],
)
def test_what_cannot_be_loaded_says_so_in_one_line(tiny_llava, pictures, tmp_path: Path, damage, words: str) -> None:
    copy = Path(shutil.copytree(tiny_llava, tmp_path / "damaged"))
    damage(copy)
    with pytest.raises(ConfigError, match=words) as caught:
        LocalLMM.from_path(copy, pictures)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["no/such-model", "no folder at all", "/nowhere/at/all"])
def test_a_name_that_is_no_folder_and_not_to_be_had_says_so(pictures, name: str) -> None:
    with pytest.raises(ConfigError, match="neither a folder nor a model of the hub") as caught:
        LocalLMM.from_path(name, pictures)
    assert "\n" not in str(caught.value)
