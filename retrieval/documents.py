"""Collections of documents of any kind: pictures, texts, and pictures with texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fieldscope.core.documents import normalised_text
from fieldscope.core.errors import BrokenImageError, ConfigError
from fieldscope.retrieval.collection import DecodingCollection, file_stamp
from fieldscope.retrieval.document_lines import Document, DocumentLines, lies_below
from fieldscope.retrieval.images import DEFAULT_LIMITS, ImageLimits


class DocumentsCollection(DecodingCollection):
    """A `Collection` and `DocumentSource` of documents whose pictures lie below `root`.

    With `normalised` texts are as M-BEIR has them (`normalised_text`). A locator names the files where the documents
    are those of files (`DocumentLines`), else it has them in full.
    """

    def __init__(
        self,
        documents: Mapping[str, Document],
        root: Path,
        limits: ImageLimits = DEFAULT_LIMITS,
        *,
        normalised: bool = False,
    ) -> None:
        super().__init__(limits)
        self.documents = documents
        self.root = root.absolute()
        self.normalised = normalised

    def ids(self) -> Sequence[str]:
        return tuple(self.documents)

    def __len__(self) -> int:
        return len(self.documents)

    def text_of(self, document_id: str) -> str:
        """The document's words; empty for a picture alone, and for an unknown id."""
        document = self.documents.get(document_id)
        text = (document.text or "").strip() if document else ""
        return normalised_text(text) if self.normalised else text

    def has_image(self, document_id: str) -> bool:
        document = self.documents.get(document_id)
        return document is None or bool(document.image)  # loading an unknown one says what is wrong

    def path(self, document_id: str) -> Path:
        """The file of a document's picture. Raises `BrokenImageError` for an unknown id and for a text."""
        document = self.documents.get(document_id)
        if document is None:
            raise BrokenImageError(f"{document_id!r} is none of the {len(self)} documents; check the id")
        if not document.image:
            raise BrokenImageError(f"document {document_id!r} is a text and has no picture; read its words instead")
        return self.root / document.image

    def stamp(self, document_id: str) -> str:
        file = file_stamp(self.path(document_id)) if self.has_image(document_id) else ""
        text = self.text_of(document_id)
        return f"{file} {sha256(text.encode()).hexdigest()[:16]}" if text else file

    def only(self, document_ids: Iterable[str]) -> DocumentsCollection:
        """A collection of those of these documents that this one has, in its order."""
        wanted = set(document_ids)
        own = {each: self.documents[each] for each in self.documents if each in wanted}
        return DocumentsCollection(own, self.root, self.limits, normalised=self.normalised)

    def locator(self) -> dict[str, Any]:
        place = {"kind": "documents", "root": str(self.root), "normalised": self.normalised}
        if isinstance(self.documents, DocumentLines):
            return place | {"files": [str(path.absolute()) for path in self.documents.paths]}
        listed = [document.model_dump(exclude_none=True) for document in self.documents.values()]
        return place | {"documents": listed}

    def _stored(self, document_id: str) -> Path:
        return self.path(document_id)


def open_documents(path: Path, limits: ImageLimits = DEFAULT_LIMITS) -> DocumentsCollection:
    """The documents in a user's file of JSON lines, their pictures beside it. Raises `ConfigError`."""
    return DocumentsCollection(DocumentLines(path), path.parent, limits)


def reopen_documents(locator: Mapping[str, Any], limits: ImageLimits = DEFAULT_LIMITS) -> DocumentsCollection:
    """The collection that wrote this `locator()`. Raises `ConfigError` where its file is gone or has changed its
    shape."""
    root, normalised = Path(str(locator["root"])), locator.get("normalised") is True
    documents: Mapping[str, Document]
    if isinstance(files := locator.get("files"), list):
        documents = DocumentLines(*(Path(str(file)) for file in files))
    else:
        try:
            listed = [Document.model_validate(each) for each in locator["documents"]]
        except (KeyError, TypeError, ValidationError) as error:
            raise ConfigError("the list of documents can't be read; index the documents again") from error
        documents = {each.id: each for each in listed if lies_below(each.image or "a")}
    return DocumentsCollection(documents, root, limits, normalised=normalised)
