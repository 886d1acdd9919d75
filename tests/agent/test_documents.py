"""Candidates of any kind: what is shown and said of each pair of query and document, and what the ranking records."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from PIL import Image as PILImage

from fieldscope.agent.documents import MODEL_UNFIT, PAIR_UNASKED, TEXT_UNASKED
from fieldscope.agent.graph import Agent
from fieldscope.agent.image_scorer import ImageScorer
from fieldscope.agent.lmm.base import LMMRequest
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.agent.resources import Resources
from fieldscope.agent.scored import CachedScorer
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.agent.types import RerankResult, unasked_flag
from fieldscope.cache.store import MemoryStore
from fieldscope.core.errors import StrategyError
from fieldscope.core.types import Candidate, Query
from fieldscope.retrieval.collection import FolderCollection
from fieldscope.retrieval.documents import DocumentsCollection, open_documents
from fieldscope.retrieval.scripted_scorer import ScriptedScorer

ASKED = "Is it red?"
WORDS = "A red crab."
BEYOND_THE_BUNDLED_LMM = {(0, "text"), (0, "both"), (2, "picture")}
"""Numbers of pictures that are shown, and candidates: texts beside no picture, and two pictures."""


@pytest.fixture
def documents(tmp_path: Path) -> DocumentsCollection:
    for name, colour in (("query", "blue"), ("picture", "red"), ("both", "green")):
        PILImage.new("RGB", (8, 8), colour).save(tmp_path / f"{name}.png")
    lines = [
        {"id": "query", "image": "query.png"},
        {"id": "picture", "image": "picture.png"},
        {"id": "text", "text": WORDS},
        {"id": "both", "image": "both.png", "text": WORDS},
    ]
    (tmp_path / "documents.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return open_documents(tmp_path / "documents.jsonl")


def reranked(
    documents: DocumentsCollection, strategy: str, query: Query, *ids: str, prompts: str = "instruct"
) -> tuple[RerankResult, list[LMMRequest]]:
    lmm = ScriptedLMM(lambda _: 0.9)
    agent = Agent(Resources(images=documents, lmm=lmm), load_strategy(strategy, prompts=prompts))
    candidates = [Candidate(document, 1.0 - n / 10) for n, document in enumerate(ids)]
    return asyncio.run(agent.rerank(query, candidates)), lmm.requests


# What Table 13 of arXiv 2411.02571 shows, by query and candidate: pictures in order, and whose words.
@pytest.mark.parametrize("prompts", ["instruct", "fieldnotes"])
@pytest.mark.parametrize(
    ("text", "reference", "candidate", "shown", "said"),
    [
        (ASKED, None, "picture", ["picture"], {ASKED}),
        (ASKED, None, "text", [], {ASKED, WORDS}),
        (ASKED, None, "both", [], {ASKED, WORDS}),
        ("", "query", "text", ["query"], {WORDS}),
        ("", "query", "picture", ["query", "picture"], set()),
        (ASKED, "query", "text", ["query"], {ASKED, WORDS}),
        (ASKED, "query", "picture", ["picture"], {ASKED}),
        (ASKED, "query", "both", ["query"], {ASKED, WORDS}),
    ],
)
def test_each_type_shows_what_the_papers_table_shows(
    documents: DocumentsCollection,
    prompts: str,
    text: str,
    reference: str | None,
    candidate: str,
    shown: list[str],
    said: set[str],
) -> None:
    query = Query(id="q", text=text, reference_image=reference)
    result, requests = reranked(documents, "true-false-documents", query, candidate, prompts=prompts)
    if prompts == "fieldnotes" and (len(shown), candidate) in BEYOND_THE_BUNDLED_LMM:
        assert (requests, result.verdicts[0].state) == ([], "not_asked")
        assert (result.verdicts[0].error or "").startswith(MODEL_UNFIT.partition("{")[0])
        return
    (request,) = requests
    assert [image.image_id for image in request.images] == shown
    assert {words for words in (ASKED, WORDS) if words in request.text} == said
    assert result.verdicts[0].image_id == candidate
    assert result.verdicts[0].p_yes == pytest.approx(0.9)


@pytest.mark.parametrize("method", ["log_odds", "posterior"])
@pytest.mark.parametrize("waves", [{}, {"verify.stop_below": 0.01, "verify.wave": 1}])
def test_a_pair_without_a_prompt_is_not_asked(
    documents: DocumentsCollection, method: str, waves: dict[str, object]
) -> None:
    """It costs nothing and ends nothing; all others are asked about."""
    fusion = {"method": method, "prior_weight": 2.0}
    settings = {"verify.documents": {"text -> image,text": "true_false_text"}, "fusion": fusion, **waves}
    lmm = ScriptedLMM(lambda _: 0.9)
    agent = Agent(Resources(images=documents, lmm=lmm), load_strategy("true-false-fused", settings))
    candidates = [Candidate("text", 0.9), Candidate("both", 0.6), Candidate("picture", 0.5)]
    result = asyncio.run(agent.rerank(Query(id="q", text=ASKED), candidates))
    states = {verdict.image_id: (verdict.state, verdict.error) for verdict in result.verdicts}
    reason = PAIR_UNASKED.format(pair="text -> text")
    assert states == {"text": ("not_asked", reason), "both": ("answered", None), "picture": ("answered", None)}
    assert (len(lmm.requests), len(result.asked), result.ended) == (2, 2, None)
    assert unasked_flag(reason) in result.flags
    assert method == "posterior" or [each.image_id for each in result.ranking] == ["text", "both", "picture"]


def test_pictures_that_are_no_documents_are_not_asked_about_either(
    documents: DocumentsCollection, tmp_path: Path
) -> None:
    """With a prompt that the model can't answer."""
    lmm = ScriptedLMM(lambda _: 0.9)
    strategy = load_strategy("true-false-reference", prompts="fieldnotes")
    agent = Agent(Resources(images=FolderCollection(tmp_path), lmm=lmm), strategy)
    query = Query(id="q", text="in red", reference_image="query.png")
    result = asyncio.run(agent.rerank(query, [Candidate("picture.png", 0.5)]))
    assert (lmm.requests, [verdict.state for verdict in result.verdicts]) == ([], ["not_asked"])


