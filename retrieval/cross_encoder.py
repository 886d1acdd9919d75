"""Scoring models of sentence-transformers in this process: a `CrossEncoder` reads a query and a document together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Self

from fieldscope.core.errors import ConfigError, first_line
from fieldscope.retrieval.encoder import DocumentInputs, Encoder, QueryInputs
from fieldscope.retrieval.model_folder import (
    architectures,
    folder_fingerprint,
    hub_or_local_folder,
    local_folder,
    model_type,
)
from fieldscope.retrieval.scorer import Document, PairScore, pictures_of
from fieldscope.retrieval.sentence_models import (
    as_input,
    load_model,
    reads_parts,
    takes_both,
    takes_instructions,
    takes_pictures,
)

Pair = tuple[Any, Any]


class CrossEncoderScorer:
    """A `CrossEncoder` as a `Scorer`. A score is the sigmoid of the model's logit, between 0 and 1, whichever
    activation the checkpoint names; `logits` has them as they are.

    A batch that can't be computed is tried again in halves; a document that fails alone has no score, and a reason. An
    instruction is the system's message of a model that reads messages, and the prompt of another that has prompts.
    """

    def __init__(self, model: Any, *, name: str, fingerprint: str, batch_size: int = 8) -> None:
        self._model = model
        self._name = name
        self._fingerprint = fingerprint
        self._batch_size = batch_size
        self._instructed = takes_instructions(model, pairs=True)
        self.requests = 0  # batches that were computed
        self._running = Lock()  # tokenizers are not safe to use from several threads

    @classmethod
    def load(cls, folder: Path, *, device: str | None = None, batch_size: int = 8) -> Self:
        """Load the model in a folder. Raises `ConfigError`, also for a model that is no reranker: without a trained
        head its scores would be random."""
        _check_reranker(folder)
        model = load_model("CrossEncoder", folder, device)
        if model.num_labels != 1:
            raise ConfigError(f"{folder} gives {model.num_labels} labels and no score; give a reranker")
        if not (folder / "modules.json").is_file() and _is_generative(folder) and "message" not in model.modalities:
            raise ConfigError(
                f"{folder} has no chat template that shows it a query and a document; add the reranker's "
                "chat_template.jinja"
            )
        fingerprint = folder_fingerprint(folder, "cross-encoder")
        return cls(model, name=str(folder), fingerprint=fingerprint, batch_size=batch_size)

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def score(self, inputs: QueryInputs, documents: Sequence[Document]) -> list[float | None]:
        """A score between 0 and 1 for each document, in the order given; None where it could not be judged. Raises
        `ConfigError` for pictures or an instruction that the model does not take."""
        return [pair.value for pair in self.ask(inputs, documents)]

    def ask(self, inputs: QueryInputs, documents: Sequence[Document]) -> list[PairScore]:
        """The same, with the reason where there is no score."""
        return [
            PairScore(None, error=logit) if isinstance(logit, str) else PairScore(_sigmoid(logit))
            for logit in self._logits(inputs, documents)
        ]

    def logits(self, inputs: QueryInputs, documents: Sequence[Document]) -> list[float | None]:
        """The log-odds of a match, where `score` has the probability."""
        return [None if isinstance(logit, str) else logit for logit in self._logits(inputs, documents)]

    def _logits(self, inputs: QueryInputs, documents: Sequence[Document]) -> list[float | str]:
        """A logit for each document, or why there is none."""
        self._check(inputs, documents)
        query = self._content(inputs.text, inputs.image)
        pairs = [(query, self._document(document)) for document in documents]
        logits: list[float | str] = []
        for start in range(0, len(pairs), self._batch_size):
            logits += self._judge(pairs[start : start + self._batch_size], inputs.instruction)
        return logits

    def _check(self, inputs: QueryInputs, documents: Sequence[Document]) -> None:
        if (inputs.image is not None or pictures_of(documents)) and not takes_pictures(self._model):
            raise ConfigError(f"{self._name} reads texts only; name a scorer that takes pictures")
        if inputs.image is not None and inputs.text and not takes_both(self._model):
            raise ConfigError(f"{self._name} takes a picture or a text as the query, not both; name another scorer")
        if inputs.instruction is not None and not self._instructed:
            raise ConfigError(f"{self._name} takes no instruction; leave it out, or name another scorer")

    def _document(self, document: Document) -> Any:
        """Raises `ConfigError` for a picture with a text where the model can't take both together."""
        if isinstance(document, str):
            return self._content(document, None)
        if not isinstance(document, DocumentInputs):
            return self._content("", document)
        if not (takes_both(self._model) and reads_parts(self._model)):
            raise ConfigError(
                f"{self._name} takes a picture or a text as a document, not both; name another scorer with --scorer"
            )
        return as_input(document.text, document.image)

    def _content(self, text: str, image: Any) -> Any:
        """A text or picture as the model takes it: a named part where it reads messages made of parts, else bare."""
        if reads_parts(self._model):
            return as_input(text, image)
        return text if image is None else image

    def _judge(self, pairs: Sequence[Pair], prompt: str | None) -> list[float | str]:
        try:
            with self._running:
                self.requests += 1
                logits = self._model.predict(
                    list(pairs),
                    prompt=prompt,
                    batch_size=self._batch_size,
                    activation_fn=_as_it_is,
                    show_progress_bar=False,
                )
        except Exception as error:  # noqa: BLE001  whatever the model's code raises, it concerns these pairs alone
            if len(pairs) == 1:
                return [f"the model failed ({first_line(error, 240)}); check the model and the free memory"]
            middle = len(pairs) // 2
            return self._judge(pairs[:middle], prompt) + self._judge(pairs[middle:], prompt)
        return [float(logit) if math.isfinite(logit) else "the model's score is not finite" for logit in logits]


def open_folder(argument: str, load_encoder: Callable[[], Encoder]) -> CrossEncoderScorer:
    """The scorer "path": `argument` is a model's folder on this machine. Raises `ConfigError`."""
    return CrossEncoderScorer.load(local_folder(argument))


def open_hub_model(argument: str, load_encoder: Callable[[], Encoder]) -> CrossEncoderScorer:
    """The scorer "hf": `argument` is a model of the hub, which is downloaded once. Raises `ConfigError`."""
    return CrossEncoderScorer.load(hub_or_local_folder(argument))


def _check_reranker(folder: Path) -> None:
    """Raise `ConfigError` for a model that sentence-transformers would give a head of random weights."""
    if (folder / "modules.json").is_file():
        if model_type(folder) != "CrossEncoder":
            raise ConfigError(f"{folder} is a {model_type(folder)} and no reranker; name it as the encoder")
    elif not any(name.endswith(("ForSequenceClassification", "ForCausalLM")) for name in architectures(folder)):
        names = ", ".join(architectures(folder))
        raise ConfigError(
            f"{folder} is no reranker of sentence-transformers: it has no modules.json"
            + (f", and its config.json names {names}" if names else "")
            + "; give a CrossEncoder, or serve the model and give the server's address"
        )


def _is_generative(folder: Path) -> bool:
    return any(name.endswith("ForCausalLM") for name in architectures(folder))


def _as_it_is(logits: Any) -> Any:
    return logits


def _sigmoid(logit: float) -> float:
    """In double precision, from which all but the most extreme logits can be recovered."""
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))
