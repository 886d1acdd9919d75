"""The bundled models: their folders, identities and vocabularies."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fieldscope.core.errors import ConfigError, VocabularyError

if TYPE_CHECKING:
    from fieldscope.agent.lmm.backends import LMMOptions
    from fieldscope.agent.lmm.base import LMM
    from fieldscope.eval.tuning.estimate import Measure
    from fieldscope.retrieval.encoder import Encoder

Kind = Literal["clip", "lmm"]


FOREIGN = (
    "the bundled models know FieldNotes' world only, and these images are from outside of it, so the ranking means "
    "little; name other models with --encoder and --lmm"
)
"""The flag of a result for which a bundled model judged images that it was not trained on."""


BUNDLED_DTYPE = "float32"


_OPTION = {"clip": "--encoder", "lmm": "--lmm"}


_TITLE = {"clip": "CLIP", "lmm": "LMM"}


_SHOWN_WORDS = 12


def bundled_folder(kind: Kind) -> Path:
    """The folder of a bundled model. Raises `ConfigError` where this installation came without it."""
    from fieldscope.fieldnotes import vocabulary

    folder = vocabulary.MODELS / kind
    if not (folder / "vocabulary.txt").is_file():
        raise ConfigError(
            f"the bundled {_TITLE[kind]} is not in this installation ({folder}); install Fieldscope again, or name "
            f"another model with {_OPTION[kind]}"
        )
    return folder


def open_encoder(argument: str = "") -> Encoder:
    """The encoder "bundled"; it ignores its argument."""
    from fieldscope.retrieval.clip import ClipEncoder

    return ClipEncoder.load(str(bundled_folder("clip")))


def open_lmm(argument: str, options: LMMOptions) -> LMM:
    """The LMM back end "bundled"; it ignores its argument. The model is loaded when it is first asked."""
    from fieldscope.agent.lmm.deferred import DeferredLMM

    def load() -> LMM:
        from fieldscope.agent.lmm.local import LocalLMM

        return LocalLMM.from_path(bundled_folder("lmm"), options.images, dtype=BUNDLED_DTYPE)

    return DeferredLMM(bundled_identity(), load)


def unknown_words(texts: Iterable[str], kind: Kind) -> list[str]:
    """The words that a bundled model has never seen, most frequent first."""
    from fieldscope.fieldnotes import vocabulary

    bundled_folder(kind)
    return [
        word for word, _ in Counter(w for text in texts for w in vocabulary.unknown_words(text, kind)).most_common()
    ]


def require_known_words(texts: Iterable[str], *kinds: Kind) -> None:
    """Raise `VocabularyError` unless the bundled models of these kinds know every word. Loads no model."""
    texts = list(texts)
    for kind in kinds:
        if words := unknown_words(texts, kind):
            named = ", ".join(repr(word) for word in words[:_SHOWN_WORDS])
            more = f" and {len(words) - _SHOWN_WORDS} more" if len(words) > _SHOWN_WORDS else ""
            raise VocabularyError(
                f"the bundled {_TITLE[kind]} has never seen {'these words' if len(words) > 1 else 'this word'}: "
                f"{named}{more}; use FieldNotes' words ({bundled_folder(kind) / 'vocabulary.txt'}), or name another "
                f"model with {_OPTION[kind]}"
            )


def bundled_identity() -> str:
    """The bundled LMM's identity, without loading it."""
    from fieldscope.agent.lmm.identity import local_identity

    return local_identity(bundled_folder("lmm"), BUNDLED_DTYPE)


def bundled_measure() -> Measure | None:
    """Counts the tokens of a prompt for the bundled LMM, by its tokenizer alone; None where that is missing."""
    from tokenizers import Tokenizer

    folder = bundled_folder("lmm")
    try:
        tokenizer = Tokenizer.from_str((folder / "tokenizer.json").read_text(encoding="utf-8"))
        image_tokens = int(json.loads((folder / "config.json").read_bytes())["image_seq_length"])
    except FileNotFoundError:
        return None

    def measure(system: str, text: str, images: int) -> float:
        chat = (f"<system>{system}" if system else "") + f"<user>{text}<assistant>"
        return image_tokens * images + len(tokenizer.encode(chat, add_special_tokens=False).ids)

    return measure
