"""LlamaIndex: a node postprocessor and a retriever that rank pictures (the extra `llama-index`).

postprocessor = FieldscopePostprocessor(ranker=fieldscope.Reranker("yes-no"), top_n=3)
retriever = FieldscopeRetriever("http://localhost:8080", source="photos")
"""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Annotated, Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, ImageNode, MetadataMode, NodeWithScore, QueryBundle
from pydantic import BeforeValidator, Field

from fieldscope.core.errors import ConfigError
from fieldscope.service.adaptors.documents import FoundImage, GivenDocument, given_document
from fieldscope.service.adaptors.opening import open_ranker

if TYPE_CHECKING:
    from fieldscope.service.adaptors.opening import GivenRanker


class FieldscopePostprocessor(BaseNodePostprocessor):
    """The best `top_n` of some nodes (None: all), best first, with scores strictly between 0 and 1, and with
    `relevance_score`, `p_match`, `judged` and `reason` in their metadata.

    `ranker` is a `fieldscope.Reranker`, the URL of a running `fieldscope serve`, or a `Service`. A node's picture is
    that of an `ImageNode` or of an `image_resource`, or what its metadata has under `image_key`: a path, bytes of an
    image file, a data URL, base64, or an id as in `fieldscope://photos/12.jpg`. The text of any other node may be one
    of these, or is judged as a text, which only a running service does. Addresses are fetched by a service that allows
    their host, and by nothing else. Raises `FieldscopeError`.
    """

    ranker: Annotated[Any, BeforeValidator(open_ranker)] = Field(exclude=True)
    top_n: int | None = Field(default=None, ge=1)
    image_key: str = "image"

    @classmethod
    def class_name(cls) -> str:
        """LlamaIndex's name for the kind of postprocessor."""
        return "FieldscopePostprocessor"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise ConfigError("images are ranked for a query; give query_str or query_bundle")
        given = [_given(scored.node, self.image_key) for scored in nodes]
        ranked = []
        for placed in self.ranker.rerank(query_bundle.query_str, given, self.top_n):
            node = nodes[placed.index].node
            told = node.model_copy(update={"metadata": node.metadata | placed.metadata()})
            ranked.append(NodeWithScore(node=told, score=placed.score))
        return ranked


class FieldscopeRetriever(BaseRetriever):
    """The best `top_n` images for a query, as image nodes whose text is the reason, with `image`, `relevance_score`,
    `p_match`, `judged` and `reason` in their metadata.

    `ranker` is as in `FieldscopePostprocessor`. `source` is the folder of an index that `fieldscope index` made, or the
    name of a collection of the service (None: the only one). A node has the file's path, or from a service a small
    picture. Raises `FieldscopeError`.
    """

    def __init__(self, ranker: GivenRanker, source: str | None = None, top_n: int = 10) -> None:
        super().__init__()
        self._ranker = open_ranker(ranker)
        self._source = source
        self._top_n = top_n

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [_node(found) for found in self._ranker.search(query_bundle.query_str, self._source, self._top_n)]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


def _given(node: BaseNode, image_key: str) -> GivenDocument:
    """A node with its picture, if it has one."""
    picture = node.metadata.get(image_key)
    resource = getattr(node, "image_resource", None)
    if isinstance(node, ImageNode):
        picture = node.image or node.image_path or node.image_url or picture
    elif resource is not None:
        encoded = base64.b64decode(resource.data) if resource.data else None
        picture = encoded or resource.path or (str(resource.url) if resource.url else None) or picture
    return given_document(picture, node.get_content(metadata_mode=MetadataMode.NONE))


def _node(found: FoundImage) -> NodeWithScore:
    if found.thumbnail is None:
        picture = {"image_path": found.image}
    else:
        encoded = base64.b64encode(found.thumbnail).decode("ascii")
        picture = {"image": encoded, "image_mimetype": "image/webp"}
    node = ImageNode(
        id_=found.image,
        text=found.place.reason or "",
        metadata={"image": found.image, **found.place.metadata()},
        **picture,
    )
    return NodeWithScore(node=node, score=found.place.score)
