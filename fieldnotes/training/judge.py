"""Measures both models on a split: the figures of their model cards.

    python -m fieldscope.fieldnotes.training.judge [--split validation|test] [--out FILE]

Everything is asked about the CLIP's own top 100 of each query (the hard images), balanced between yes and no.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.progress import track

from fieldscope.core.compat import prepare_torchvision
from fieldscope.fieldnotes.collection import ensure_pictures
from fieldscope.fieldnotes.lessons import LABELS, Row
from fieldscope.fieldnotes.queries import Split, load_split
from fieldscope.fieldnotes.tasks import COMPARE, Segment, ask_fact, ask_query
from fieldscope.fieldnotes.text_tasks import (
    composed_request,
    decomposition,
    dialogue_request,
    instructions_text,
    query_request,
    synthesis,
)
from fieldscope.fieldnotes.training.clip import normalise
from fieldscope.fieldnotes.training.lmm import forward
from fieldscope.fieldnotes.training.packing import Codec, Packed, add, collate, prefix
from fieldscope.fieldnotes.training.pictures import PIXELS
from fieldscope.fieldnotes.vocabulary import MODELS
from fieldscope.retrieval.clip import ClipEncoder
from fieldscope.retrieval.encoder import QueryInputs

TOP = 100
PER_FACT = 6
NEW_SYNTHESIZE = "describe what this request is about in json, with instructions. {q}"
NEW_DECOMPOSE = "please write questions in json for these instructions: {q}"


@dataclass(frozen=True)
class Judged:
    """A question, the pictures it is about, and what it counts for."""

    pictures: tuple[int, ...]
    segment: Segment
    group: str


def first_stage(
    split: Split, files: dict[str, Path], encoder: ClipEncoder
) -> tuple[dict[str, list[str]], dict[str, float]]:
    """Each query's ranking by the CLIP over the whole collection, and its mAP@50 and recall@100."""
    ids = list(files)
    pictures = [Image.open(files[i]).convert("RGB") for i in ids]
    vectors = np.concatenate([encoder.encode_images(pictures[i : i + 128]) for i in range(0, len(ids), 128)])
    ranked, precision, recall = {}, [], []
    for query in split.queries:
        scores = vectors @ encoder.encode_query(QueryInputs(query.text))
        ranked[query.id] = [ids[i] for i in np.argsort(-scores, kind="stable")]
        relevant = split.relevant[query.id]
        hits = np.array([i in relevant for i in ranked[query.id][:50]])
        precision.append(float((hits * hits.cumsum() / np.arange(1, 51)).sum() / min(len(relevant), 50)))
        recall.append(len(relevant & set(ranked[query.id][:TOP])) / len(relevant))
    return ranked, {"mAP@50": float(np.mean(precision)), "recall@100": float(np.mean(recall))}


def single_questions(split: Split, ranked: dict[str, list[str]], rng: random.Random) -> Iterator[Judged]:
    """As many yes as no for each fact of each query, and for each whole query, on its top 100."""
    for query in split.queries:
        head = ranked[query.id][:TOP]
        for fact in query.spec.facts():
            for truth in (True, False):
                images = [i for i in head if fact.answer(split.scenes[i]) == truth]
                for i in rng.sample(images, min(PER_FACT, len(images))):
                    segment = ask_fact(split.scenes[i], fact, rng)
                    yield Judged((int(i) - 1,), segment, f"{fact.kind}:{'yes' if truth else 'no'}")
        for truth in (True, False):
            images = [i for i in head if query.spec.matches(split.scenes[i]) == truth]
            for i in rng.sample(images, min(PER_FACT, len(images))):
                segment = ask_query(split.scenes[i], query.spec, rng)
                name = "whole true/false" if segment.options[0] in ("true", "false") else "whole yes/no"
                yield Judged((int(i) - 1,), segment, f"{name}:{'yes' if truth else 'no'}")


def comparisons(split: Split, ranked: dict[str, list[str]], rng: random.Random) -> Iterator[Judged]:
    """A matching image against one that gets all but one predicate right, in both orders, one after the other."""
    for query in split.queries:
        head = ranked[query.id][:TOP]
        facts = len(query.spec.facts())
        right = [i for i in head if query.spec.matches(split.scenes[i])]
        near = [i for i in head if query.spec.satisfied(split.scenes[i]) == facts - 1]
        pairs = [(a, b) for a in right for b in near]
        for a, b in rng.sample(pairs, min(5, len(pairs))):
            prompt = rng.choice(COMPARE).format(q=query.text)
            yield Judged((int(a) - 1, int(b) - 1), Segment("compare", prompt, ("a",)), "compare")
            yield Judged((int(b) - 1, int(a) - 1), Segment("compare", prompt, ("b",)), "compare")


@torch.inference_mode()
def answer(model: Any, codec: Codec, pixels: np.ndarray, asked: Sequence[Judged], rng: random.Random) -> list[bool]:
    """Whether each question's first answer token is the right one of its two."""
    right = [False] * len(asked)
    opposite = {"yes": "no", "no": "yes", "true": "false", "false": "true", "a": "b", "b": "a"}
    by_pictures: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, question in enumerate(asked):
        by_pictures[question.pictures].append(number)
    never = random.Random(0)
    never.random = lambda: 1.0  # type: ignore[method-assign]
    rows: list[tuple[Packed, list[int]]] = []
    for pictures, numbers in by_pictures.items():
        labels = ("",) if len(pictures) == 1 else rng.choice(LABELS[len(pictures)])
        packed = prefix(codec, Row(pictures, labels, iter(())))
        inside: list[int] = []
        for number in numbers:
            if not add(packed, codec, asked[number].segment, 700, never):
                rows.append((packed, inside))
                packed, inside = prefix(codec, Row(pictures, labels, iter(()))), []
                add(packed, codec, asked[number].segment, 700, never)
            inside.append(number)
        rows.append((packed, inside))
    rows.sort(key=lambda row: len(row[0].ids))
    for start in track(range(0, len(rows), 16), "asking"):
        chunk = rows[start : start + 16]
        batch = collate([packed for packed, _ in chunk], 0)
        logits, _ = forward(model, normalise(pixels[batch.pictures.numpy()]), batch, codec.special("<image>"), True)
        numbers = [number for _, inside in chunk for number in inside]
        firsts = batch.first.nonzero()[:, 0].tolist()
        for number, k in zip(numbers, firsts, strict=True):
            word = asked[number].segment.options[0]
            right[number] = bool(logits[k, codec.ids[word]] > logits[k, codec.ids[opposite[word]]])
    return right


