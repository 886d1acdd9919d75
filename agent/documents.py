"""A candidate as the model sees it: a picture, a text, or a picture with a text; and the question about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fieldscope.agent.call import image_parts, messages
from fieldscope.agent.lmm.base import ImagePart, LMMRequest, TextPart
from fieldscope.agent.strategies.verification import Pair, Verify
from fieldscope.agent.types import Predicate
from fieldscope.core.documents import Modality, has_image, is_document_source, modality, modality_of, text_of
from fieldscope.core.types import ImageSource
from fieldscope.prompts.prompt import Prompt

PAIR_UNASKED = "the strategy has no prompt for {pair}; add one to its `verify.documents`"
MODEL_UNFIT = "the model can't answer the prompt for {pair} ({prompt}); use another model"
TEXT_UNASKED = (
    "the document is a text, and the strategy asks about pictures; use a strategy with `verify.documents`, such as "
    "true-false-fused"
)


@dataclass(frozen=True)
class ShownDocument:
    """A document as it goes into a request: its picture, where it has one, and its words."""

    document_id: str
    image: ImagePart | None
    text: str = ""

    @property
    def modality(self) -> Modality:
        """What it is made of."""
        return modality(self.image is not None, bool(self.text))


async def shown_document(images: ImageSource, document_id: str) -> ShownDocument:
    """A document of a source. Raises `ImageError` for a picture that can't be read."""
    parts = await image_parts(images, [document_id]) if has_image(images, document_id) else (None,)
    return ShownDocument(document_id, parts[0], text_of(images, document_id))


def pair_of(query: Modality, document: Modality) -> Pair:
    """What a query and a candidate are, as `verify.documents` and M-BEIR's tasks have it: `text -> image`."""
    pair: Pair = f"{query} -> {document}"  # type: ignore[assignment]
    return pair


def unasked(images: ImageSource, query: Modality, documents: Iterable[str], settings: Verify | None) -> dict[str, str]:
    """The documents that are not asked about, with the reason: the strategy has no prompt for what query and document
    are, or only one that the model can't answer."""
    if settings is None or (settings.documents is None and not is_document_source(images)):
        return {}
    reasons = ((name, _unasked(pair_of(query, modality_of(images, name)), settings)) for name in documents)
    return {name: reason for name, reason in reasons if reason is not None}


def _unasked(pair: Pair, settings: Verify) -> str | None:
    if settings.documents is None:
        return TEXT_UNASKED if pair.endswith("-> text") else None
    prompt = settings.prompt_about(pair)
    if prompt is None:
        return PAIR_UNASKED.format(pair=pair)
    return None if prompt.answerable else MODEL_UNFIT.format(pair=pair, prompt=prompt.name)


def about_document(
    predicate: Predicate, query: Modality, document: ShownDocument, reference: ImagePart | None, settings: Verify
) -> tuple[Predicate, tuple[ImagePart, ...], Verify]:
    """The question about a whole query as it is put about this document, the pictures that are shown with it, in their
    order, and the settings with its prompt: the strategy's own where there is no other."""
    prompt = settings.prompt_about(pair_of(query, document.modality)) or settings.prompt
    words = asked_words(prompt, predicate.words, document.text)
    own = predicate.model_copy(update={"question": words})
    shown = shown_images(prompt, reference, document.image)
    return own, shown, settings.model_copy(update={"prompt": prompt})


def document_request(
    prompt: Prompt, words: str, images: Sequence[ImagePart], max_tokens: int = 1, top_logprobs: int = 20
) -> LMMRequest:
    """The request of one yes/no question about a document: the pictures that are shown, then the words."""
    return LMMRequest(
        messages=messages(prompt, *images, TextPart(text=words)), max_tokens=max_tokens, top_logprobs=top_logprobs
    )


def asked_words(prompt: Prompt, query: str, text: str = "") -> str:
    """A prompt about a query and a document in their words, of which it may say either or both."""
    values = {"query": query, "text": text}
    return prompt.render(**{name: values[name] for name in prompt.variables if name in values})


def shown_images(prompt: Prompt, query: ImagePart | None, candidate: ImagePart | None) -> tuple[ImagePart, ...]:
    """The pictures that a prompt shows, in its order: the candidate's alone unless it says otherwise."""
    pictures = {"query": query, "candidate": candidate}
    order: Sequence[str] = prompt.shows if prompt.shows is not None else ("candidate",)
    return tuple(picture for name in order if (picture := pictures[name]) is not None)
