"""Documents: what a collection holds and a query finds. A picture, a text, or a picture with a text."""

from __future__ import annotations

from typing import Literal, Protocol, TypeGuard, get_args, runtime_checkable

Modality = Literal["text", "image", "image,text"]
"""What a query or a document is made of, as M-BEIR spells it: a picture with a text is always `image,text`."""

_KINDS: dict[type, bool] = {}  # classes of sources, and whether they are of documents

MODALITIES: tuple[Modality, ...] = get_args(Modality)


QUERY_PICTURE = "query:"
"""What the id of a query's own picture begins with, where that lies beside the collection."""


@runtime_checkable
class DocumentSource(Protocol):
    """An `ImageSource` whose ids are documents of any kind. `load` and `pixel_hash` raise `ImageError` for a document
    without a picture."""

    def text_of(self, document_id: str) -> str:
        """The document's words; empty for a picture alone."""
        ...

    def has_image(self, document_id: str) -> bool:
        """Whether the document has a picture."""
        ...


def is_document_source(source: object) -> TypeGuard[DocumentSource]:
    """Asked once for a class: `isinstance` of a protocol takes longer than most of what is asked of a source."""
    kind = type(source)
    if kind not in _KINDS:
        _KINDS[kind] = issubclass(kind, DocumentSource)
    return _KINDS[kind]


def modality(pictured: bool, worded: bool) -> Modality:
    """The modality of what has a picture, words, or both; what has neither is an empty text."""
    if not pictured:
        return "text"
    return "image,text" if worded else "image"


def text_of(source: object, document_id: str) -> str:
    """A document's words; empty for a picture, which is all that most sources have."""
    return source.text_of(document_id) if is_document_source(source) else ""


def has_image(source: object, document_id: str) -> bool:
    """Whether a document has a picture, as all have of a source that knows no other documents."""
    return source.has_image(document_id) if is_document_source(source) else True


def modality_of(source: object, document_id: str) -> Modality:
    """What a document of a source is made of."""
    return modality(has_image(source, document_id), bool(text_of(source, document_id)))


def normalised_text(text: str | None) -> str:
    """A text as UniIR has M-BEIR's, of queries and candidates alike: no carriage returns, no blanks and then no double
    quotes at its ends, a capital first, and a full stop last unless it ends in one, a question or an exclamation mark.
    Nothing for no text."""
    plain = (text or "").replace("\r", "").strip().strip('"')
    if not plain:
        return ""
    plain = plain[0].upper() + plain[1:]
    return plain if plain[-1] in ".?!" else plain + "."
