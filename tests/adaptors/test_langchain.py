"""LangChain's own classes, over models in this process and over a running service: the command line's order."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

import fieldscope
from tests.adaptors.conftest import COLLECTION, QUERY, Expected, names
from tests.clients.served import Served

langchain_core = pytest.importorskip("langchain_core", reason="make test-adaptors has LangChain")

from langchain_core.documents import Document  # noqa: E402
from langchain_core.runnables import RunnableLambda  # noqa: E402

from fieldscope.service.adaptors.langchain import FieldscopeCompressor, FieldscopeRetriever  # noqa: E402
from fieldscope.service.adaptors.served import Service  # noqa: E402

pytestmark = [pytest.mark.adaptors, pytest.mark.timeout(600)]


def spelled(path: Path, how: str) -> Document:
    data = base64.b64encode(path.read_bytes()).decode()
    metadata: dict[str, Any] = {"name": path.name}
    if how == "path":
        return Document("a picture", metadata=metadata | {"image": str(path)})
    if how == "bytes":
        return Document("a picture", metadata=metadata | {"image": path.read_bytes()})
    return Document(data if how == "base64" else f"data:image/png;base64,{data}", metadata=metadata)


def order(documents: list[Document]) -> list[str]:
    return [document.metadata["name"] for document in documents]


@pytest.mark.parametrize("how", ["path", "bytes", "base64", "data URL"])
def test_pictures_in_this_process_rank_as_on_the_command_line(
    reranker: fieldscope.Reranker, expected: Expected, how: str
) -> None:
    documents = [spelled(path, how) for path in expected.paths]
    ranked = list(FieldscopeCompressor(ranker=reranker).compress_documents(documents, QUERY))
    assert order(ranked) == expected.order
    said = {document.metadata["name"]: document.metadata["reason"] for document in ranked}
    assert {name: said[name] for name in expected.reasons} == expected.reasons
    scores = [document.metadata["relevance_score"] for document in ranked]
    assert scores == sorted(set(scores), reverse=True)
    assert {document.metadata["judged"] for document in ranked} == {"picture"}
    assert "relevance_score" not in documents[0].metadata


async def test_a_service_ranks_files_and_ids_with_reasons(served: Served, expected: Expected) -> None:
    by_file = [spelled(path, "path") for path in expected.paths]
    by_id = [
        Document("", metadata={"name": path.name, "image": f"fieldscope://{COLLECTION}/{path.name}"})
        for path in expected.paths
    ]
    compressor = FieldscopeCompressor(ranker=Service(served.url, explain=len(expected.reasons)))
    for documents in (by_file, by_id):
        ranked = list(await compressor.acompress_documents(documents, QUERY))
        assert order(ranked) == expected.order
        said = {document.metadata["name"]: document.metadata["reason"] for document in ranked}
        assert {name: reason for name, reason in said.items() if reason} == expected.reasons
    assert (
        order(list(FieldscopeCompressor(ranker=served.url, top_n=3).compress_documents(by_id, QUERY)))
        == (expected.order[:3])
    )


def test_what_has_no_picture_comes_last_and_a_warning_says_so(
    reranker: fieldscope.Reranker, expected: Expected, tmp_path: Path
) -> None:
    pictures = [spelled(path, "path") for path in expected.paths]
    others = [
        Document("words alone", metadata={"name": "words"}),
        Document("", metadata={"name": "gone", "image": str(tmp_path / "gone.png")}),
        Document("", metadata={"name": "elsewhere", "image": "https://example.org/a.png"}),
        Document("", metadata={"name": "torn", "image": "data:image/png;base64,????"}),
    ]
    with pytest.warns(fieldscope.FieldscopeWarning, match="document 0 has no picture") as said:
        ranked = list(FieldscopeCompressor(ranker=reranker).compress_documents([*others, *pictures], QUERY))
    assert order(ranked) == [*expected.order, "words", "gone", "elsewhere", "torn"]
    assert [document.metadata["judged"] for document in ranked[-4:]] == ["not judged"] * 4
    assert any("document 3 has no usable picture" in str(warning.message) for warning in said)
    assert list(FieldscopeCompressor(ranker=reranker).compress_documents([], QUERY)) == []


def test_a_retriever_in_this_process_searches_an_index(reranker: fieldscope.Reranker, expected: Expected) -> None:
    documents = FieldscopeRetriever(ranker=reranker, source=str(expected.index), top_n=4).invoke(QUERY)
    assert [Path(document.metadata["image"]).name for document in documents] == names(expected.found)[:4]
    assert Path(documents[0].metadata["image"]).is_file()
    assert documents[0].page_content == documents[0].metadata["reason"] == expected.found[0]["reason"]


async def test_a_retriever_of_a_service_brings_pictures_and_goes_into_a_chain(
    served: Served, expected: Expected
) -> None:
    retriever = FieldscopeRetriever(ranker=Service(served.url, explain=3), top_n=4)
    chain = retriever | RunnableLambda(lambda documents: [document.metadata for document in documents])
    found = await chain.ainvoke(QUERY)
    assert [metadata["image"].rpartition("/")[2] for metadata in found] == names(expected.found)[:4]
    assert all(metadata["thumbnail"].startswith("data:image/webp;base64,") for metadata in found)
    assert found[0]["reason"] == expected.found[0]["reason"]
    again = FieldscopeCompressor(ranker=served.url).compress_documents(retriever.invoke(QUERY), QUERY)
    assert len(again) == 4 and {document.metadata["judged"] for document in again} == {"picture"}


def test_what_a_service_refuses_is_said_in_its_words(served: Served) -> None:
    retriever = FieldscopeRetriever(ranker=served.url, source="nowhere")
    with pytest.raises(fieldscope.ConfigError, match=r"replied 404: unknown collection 'nowhere'"):
        retriever.invoke(QUERY)
    with pytest.raises(fieldscope.LMMConnectionError, match="fieldscope serve"):
        FieldscopeRetriever(ranker="http://127.0.0.1:9").invoke(QUERY)
    with pytest.raises(fieldscope.ConfigError, match="not the address of a server"):
        FieldscopeRetriever(ranker="photos")