@torch.inference_mode()
def write_texts(model: Any, tokenizer: Any, prompts: Sequence[str]) -> list[str]:
    """Greedy answers to prompts without pictures."""
    out = []
    for start in track(range(0, len(prompts), 16), "writing"):
        texts = [f"<user>{prompt}<assistant>" for prompt in prompts[start : start + 16]]
        batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        batch.pop("token_type_ids", None)
        ids = model.generate(**batch, max_new_tokens=420, do_sample=False)
        out += tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return out


def text_scores(model: Any, tokenizer: Any, split: Split, rng: random.Random) -> dict[str, float]:
    """How many structured answers are exactly right, on wordings of the prompt that no training prompt had."""
    prompts, wanted, kinds = [], [], []
    for query in split.queries:
        makers = {
            "query": lambda: query_request(query.spec, rng),  # noqa: B023
            "composed": lambda: composed_request(query.spec, rng),  # noqa: B023
            "dialogue": lambda: dialogue_request(query.spec, rng),  # noqa: B023
        }
        for kind, make in makers.items():
            request = make()
            prompts += [
                NEW_SYNTHESIZE.format(q=request.text),
                NEW_DECOMPOSE.format(q=instructions_text(request)),
            ]
            wanted += [synthesis(request), decomposition(request)]
            kinds += [f"synthesize {kind}", "decompose"]
    said = write_texts(model, tokenizer, prompts)
    score: dict[str, list[bool]] = defaultdict(list)
    for kind, right, answered, prompt in zip(kinds, wanted, said, prompts, strict=True):
        score[kind].append(_same(right, answered))
        if not score[kind][-1]:
            print(f"WRONG {prompt}\n  want {right}\n  said {answered}")
    return {kind: float(np.mean(values)) for kind, values in score.items()} | {
        "all": float(np.mean([value for values in score.values() for value in values]))
    }


def _same(wanted: str, said: str) -> bool:
    try:
        return bool(json.loads(wanted) == json.loads(said))
    except json.JSONDecodeError:
        return False


def balanced(asked: Sequence[Judged], right: Sequence[bool]) -> dict[str, float]:
    """Accuracy per kind: the mean of its accuracy on yes and on no."""
    score: dict[str, list[bool]] = defaultdict(list)
    for question, hit in zip(asked, right, strict=True):
        score[question.group].append(hit)
    kinds = sorted({group.rsplit(":", 1)[0] for group in score})
    return {
        kind: float(
            np.mean([np.mean(score[f"{kind}:{truth}"]) for truth in ("yes", "no") if f"{kind}:{truth}" in score])
        )
        for kind in kinds
    }


def judge(split_name: str, clip: Path, lmm: Path) -> dict[str, Any]:
    """All figures of a split."""
    prepare_torchvision()
    from transformers import AutoTokenizer, LlavaForConditionalGeneration

    split, rng = load_split(split_name), random.Random(f"judge-{split_name}")
    files = ensure_pictures(split_name)
    ranked, clip_scores = first_stage(split, files, ClipEncoder.load(str(clip)))
    model = LlavaForConditionalGeneration.from_pretrained(lmm, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(lmm)
    vocabulary = [
        token.replace("Ġ", " ").replace("Ċ", "\n")
        for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    ]
    codec = Codec(vocabulary)
    pixels = np.stack(
        [
            np.asarray(Image.open(path).convert("RGB").resize((PIXELS, PIXELS), Image.Resampling.BICUBIC))
            for path in files.values()
        ]
    )
    singles = list(single_questions(split, ranked, rng))
    single_right = answer(model, codec, pixels, singles, rng)
    kinds = balanced(singles, single_right)
    whole = {kind: kinds.pop(kind) for kind in list(kinds) if kind.startswith("whole")}
    facts = [(q, r) for q, r in zip(singles, single_right, strict=True) if not q.group.startswith("whole")]
    overall = [np.mean([r for q, r in facts if q.group.endswith(truth)]) for truth in (":yes", ":no")]
    pairs = list(comparisons(split, ranked, rng))
    pair_right = answer(model, codec, pixels, pairs, random.Random(1))
    both = list(zip(pair_right[::2], pair_right[1::2], strict=True))
    return {
        "split": split_name,
        "clip": clip_scores,
        "predicates": {"all": float(np.mean(overall)), **kinds},
        "query": whole,
        "comparison": {
            "right": float(np.mean(pair_right)),
            "same in both orders": float(np.mean([a == b for a, b in both])),
            "pairs": len(both),
        },
        "text": text_scores(model, tokenizer, split, rng),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the bundled models on a split.")
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--clip", type=Path, default=MODELS / "clip")
    parser.add_argument("--lmm", type=Path, default=MODELS / "lmm")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    figures = judge(options.split, options.clip, options.lmm)
    text = json.dumps(figures, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
