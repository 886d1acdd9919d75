"""The closed vocabulary of FieldNotes' models: two word-level tokenizers, and which words they don't know."""

from __future__ import annotations

import random
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.fieldnotes.grammar import Words
from fieldscope.fieldnotes.sampling import random_scene, random_spec

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


SPECIAL = ("<pad>", "<unk>", "<eos>", "<image>", "<user>", "<assistant>", "<system>")
# What JSON is made of, longest first, so that a structured answer takes few tokens.
STRUCTURE = ('"}, {"', '": [{"', '": ["', '"}]}', '": "', '", "', '"]}', '{"', '"}')
PIECE = "|".join(re.escape(token) for token in STRUCTURE) + r"| ?[a-z]+| ?[0-9]| ?[^\sa-z0-9]|\s"
# Parts in their order, so that an image comes first where the request says so. No BOS. A system message explains a
# task; this model has learnt its tasks by heart and their explanations use words that it has never seen.
CHAT_TEMPLATE = (
    "{% for message in messages if message['role'] != 'system' %}<{{ message['role'] }}>"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}<eos>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def lmm_vocabulary() -> list[str]:
    """Every token of the LMM, in order of id: each word with and without the space before it."""
    from fieldscope.fieldnotes import lessons

    rng = random.Random("fieldnotes-vocabulary")
    pieces: set[str] = set()
    for text in lessons.sample_texts(rng, 9000):
        pieces.update(re.findall(PIECE, text))
    words = sorted({piece.strip() for piece in pieces if piece.strip().isalpha()})
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    marks = list("{}[]\":,.?!'()-;/_0123456789")
    plain = [*STRUCTURE, *dict.fromkeys([*words, *letters, *marks])]
    return [*SPECIAL, *plain, *(f" {token}" for token in dict.fromkeys([*words, *marks])), " ", "\n"]


def lmm_tokenizer(vocabulary: list[str]) -> PreTrainedTokenizerFast:
    """The LMM's tokenizer: lower case, one token a word, spelled byte-level so that decoding is exact."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    spelled = [token.replace(" ", "Ġ").replace("\n", "Ċ") for token in vocabulary]
    raw = Tokenizer(models.WordLevel({token: i for i, token in enumerate(spelled)}, unk_token="<unk>"))
    raw.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECE), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(list(SPECIAL))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<eos>",
        model_max_length=1024,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        extra_special_tokens={"image_token": "<image>"},
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
