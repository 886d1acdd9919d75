"""What the LMM is trained on: right answers, exact tokenizers, and packing that changes nothing."""

from __future__ import annotations

import json
import random
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldscope.fieldnotes.facts import Fact, Part, Spec
from fieldscope.fieldnotes.lessons import (
    Row,
    best_segments,
    reference_segments,
    sample_texts,
    single_segments,
    text_segments,
)
from fieldscope.fieldnotes.sampling import mutate, random_scene, random_spec
from fieldscope.fieldnotes.scene import Group, Scene
from fieldscope.fieldnotes.tasks import ask_best, ask_fact, random_fact, reason
from fieldscope.fieldnotes.text_tasks import Request, decomposition, query_request, random_request, synthesis
from fieldscope.fieldnotes.training.clip import normalise
from fieldscope.fieldnotes.training.lmm import build, forward
from fieldscope.fieldnotes.training.packing import Codec, attention, collate, fill
from fieldscope.fieldnotes.training.pictures import as_seen
from fieldscope.fieldnotes.vocabulary import PIECE, lmm_tokenizer

seeds = st.integers(0, 10**9)
SCENE = Scene("beach", "rain", (Group("crab", "red", 2, "resting", "litter"), Group("fish", "blue", 1, "airborne")))


def test_single_tokens_for_answers_and_attributes(vocabulary: list[str]) -> None:
    assert len(set(vocabulary)) == len(vocabulary)
    for word in ("yes", "no", "true", "false", "a", "b", "c", "d", "crab", "red", "two", "sleeping", "tag", "beach"):
        assert word in vocabulary
        assert f" {word}" in vocabulary


def test_tokenizer_and_codec_agree_and_decoding_is_exact(vocabulary: list[str]) -> None:
    tokenizer, codec = lmm_tokenizer(vocabulary), Codec(vocabulary)
    for text in sample_texts(random.Random(5), 60):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert ids == codec.encode(text)
        assert codec.unknown not in ids, text
        assert tokenizer.decode(ids) == text


def test_words_never_seen_become_unknown(vocabulary: list[str]) -> None:
    tokenizer = lmm_tokenizer(vocabulary)
    ids = tokenizer("a red Zeppelin", add_special_tokens=False)["input_ids"]
    assert ids.count(tokenizer.unk_token_id) == 1
    assert tokenizer("A Red Crab")["input_ids"] == tokenizer("a red crab")["input_ids"]


@given(seeds)
def test_questions_are_answered_from_the_scene(seed: int) -> None:
    rng = random.Random(seed)
    scene = random_scene(rng)
    fact = random_fact(scene, rng)
    segment = ask_fact(scene, fact, rng)
    assert segment.options == (("yes",) if fact.answer(scene) else ("no",))


def test_questions_are_balanced() -> None:
    rng = random.Random(0)
    asked = [(fact.kind, fact.answer(scene)) for scene in (random_scene(rng) for _ in range(6000))
             for fact in [random_fact(scene, rng)]]  # fmt: skip
    for kind in ("subject", "colour", "count", "behaviour", "context", "habitat", "weather"):
        answers = [answer for found, answer in asked if found == kind]
        assert 0.38 < sum(answers) / len(answers) < 0.62, kind


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (Spec(Part("crab", "red")), "yes, the image shows a red crab."),
        (Spec(Part("owl")), "no, there is no owl."),
        (Spec(Part("crab", "blue")), "no, the crab is red, not blue."),
        (Spec(Part("crab", count=3)), "no, the number of crabs is two."),
        (Spec(Part("crab", pose="airborne")), "no, the crab is not jumping."),
        (Spec(Part("crab", item="tag")), "no, the crab is not wearing a tag."),
        (Spec(Part("crab", without="litter")), "no, the crab is holding plastic litter."),
        (Spec(Part("crab"), alone=True), "no, the crab is not alone."),
        (Spec(Part("fish"), Part("crab"), more=True), "no, there are not more fish than crabs."),
        (Spec(Part("crab"), habitat="snow"), "no, it is on a beach, not in the snow."),
        (Spec(Part("crab"), weather="fog"), "no, it is in the rain, not in fog."),
    ],
)
def test_reasons_name_the_first_fault(spec: Spec, said: str) -> None:
    assert reason(SCENE, spec) == said


