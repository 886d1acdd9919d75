"""LangChain: a document compressor and a retriever that rank pictures (the extra `langchain`).

compressor = FieldscopeCompressor(ranker=fieldscope.Reranker("yes-no"), top_n=3)
retriever = FieldscopeRetriever(ranker="http://localhost:8080", source="photos")
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Annotated, Any

from langchain_core.callbacks import CallbackManagerForRetrieverRun, Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.retrievers import BaseRetriever
from pydantic import BeforeValidator, ConfigDict, Field

from fieldscope.service.adaptors.documents import FoundImage, given_document
from fieldscope.service.adaptors.opening import open_ranker

_Ranker = Annotated[Any, BeforeValidator(open_ranker)]


class FieldscopeCompressor(BaseDocumentCompressor):
    """The best `top_n` of some documents (None: all), best first, with `relevance_score`, `p_match`, `judged` and
    `reason` in their metadata.

    `ranker` is a `fieldscope.Reranker`, the URL of a running `fieldscope serve`, or a `Service`. A document's picture
    is what its metadata has under `image_key`: a path, bytes of an image file, a data URL, base64, or an id as in
    `fieldscope://photos/12.jpg`. Without it, `page_content` may be one of these texts, or is judged as a text, which
    only a running service does. Raises `FieldscopeError`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    ranker: _Ranker
    top_n: int | None = Field(default=None, ge=1)
    image_key: str = "image"

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """The documents ranked for the query."""
        given = [given_document(document.metadata.get(self.image_key), document.page_content) for document in documents]
        return [
            documents[placed.index].model_copy(
                update={"metadata": documents[placed.index].metadata | placed.metadata()}
            )
            for placed in self.ranker.rerank(query, given, self.top_n)
        ]


class FieldscopeRetriever(BaseRetriever):
    """The best `top_n` images for a query, as documents whose text is the reason, with `image`, `relevance_score`,
    `p_match`, `judged` and `reason` in their metadata.

    `ranker` is as in `FieldscopeCompressor`. `source` is the folder of an index that `fieldscope index` made, or the
    name of a collection of the service (None: the only one). `image` is the file's path, or an id as in
    `fieldscope://photos/12.jpg`; then `thumbnail` is a small picture, as a data URL. Raises `FieldscopeError`.
    """

    ranker: _Ranker
    source: str | None = None
    top_n: int = Field(default=10, ge=1)

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return [_document(found) for found in self.ranker.search(query, self.source, self.top_n)]


def _document(found: FoundImage) -> Document:
    metadata = {"image": found.image, **found.place.metadata()}
    if found.thumbnail is not None:
        metadata["thumbnail"] = f"data:image/webp;base64,{base64.b64encode(found.thumbnail).decode('ascii')}"
    return Document(id=found.image, page_content=found.place.reason or "", metadata=metadata)
