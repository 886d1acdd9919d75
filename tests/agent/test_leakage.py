"""No answer key can reach a model: not by what is rendered, and not by what the agent can import."""

from __future__ import annotations

import ast
import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from PIL import Image as PILImage

import fieldscope.agent.graph
import fieldscope.prompts.prompt
from fieldscope.agent.graph import Agent
from fieldscope.agent.image_scorer import ImageScorer
from fieldscope.agent.lmm.base import LMMRequest, TextPart
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.agent.resources import Resources
from fieldscope.agent.scored import CachedScorer
from fieldscope.agent.strategies.strategy import list_strategies, load_strategy
from fieldscope.cache.store import MemoryStore
from fieldscope.core.types import Candidate, Query
from fieldscope.retrieval.collection import FolderCollection
from fieldscope.retrieval.documents import open_documents
from fieldscope.retrieval.encoder import QueryInputs
from fieldscope.retrieval.scorer import Document

SECRETS = {
    "species": "Zqspeciesus secretii",
    "file": "zqfolder_Animalia_zqfile",
    "category": "zqcategory",
    "location": "zqlatitude12.34",
    "query_id": "zqqueryid",
}
TEXT = "a crab on a beach"


class Remembering:
    """A scoring model that keeps what it was asked."""

    fingerprint = "remembering"

    def __init__(self) -> None:
        self.asked: list[QueryInputs] = []
        self.documents: list[Document] = []

    def score(self, inputs: QueryInputs, documents: Sequence[Document]) -> list[float | None]:
        self.asked.append(inputs)
        self.documents += documents
        return [0.5] * len(documents)


def requests_of(strategy: str, folder: Path, scorer: Remembering | None = None) -> list[LMMRequest]:
    """All requests for a query whose ids and file names hold every secret."""
    image_id = f"{'-'.join(SECRETS.values())}.png"
    PILImage.new("RGB", (8, 8), "red").save(folder / image_id)
    lmm = ScriptedLMM(lambda _: 0.5)
    images = FolderCollection(folder)
    scoring = ImageScorer(CachedScorer(scorer or Remembering(), MemoryStore(), images), images)
    deps = Resources(images=images, lmm=lmm, scorer=scoring)
    query = Query(id=SECRETS["query_id"], text=TEXT)
    asyncio.run(Agent(deps, load_strategy(strategy, prompts="fieldnotes")).rerank(query, [Candidate(image_id, 0.5)]))
    return lmm.requests


@pytest.mark.parametrize("strategy", list_strategies())
def test_no_metadata_of_a_benchmark_query_is_in_a_request(strategy: str, tmp_path: Path) -> None:
    requests = requests_of(strategy, tmp_path)
    assert bool(requests) == (load_strategy(strategy, prompts="fieldnotes").verify is not None)
    for request in requests:
        sent = request.model_dump(mode="json")
        for message in sent["messages"]:
            for part in message["content"]:
                part.pop("image_id", None)  # a reference on this side of the door; a model gets the pixels
        told = str(sent)
        assert TEXT in told
        assert [secret for secret in SECRETS.values() if secret in told] == []


def test_a_scoring_model_reads_the_querys_text_and_nothing_else(tmp_path: Path) -> None:
    scorer = Remembering()
    assert requests_of("cross-encoder", tmp_path, scorer) == []
    assert scorer.asked == [QueryInputs(TEXT)]


def test_a_question_is_the_prompt_with_the_querys_text_and_nothing_else(tmp_path: Path) -> None:
    (request,) = requests_of("yes-no", tmp_path)
    (prompt,) = load_strategy("yes-no", prompts="fieldnotes").prompts
    texts = [part.text for message in request.messages for part in message.content if isinstance(part, TextPart)]
    assert texts == [prompt.render(query=TEXT)]
    assert request.extra_body == {}


@pytest.mark.parametrize("reference", [None, "picture"])
@pytest.mark.parametrize("strategy", ["true-false-documents", "true-false-fused", "true-false-reference"])
def test_of_a_document_nothing_but_its_picture_and_its_words_is_in_a_request(
    strategy: str, reference: str | None, tmp_path: Path
) -> None:
    name = f"{SECRETS['file']}.png"
    PILImage.new("RGB", (8, 8), "red").save(tmp_path / name)
    hidden = {"src_content": SECRETS["species"], "category": SECRETS["category"], "location": SECRETS["location"]}
    lines = [
        {"did": SECRETS["query_id"], "txt": None, "img_path": name, **hidden},
        {"did": f"{SECRETS['query_id']}-2", "txt": "Words of a document.", "img_path": None, **hidden},
        {"did": f"{SECRETS['query_id']}-3", "txt": "Words of a document.", "img_path": name, **hidden},
        {"did": "picture", "txt": None, "img_path": name, **hidden},
    ]
    (tmp_path / "pool.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    images = open_documents(tmp_path / "pool.jsonl")
    lmm, scorer = ScriptedLMM(lambda _: 0.5), Remembering()
    scoring = ImageScorer(CachedScorer(scorer, MemoryStore(), images), images)
    query = Query(id=SECRETS["query_id"], text=TEXT, reference_image=reference)
    candidates = [Candidate(str(line["did"]), 0.5) for line in lines[:3]]
    agent = Agent(Resources(images=images, lmm=lmm), load_strategy(strategy, prompts="instruct"))
    asyncio.run(agent.rerank(query, candidates))
    assert len(lmm.requests) == 3
    hidden_ids = {"messages": {"__all__": {"content": {"__all__": {"image_id"}}}}}
    sent = str([request.model_dump(exclude=hidden_ids) for request in lmm.requests])
    assert "Words of a document." in sent
    assert [secret for secret in SECRETS.values() if secret in sent] == []
    asyncio.run(
        Agent(Resources(images=images, scorer=scoring), load_strategy("cross-encoder")).rerank(query, candidates)
    )
    documents = [document for document in scorer.documents if not isinstance(document, PILImage.Image)]
    words = [document if isinstance(document, str) else document.text for document in documents]
    assert words == ["Words of a document.", "Words of a document."]


def test_a_query_can_hold_no_metadata() -> None:
    assert set(Query.model_fields) == {"id", "text", "reference_image", "dialogue", "instruction", "wanted"}
    with pytest.raises(ValueError, match="extra"):
        Query.model_validate({"id": "q", "text": "a crab", "species": SECRETS["species"]})


def imported(module: object) -> Iterator[tuple[str, str]]:
    """(file, imported module) for every import statement in the folder of a module."""
    for path in sorted(Path(str(getattr(module, "__file__", ""))).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((path.name, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield path.name, node.module or ""


@pytest.mark.parametrize("room", [fieldscope.agent.graph, fieldscope.prompts.prompt])
def test_agent_and_prompts_import_nothing_that_knows_the_answers(room: object) -> None:
    found = list(imported(room))
    assert ("graph.py", "fieldscope.agent.resources") in found or ("prompt.py", "fieldscope.core.errors") in found
    assert [(file, name) for file, name in found if name.split(".")[0] in {"eval", "fieldnotes", "service"}] == []