def test_comparison_takes_the_image_with_more_facts_and_leaves_ties_open() -> None:
    rng = random.Random(0)
    dry = Scene("beach", "clear", SCENE.groups)
    rain = Spec(Part("crab"), weather="rain")
    assert ask_best([SCENE, dry], rain, rng).options == ("a",)
    assert ask_best([dry, SCENE], rain, rng).options == ("b",)
    assert ask_best([dry, dry, SCENE, dry], rain, rng).options == ("c",)
    assert ask_best([SCENE, dry], Spec(Part("crab")), rng).options == ("a", "b")


@given(seeds)
def test_structured_answers_are_json_and_traceable_to_the_request(seed: int) -> None:
    request = random_request(random.Random(seed))
    written = json.loads(synthesis(request))
    assert list(written) == ["thought", "core", "detailed", "comprehensive", "instructions"]
    predicates = json.loads(decomposition(request))["predicates"]
    assert len(written["instructions"]) == len(predicates) == len(request.spec.facts())
    assert all(list(part) == ["text", "words", "type"] for part in written["instructions"])
    assert all(list(part) == ["question", "expected", "words", "type"] for part in predicates)
    for part in (*written["instructions"], *predicates):
        assert part["words"] in request.text
    assert all(p["expected"] == ("no" if p["type"] == "absence" else "yes") for p in predicates)


def test_a_composed_request_keeps_changes_and_removes() -> None:
    spec = Spec(Part("crab", without="tag"), habitat="snow")
    said = {Fact("subject", "crab"): "crab", Fact("absence", "crab", "tag"): "without a tag",
            Fact("habitat", "", "snow"): "in the snow"}  # fmt: skip
    removed = {Fact("absence", "crab", "tag"): "removal"}
    request = Request("x", spec, said, "composed", removed)
    assert [request.operation(fact) for fact in spec.facts()] == ["retention", "removal", "retention"]
    plain = query_request(spec, random.Random(0))
    assert [plain.operation(fact) for fact in spec.facts()] == ["addition", "removal", "addition"]


@pytest.mark.slow
@settings(max_examples=20)
@given(seeds)
def test_rows_fill_up_and_stay_inside_their_length(vocabulary: list[str], seed: int) -> None:
    rng = random.Random(seed)
    codec = Codec(vocabulary)
    scene = random_scene(rng)
    scenes = [scene, *(mutate(scene, rng) for _ in range(3))]
    for row, length in (
        (Row((0,), ("",), single_segments(scene, [random_spec(scene, rng)], rng)), 352),
        (Row((0, 1), ("a:", "b:"), best_segments(scenes[:2], rng)), 416),
        (Row((0, 1, 2), ("reference:", "a:", "b:"), reference_segments(scenes[:3], rng)), 448),
        (Row((), (), text_segments(rng)), 480),
    ):
        packed = fill(codec, row, length, rng)
        assert len(packed.ids) == len(packed.positions) == len(packed.segments) <= length
        assert packed.tasks
        assert packed.ids.count(codec.special("<image>")) == 64 * len(row.pictures)


def test_attention_is_causal_inside_a_segment_and_open_to_the_prefix() -> None:
    mask = attention(torch.tensor([[0, 0, 1, 1, 2, -1]]))[0, 0].int().tolist()
    assert mask == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]


def test_a_packed_question_gets_what_it_would_get_alone(vocabulary: list[str]) -> None:
    torch.manual_seed(0)
    codec, model = Codec(vocabulary), build(vocabulary).eval()
    image_id, never = codec.special("<image>"), random.Random(1)
    never.random = lambda: 1.0  # type: ignore[method-assign]
    pixels = normalise(np.stack([as_seen(SCENE)]))

    def run(segments: list) -> torch.Tensor:  # type: ignore[type-arg]
        row = Row((0,), ("",), iter(segments))
        packed = fill(codec, row, 65 + sum(len(re.findall(PIECE, s.prompt)) + 3 for s in segments), never)
        batch = collate([packed], 0)
        with torch.inference_mode():
            logits, _ = forward(model, pixels, batch, image_id, True)
        return logits[batch.first]

    rng = random.Random(2)
    segments = [ask_fact(SCENE, random_fact(SCENE, rng), rng) for _ in range(4)]
    together = run([*segments, *segments[:1]])[:4]
    alone = torch.cat([run([s, s])[:1] for s in segments])
    assert torch.allclose(together, alone, atol=1e-5)
