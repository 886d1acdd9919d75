"""The closed vocabulary of FieldNotes' models: two word-level tokenizers, and which words they don't know."""

from __future__ import annotations

import random
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from fieldnotes.grammar import Words
from fieldnotes.sampling import random_scene, random_spec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MODELS = Path(__file__).parent / "models"
WORD = re.compile(r"[a-z]+")
CLIP_CONTEXT = 40


@cache
def known_words(model: str) -> frozenset[str]:
    """The words that a bundled model ("clip" or "lmm") was trained on, from the `vocabulary.txt` beside it."""
    return frozenset((MODELS / model / "vocabulary.txt").read_text(encoding="utf-8").split())


def unknown_words(text: str, model: str) -> list[str]:
    """The words of `text` that the bundled model has never seen, in their order, each once."""
    words = dict.fromkeys(re.findall(r"[^\W_]+", text.lower()))
    return [word for word in words if word not in known_words(model)]


def query_words() -> list[str]:
    """Every word that FieldNotes' queries and captions use, in order."""
    rng = random.Random("fieldnotes-vocabulary")
    texts = (Words(rng).spec(random_spec(random_scene(rng), rng)) for _ in range(6000))
    return sorted({word for text in texts for word in WORD.findall(text)})


def clip_tokenizer() -> PreTrainedTokenizerFast:
    """The CLIP's tokenizer: lower case, one token a word, `<s> words </s>`."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", ",", *query_words()])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", vocabulary["<s>"]), ("</s>", vocabulary["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=CLIP_CONTEXT,
    )