def test_where_no_pair_has_a_prompt_the_priors_order_stands(documents: DocumentsCollection) -> None:
    query = Query(id="q", text="", reference_image="query")
    settings = {"verify.documents": {"text -> text": "true_false_text"}}
    lmm = ScriptedLMM(lambda _: 0.9)
    agent = Agent(Resources(images=documents, lmm=lmm), load_strategy("true-false-fused", settings))
    result = asyncio.run(agent.rerank(query, [Candidate("text", 0.5), Candidate("picture", 0.4)]))
    assert (lmm.requests, result.asked, result.ended) == ([], (), None)
    assert [verdict.state for verdict in result.verdicts] == ["not_asked", "not_asked"]
    assert [each.image_id for each in result.ranking] == ["text", "picture"]


def test_a_change_may_be_judged_beside_the_querys_own_picture(documents: DocumentsCollection) -> None:
    query = Query(id="q", text="in red", reference_image="query")
    _, (request,) = reranked(documents, "true-false-reference", query, "picture")
    assert [image.image_id for image in request.images] == ["query", "picture"]


def test_a_ranking_says_what_each_document_is(documents: DocumentsCollection) -> None:
    result, _ = reranked(documents, "true-false-fused", Query(id="q", text=ASKED), "picture", "text", "both")
    recorded = {each.image_id: (each.modality, each.text) for each in result.ranking}
    assert recorded == {"picture": ("image", ""), "text": ("text", WORDS), "both": ("image,text", WORDS)}
    assert RerankResult.model_validate_json(result.model_dump_json()) == result
    picture = next(each for each in result.ranking if each.image_id == "picture")
    assert not {"modality", "text"} & picture.model_dump().keys()  # as earlier versions wrote it


def test_a_strategy_about_pictures_leaves_a_text_where_its_prior_put_it(documents: DocumentsCollection) -> None:
    result, requests = reranked(documents, "yes-no", Query(id="q", text=ASKED), "text", "picture")
    assert [each.image_id for each in result.ranking] == ["text", "picture"]
    errors = {verdict.image_id: (verdict.state, verdict.error) for verdict in result.verdicts}
    assert errors == {"text": ("not_asked", TEXT_UNASKED), "picture": ("answered", None)}
    assert len(requests) == 1


def test_a_scorer_reads_pictures_texts_and_both(documents: DocumentsCollection) -> None:
    scorer = ScriptedScorer(lambda inputs, document: float(len(document)))
    cached = CachedScorer(scorer, MemoryStore(), documents)
    resources = Resources(images=documents, scorer=ImageScorer(cached, documents))
    agent = Agent(resources, load_strategy("cross-encoder"))
    query = Query(id="q", text=ASKED, instruction="Find it.")
    candidates = [Candidate(name, 0.0) for name in ("picture", "text", "both")]
    result = asyncio.run(agent.rerank(query, candidates))
    assert [each.image_id for each in result.ranking] == ["both", "picture", "text"]
    hashes = {name: documents.pixel_hash(name) for name in ("picture", "both")}
    assert {read for _, read in scorer.asked} == {hashes["picture"], WORDS, f"{hashes['both']} {WORDS}"}
    assert {inputs.instruction for inputs, _ in scorer.asked} == {"Find it."}
    asyncio.run(agent.rerank(query, candidates))
    assert len(scorer.asked) == 3  # each is remembered under a key of its own


def test_prompts_about_documents_do_not_go_with_predicates() -> None:
    settings = {"verify.documents": {"text -> text": "true_false_text"}}
    with pytest.raises(StrategyError, match="`documents` are prompts about the whole query"):
        load_strategy("agent", settings)
