"""LlamaIndex's own classes, over models in this process and over a running service: the command line's order."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

import fieldscope
from tests.adaptors.conftest import COLLECTION, QUERY, Expected, names
from tests.clients.served import Served

pytest.importorskip("llama_index.core", reason="the adaptors' environment is another one: make test-adaptors")

from llama_index.core.schema import BaseNode, ImageNode, MediaResource, Node, NodeWithScore, TextNode

from fieldscope.service.adaptors.llama_index import FieldscopePostprocessor, FieldscopeRetriever
from fieldscope.service.adaptors.served import Service

pytestmark = [pytest.mark.adaptors, pytest.mark.timeout(600)]


def nodes(expected: Expected) -> list[NodeWithScore]:
    """The pictures in all the ways in which LlamaIndex has pictures."""
    made: list[BaseNode] = []
    for n, path in enumerate(expected.paths):
        encoded = base64.b64encode(path.read_bytes()).decode()
        ways = (
            lambda path=path: ImageNode(image_path=str(path)),
            lambda encoded=encoded: ImageNode(image=encoded),
            lambda path=path: Node(image_resource=MediaResource(path=path)),
            lambda path=path: Node(image_resource=MediaResource(data=path.read_bytes())),
            lambda path=path: TextNode(text="a picture", metadata={"image": str(path)}),
        )
        node = ways[n % len(ways)]()
        node.metadata["name"] = path.name
        made.append(node)
    return [NodeWithScore(node=node, score=0.0) for node in made]


def order(ranked: list[NodeWithScore]) -> list[str]:
    return [scored.node.metadata["name"] for scored in ranked]


def test_nodes_in_this_process_rank_as_on_the_command_line(reranker: fieldscope.Reranker, expected: Expected) -> None:
    given = nodes(expected)
    ranked = FieldscopePostprocessor(ranker=reranker).postprocess_nodes(given, query_str=QUERY)
    assert order(ranked) == expected.order
    said = {scored.node.metadata["name"]: scored.node.metadata["reason"] for scored in ranked}
    assert {name: said[name] for name in expected.reasons} == expected.reasons
    scores = [scored.score for scored in ranked]
    assert scores == sorted(scores, reverse=True) and all(0 < (score or 0) < 1 for score in scores)
    assert "reason" not in given[0].node.metadata
    with pytest.raises(fieldscope.ConfigError, match="query_str"):
        FieldscopePostprocessor(ranker=reranker).postprocess_nodes(given)


async def test_a_service_ranks_the_same_with_reasons(served: Served, expected: Expected) -> None:
    postprocessor = FieldscopePostprocessor(ranker=Service(served.url, explain=len(expected.reasons)), top_n=5)
    ranked = await postprocessor.apostprocess_nodes(nodes(expected), query_str=QUERY)
    assert order(ranked) == expected.order[:5]
    said = {scored.node.metadata["name"]: scored.node.metadata["reason"] for scored in ranked}
    assert {name: reason for name, reason in said.items() if reason} == expected.reasons


def test_an_address_is_never_fetched_in_this_process(reranker: fieldscope.Reranker, expected: Expected) -> None:
    elsewhere = NodeWithScore(node=ImageNode(image_url="http://127.0.0.1:9/a.png", metadata={"name": "elsewhere"}))
    with pytest.warns(fieldscope.FieldscopeWarning, match="has an address for a picture"):
        ranked = FieldscopePostprocessor(ranker=reranker).postprocess_nodes(
            [elsewhere, *nodes(expected)], query_str=QUERY
        )
    assert order(ranked)[-1] == "elsewhere" and ranked[-1].node.metadata["judged"] == "not judged"


async def test_retrievers_bring_image_nodes(reranker: fieldscope.Reranker, served: Served, expected: Expected) -> None:
    here = FieldscopeRetriever(reranker, source=str(expected.index), top_n=4).retrieve(QUERY)
    assert [Path(scored.node.image_path).name for scored in here] == names(expected.found)[:4]
    there = await FieldscopeRetriever(served.url, source=COLLECTION, top_n=4).aretrieve(QUERY)
    assert [scored.node.metadata["image"].rpartition("/")[2] for scored in there] == names(expected.found)[:4]
    for scored in (*here, *there):
        assert isinstance(scored.node, ImageNode) and scored.node.resolve_image()
        assert scored.node.text == scored.node.metadata["reason"]
    again = FieldscopePostprocessor(ranker=served.url).postprocess_nodes(here, query_str=QUERY)
    assert {scored.node.metadata["judged"] for scored in again} == {"picture"}
