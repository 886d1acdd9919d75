"""The rerank clients that people have, each pointed at a running service: the same order as the command line."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.clients.served import Served, copies, rerank

cohere = pytest.importorskip("cohere", reason="the clients' environment is another one: make test-clients")

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]

QUERY = "two red crabs on a beach"
COUNT = 10
NEWEST = Path(sys.prefix) / "newest"
Client = Callable[[str, str, Sequence[str]], list[int]]
"""Address, query, documents -> the documents' places, best first."""


@dataclass(frozen=True)
class Expected:
    """The documents in two spellings, and their places in the order of the command line."""

    spellings: dict[str, list[str]]
    order: list[int]


@pytest.fixture(scope="session")
def expected(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Expected:
    names = sorted(path.name for path in served.pictures.glob("*.png"))[
        :: len(list(served.pictures.glob("*.png"))) // COUNT
    ]
    names = names[:COUNT]
    folder = copies(served, names, tmp_path_factory.mktemp("some") / "pictures")
    spelled = [base64.b64encode((folder / name).read_bytes()).decode() for name in names]
    order = [names.index(name) for name in rerank(served, QUERY, folder)]
    assert sorted(order) == list(range(COUNT))
    assert order != sorted(order)
    return Expected(
        {
            "data URLs": [f"data:image/png;base64,{picture}" for picture in spelled],
            "ids": [f"fieldscope://fieldnotes/{int(Path(name).stem)}" for name in names],
        },
        order,
    )


def cohere_v1(url: str, query: str, documents: Sequence[str]) -> list[int]:
    client = cohere.Client(api_key="none", base_url=url)
    reply = client.rerank(model="rerank-english-v3.0", query=query, documents=list(documents), return_documents=True)
    assert reply.meta.tokens.input_tokens > 0
    assert all(result.document.text == documents[result.index] for result in reply.results)
    scores = [result.relevance_score for result in reply.results]
    assert scores == sorted(set(scores), reverse=True)
    return [result.index for result in reply.results]


def cohere_v1_objects(url: str, query: str, documents: Sequence[str]) -> list[int]:
    client = cohere.Client(api_key="none", base_url=url)
    reply = client.rerank(model="m", query=query, documents=[{"text": document} for document in documents])
    return [result.index for result in reply.results]


def cohere_v2(url: str, query: str, documents: Sequence[str]) -> list[int]:
    client = cohere.ClientV2(api_key="none", base_url=url)
    reply = client.rerank(model="rerank-v3.5", query=query, documents=list(documents), top_n=len(documents))
    assert reply.id
    return [result.index for result in reply.results]


def newest_cohere(url: str, query: str, documents: Sequence[str]) -> list[int]:
    """Both classes of the newest SDK, which LangChain's package can't live with."""
    program = (
        "import json, sys; url, query, documents = json.load(sys.stdin); import cohere; orders = [];\n"
        "for made in (cohere.Client, cohere.ClientV2):\n"
        "    reply = made(api_key='none', base_url=url).rerank(model='m', query=query, documents=documents)\n"
        "    orders.append([result.index for result in reply.results])\n"
        "print(json.dumps([cohere.__version__, *orders]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps([url, query, list(documents)]).encode(),
        env={"PYTHONPATH": str(NEWEST)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    version, first, second = json.loads(done.stdout)
    assert int(version.partition(".")[0]) >= 7
    assert first == second
    return list(first)


def langchain(url: str, query: str, documents: Sequence[str]) -> list[int]:
    from langchain_cohere import CohereRerank
    from langchain_core.documents import Document

    compressor = CohereRerank(model="rerank-v3.5", cohere_api_key="none", base_url=url, top_n=len(documents))
    given = [Document(page_content=text, metadata={"place": place}) for place, text in enumerate(documents)]
    return [document.metadata["place"] for document in compressor.compress_documents(given, query)]


def llama_index(url: str, query: str, documents: Sequence[str]) -> list[int]:
    from llama_index.core.schema import NodeWithScore, TextNode
    from llama_index.postprocessor.jinaai_rerank import JinaRerank

    ranker = JinaRerank(api_key="none", model="jina-reranker-m0", base_url=f"{url}/v1", top_n=len(documents))
    nodes = [NodeWithScore(node=TextNode(text=text, id_=str(place))) for place, text in enumerate(documents)]
    return [int(node.node.node_id) for node in ranker.postprocess_nodes(nodes, query_str=query)]


def langchain_objects(url: str, query: str, documents: Sequence[str]) -> list[int]:
    """Which it sends as YAML."""
    from langchain_cohere import CohereRerank

    compressor = CohereRerank(model="m", cohere_api_key="none", base_url=url, top_n=len(documents))
    given = [{"image": document, "title": "a: picture"} for document in documents]
    return [result["index"] for result in compressor.rerank(given, query)]


def llama_index_metadata(url: str, query: str, documents: Sequence[str]) -> list[int]:
    """Which it puts in front of a node's text."""
    from llama_index.core.schema import NodeWithScore, TextNode
    from llama_index.postprocessor.jinaai_rerank import JinaRerank

    ranker = JinaRerank(api_key="none", model="m", base_url=f"{url}/v1", top_n=len(documents))
    nodes = [
        NodeWithScore(node=TextNode(text=text, id_=str(place), metadata={"file_name": "a.jpg", "page": place}))
        for place, text in enumerate(documents)
    ]
    return [int(node.node.node_id) for node in ranker.postprocess_nodes(nodes, query_str=query)]


def rerankers(provider: str) -> Client:
    def ranker(url: str, query: str, documents: Sequence[str]) -> list[int]:
        from rerankers.models.api_rankers import APIRanker

        made = APIRanker("any-model", "none", provider, url=f"{url}/v1/rerank")
        ranked = made.rank(query, list(documents), doc_ids=list(range(len(documents))))
        return [result.document.doc_id for result in ranked.results]

    return ranker


def posted(path: str, wrap: Callable[[Sequence[str]], Any]) -> Client:
    """As the documentation of a service without a Python client has it."""

    def post(url: str, query: str, documents: Sequence[str]) -> list[int]:
        import requests

        reply = requests.post(
            url + path, json={"model": "m", "query": query, "documents": wrap(documents)}, timeout=300
        )
        assert reply.status_code == 200, reply.text
        told = reply.json()
        assert told["usage"]["total_tokens"] > 0
        assert told["model"] == "bundled"
        assert reply.headers["X-Fieldscope-Trace"] == told["id"]
        return [result["index"] for result in told["results"]]

    return post


def part(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


CLIENTS: dict[str, Client] = {
    "cohere.Client": cohere_v1,
    "cohere.Client, objects": cohere_v1_objects,
    "cohere.ClientV2": cohere_v2,
    "the newest cohere": newest_cohere,
    "LangChain's CohereRerank": langchain,
    "LangChain's CohereRerank, objects": langchain_objects,
    "LlamaIndex's JinaRerank": llama_index,
    "LlamaIndex's JinaRerank, metadata": llama_index_metadata,
    "rerankers, Jina": rerankers("jina"),
    "rerankers, Cohere": rerankers("cohere"),
    "Jina m0": posted("/v1/rerank", lambda urls: [{"image": url} for url in urls]),
    "vLLM": posted("/rerank", lambda urls: [{"content": [part(url)]} for url in urls]),
    "vLLM's object": posted("/v2/rerank", lambda urls: {"content": [part(url) for url in urls]}),
}


@pytest.mark.parametrize("spelling", ["data URLs", "ids"])
@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS.keys())
def test_the_same_order_as_the_command_line(served: Served, expected: Expected, client: Client, spelling: str) -> None:
    assert client(served.url, QUERY, expected.spellings[spelling]) == expected.order


@pytest.mark.parametrize("make", [cohere.Client, cohere.ClientV2])
def test_plain_words_are_ranked_and_said_to_be_ranked_by_clip(served: Served, make: Callable[..., Any]) -> None:
    documents = ["a white owl at night", QUERY, "two red crabs", "snow"]
    reply = make(api_key="none", base_url=served.url).rerank(model="m", query=QUERY, documents=documents)
    assert [result.index for result in reply.results][:2] == [1, 2]
    assert "no answers about texts" in reply.meta.warnings[0]


def test_llama_index_sends_nothing_of_an_image_node_so_that_it_ranks_last(served: Served) -> None:
    from llama_index.core.schema import ImageNode, NodeWithScore, TextNode
    from llama_index.postprocessor.jinaai_rerank import JinaRerank

    ranker = JinaRerank(api_key="none", model="m", base_url=f"{served.url}/v1", top_n=3)
    images = ["fieldscope://fieldnotes/1", "fieldscope://fieldnotes/401"]
    nodes = [ImageNode(image="iVBORw0KGgo", id_="image"), *(TextNode(text=text) for text in images)]
    ranked = ranker.postprocess_nodes([NodeWithScore(node=node) for node in nodes], query_str=QUERY)
    assert ranked[-1].node.node_id == "image" and ranked[-1].score < 1e-5


def test_llama_index_tells_what_is_wrong(served: Served) -> None:
    with pytest.raises(RuntimeError, match="is not an image of a registered collection"):
        llama_index(served.url, QUERY, ["fieldscope://fieldnotes/1", "fieldscope://fieldnotes/none.png"])


def test_top_n_and_the_sentences_of_errors(served: Served, expected: Expected) -> None:
    client = cohere.ClientV2(api_key="none", base_url=served.url)
    documents = expected.spellings["ids"]
    best = client.rerank(model="m", query=QUERY, documents=documents, top_n=3)
    assert [result.index for result in best.results] == expected.order[:3]
    with pytest.raises(cohere.errors.NotFoundError, match="document 1: "):
        client.rerank(model="m", query=QUERY, documents=[documents[0], "fieldscope://fieldnotes/none.png"])
    with pytest.raises(cohere.errors.UnprocessableEntityError, match="documents"):
        client.rerank(model="m", query=QUERY, documents=[])
