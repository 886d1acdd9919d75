"""`fieldscope search`: what a strategy thinks out is searched by; an image and a change, and dialogues, are queries."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PILImage

import fieldscope.fieldnotes.vocabulary
import fieldscope.service.wiring.bundled
import fieldscope.service.wiring.models
from fieldscope.agent.lmm.base import LMM, LMMRequest, LMMResponse, TokenLogprob
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.core.errors import ConfigError
from fieldscope.core.types import ImageSource, Query, Search, Turn
from fieldscope.retrieval.captions import write_captions
from fieldscope.retrieval.collection import FolderCollection
from fieldscope.retrieval.encoder import Encoder
from fieldscope.retrieval.library import build_index, open_library
from fieldscope.retrieval.opening import open_collection
from fieldscope.service.wiring.models import load_encoder
from fieldscope.service.wiring.queries import LARGEST_DIALOGUE, MOST_ROUNDS, make_query
from fieldscope.service.wiring.settings import Settings
from tests.service.conftest import FOX, MODELS, Run, World

CHANGE = "the same, but at night"
CAPTION = "a sleeping white owl in a forest"
ROUNDS = [
    {"question": "what is the weather?", "answer": "at night"},
    {"question": "where is it?", "answer": "in the woods"},
]
WHOLE = "does the image match?"
OWL, NIGHT = "is there a sleeping white owl?", "is it night?"
SHOWS = {OWL: {5, 6, 7}, NIGHT: {6, 7}}


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder(Settings())


@pytest.fixture(scope="module")
def index(encoder: Encoder, rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of FieldNotes' dozen pictures."""
    folder = tmp_path_factory.mktemp("library") / "index"
    build_index(open_collection([rendered]), encoder, folder)
    return folder


@pytest.fixture
def dialogue(tmp_path: Path) -> Path:
    file = tmp_path / "dialogue.json"
    file.write_text(json.dumps(ROUNDS, indent="\t"), encoding="utf-8")
    return file


Install = Callable[[Mapping[str, set[int]], set[int]], list[LMMRequest]]


@pytest.fixture
def thinking(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Let the bundled LMM think: it asks these questions, knows of which pictures they hold, and which match as a
    whole."""
    shutil.copy(MODELS / "lmm" / "vocabulary.txt", tmp_path / "models" / "lmm" / "vocabulary.txt")
    fieldscope.fieldnotes.vocabulary.known_words.cache_clear()

    def install(shows: Mapping[str, set[int]], whole: set[int]) -> list[LMMRequest]:
        asked: list[LMMRequest] = []

        def model(images: ImageSource) -> LMM:
            holds = {
                question: {images.pixel_hash(f"{n:06d}.png") for n in numbers}
                for question, numbers in {**shows, WHOLE: whole}.items()
            }

            def answer(request: LMMRequest) -> LMMResponse | str | float:
                asked.append(request)
                return think(request, list(shows)) if not request.images else look(request, holds)

            return ScriptedLMM(answer, identity="thinking")

        monkeypatch.setattr(fieldscope.service.wiring.models, "bundled_lmm", model)
        return asked

    return install


def think(request: LMMRequest, questions: list[str]) -> str:
    if "question for every instruction" in request.text:
        asked = [{"question": q, "expected": "yes", "words": "", "type": "other"} for q in questions]
        return json.dumps({"predicates": asked})
    facts = [{"text": q, "words": "", "type": "addition"} for q in questions]
    core = "an owl" if "earlier answer" not in request.text else "a bird"
    said = {"thought": "", "core": core, "detailed": "a white owl", "comprehensive": CAPTION, "instructions": facts}
    return json.dumps(said)


def look(request: LMMRequest, holds: Mapping[str, set[str]]) -> LMMResponse | str | float:
    text = request.text
    if text == "describe the image.":
        return CAPTION
    if "give the reason" in text:
        return "yes, it does."
    if "answer a or b" in text:
        a, b = (image.sha256 in holds[WHOLE] for image in request.images[-2:])
        p = 0.5 + 0.4 * (a - b)
        tokens = [TokenLogprob(token=token, logprob=math.log(share)) for token, share in (("a", p), ("b", 1 - p))]
        return LMMResponse(text="a" if p > 0.5 else "b", answer_logprobs=tuple(tokens))
    question = next((question for question in holds if question in text), WHOLE)
    return 0.95 if request.images[-1].sha256 in holds[question] else 0.05


def told(run: Run, index: Path, *args: object) -> dict[str, Any]:
    result = run("search", "--index", index, *args, "--json")
    assert result.exit_code == 0, result.stderr
    return dict(json.loads(result.stdout))


def images_of(said: Mapping[str, Any]) -> list[str]:
    return [entry["image"] for entry in said["ranking"]]


def priors_of(said: Mapping[str, Any]) -> dict[str, float]:
    return {entry["image"]: entry["prior"] for entry in said["ranking"]}


def searched(index: Path, encoder: Encoder, query: Query, *wording: Any) -> dict[str, Any]:
    found = open_library(index, encoder).search(Search(query, 100, *wording))
    return {candidate.image_id: pytest.approx(candidate.prior, abs=1e-5) for candidate in found}


def test_an_image_and_a_change(run: Run, world: World, index: Path, encoder: Encoder) -> None:
    line = ("search", "--index", index, "--reference", "000005.png", "--query", CHANGE, "-k", "5")
    result = run(*line, "--json")
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    assert (said["query"], said["reference"], said["dialogue"]) == (CHANGE, "000005.png", [])
    by_both = searched(index, encoder, Query(id="q", text=CHANGE, reference_image="000005.png"))
    assert images_of(said) == list(by_both)[:5] and "000005.png" not in by_both
    assert result.stderr.startswith("note: The bundled CLIP does not know 'same', 'but'; it searches by")
    assert result.stderr.count("\n") == 1 and world.asked == []
    assert [row.split()[0] for row in run(*line).stdout.splitlines() if row.strip()[:1].isdigit()] == list("12345")


def test_a_reference_image_by_its_file(
    run: Run, world: World, index: Path, encoder: Encoder, rendered: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(rendered)
    assert told(run, index, "--reference", "link/000005.png", "--query", "fog")["reference"] == "000005.png"
    files = [tmp_path / "link" / f"{n:06d}.png" for n in (5, 6)]
    build_index(open_collection(files), encoder, tmp_path / "of-files")
    said = told(run, tmp_path / "of-files", "--reference", rendered / "000005.png", "--query", "fog")
    assert (said["reference"], images_of(said)) == (files[0].as_posix(), [files[1].as_posix()])


def test_a_reference_image_may_be_a_file_beside_the_index(
    run: Run, world: World, index: Path, encoder: Encoder, rendered: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.png"
    own.write_bytes((rendered / "000005.png").read_bytes())
    said = told(run, index, "--reference", own, "--query", "fog")
    assert said["reference"] == f"query:{own.as_posix()}"
    assert "000005.png" in images_of(said)  # which is left out where it is itself the reference


def test_a_reference_image_must_be_there(
    run: Run, world: World, index: Path, encoder: Encoder, rendered: Path, tmp_path: Path
) -> None:
    for reference in ("lion.png", "../000005.png", str(rendered)):
        result = run("search", "--index", index, "--reference", reference, "--query", "fog")
        assert result.exit_code == 1
        assert "is none of the 12 in the index; index it first" in result.stderr
        assert result.stderr.count("\n") == 1
    build_index(open_collection([rendered / "000005.png"]), encoder, tmp_path / "one")
    alone = run("search", "--index", tmp_path / "one", "--reference", rendered / "000005.png", "--query", "fog")
    assert alone.exit_code == 1 and "the index holds no image but" in alone.stderr


def test_a_dialogue(run: Run, world: World, index: Path, encoder: Encoder, dialogue: Path) -> None:
    line = ("search", "--index", index, "--query", "a sleeping owl", "--dialogue", dialogue)
    result = run(*line, "--json")
    assert (result.exit_code, result.stderr) == (0, "")  # of words that only a question has the CLIP reads none
    said = json.loads(result.stdout)
    assert (said["query"], said["reference"], said["dialogue"]) == ("a sleeping owl", None, ROUNDS)
    rounds = tuple(Turn(**each) for each in ROUNDS)
    assert priors_of(said) == searched(index, encoder, Query(id="q", text="a sleeping owl", dialogue=rounds))
    assert priors_of(said) != searched(index, encoder, Query(id="q", text="a sleeping owl"))


def test_a_query_is_of_one_kind(run: Run, world: World, index: Path, dialogue: Path) -> None:
    both = ("--reference", "000005.png", "--dialogue", dialogue)
    result = run("search", "--index", index, "--query", "fog", *both)
    assert result.exit_code == 2
    assert "two kinds of query" in result.stderr


def test_the_bundled_models_must_know_the_words(run: Run, world: World, index: Path, tmp_path: Path) -> None:
    asking, file = ("search", "--index", index, "--query"), tmp_path / "rounds.yaml"
    change = run(*asking, "but purple", "--reference", "000005.png", "--rerank")
    assert change.exit_code == 1 and "the bundled LMM has never seen these words: 'but', 'purple'" in change.stderr
    file.write_text("- question: is it raining?\n  answer: in the fog")
    question = run(*asking, "an owl", "--dialogue", file, "--rerank")
    assert question.exit_code == 1 and "the bundled LMM has never seen these words: 'it', 'raining'" in question.stderr
    file.write_text("- question: where is the owl?\n  answer: somewhere")
    answer = run(*asking, "an owl", "--dialogue", file)
    assert answer.exit_code == 1 and "the bundled CLIP has never seen this word: 'somewhere'" in answer.stderr


def test_every_scalar_of_a_yaml_dialogue_is_text(tmp_path: Path) -> None:
    file = tmp_path / "rounds.yml"
    file.write_text("- question: is it raining?\n  answer: no\n- {question: how many, answer:  2}\n")
    assert make_query("owls", file).dialogue == (
        Turn(question="is it raining?", answer="no"), Turn(question="how many", answer="2"),
    )  # fmt: skip
    file.write_text("[]")
    assert make_query(" two  owls ", file) == Query(id="query", text="two owls")


@pytest.mark.parametrize(
    ("name", "data", "fault"),
    [
        ("missing.json", None, "can't be read (No such file"),
        ("a.json", b"{", "can't be read as JSON"),
        ("a.yaml", b"- [", "can't be read as YAML"),
        ("a.yaml", b"- {question: is it?, answer: no}", "put the texts in quotes"),
        ("a.json", b'["\xff"]', "can't be read as JSON in UTF-8"),
        ("a.json", b"[" * 5_000, "can't be read as JSON"),
        ("a.yaml", b"[" * 5_000, "can't be read as YAML"),
        ("a.yaml", b"- !!python/object/apply:os.getcwd []", "dialogue.0: "),
        ("a.json", b'{"question": "a", "answer": "b"}', "a dialogue is a list"),
        ("a.json", b"[" + b"1," * MOST_ROUNDS + b"1]", "a list of at most 100 rounds"),
        ("a.json", b'["a"]', "dialogue.0: "),
        ("a.json", b'[{"question": "a"}]', "missing key 'dialogue.0.answer'"),
        ("a.json", b'[{"question": "a", "answer": 2}]', "dialogue.0.answer: "),
        ("a.json", b'[{"question": "a", "answer": "b", "species": "c"}]', "unknown key 'dialogue.0.species'"),
        ("a.json", b'[{"question": "a", "answer": " "}]', "answer 1 must be words"),
        ("a.json", b'[{"question": "\\u001b[2J", "answer": "b"}]', "question 1 must be words"),
        ("a.yaml", b"[]" + b" " * LARGEST_DIALOGUE, "is larger than 64 KiB"),
    ],
)
def test_what_is_no_dialogue(tmp_path: Path, name: str, data: bytes | None, fault: str) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError) as error:
        make_query("an owl", tmp_path / name)
    assert fault in str(error.value) and name in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("strategy", ["agent", "imagescope"])
def test_a_change_is_thought_out_and_reranked(
    run: Run, thinking: Install, index: Path, encoder: Encoder, rendered: Path, strategy: str
) -> None:
    asked = thinking(SHOWS, {6})
    reranking = ("--rerank", "--strategy", strategy)
    said = told(run, index, "--reference", "000005.png", "--query", CHANGE, *reranking)
    assert said["ranking"][0]["image"] == "000006.png"
    assert len(said["ranking"]) == 11 and "000005.png" not in images_of(said)
    assert (said["reference"], said["query"], said["flags"]) == ("000005.png", CHANGE, [])
    query = Query(id="q", text=CHANGE, reference_image="000005.png")
    prior = "query" if strategy == "agent" else "fused"
    assert priors_of(said) == searched(index, encoder, query, ("an owl", "a white owl", CAPTION), 0.15, prior)
    pixels = FolderCollection(rendered).pixel_hash("000005.png")
    assert (asked[0].text, asked[0].images[0].sha256) == ("describe the image.", pixels)
    assert f'reference: "{CAPTION}". change: "{CHANGE}".' in asked[1].text
    if strategy == "agent":  # every predicate is asked about the reference first
        checked = [request for request in asked[1:] if [image.sha256 for image in request.images] == [pixels]]
        assert len(checked) == len(SHOWS)
    else:
        several = [request for request in asked if len(request.images) > 1]
        assert several and {request.images[0].sha256 for request in several} == {pixels}
    assert {q["question"] for q in said["predicates"] if q["kind"] != "query"} == set(SHOWS)


def test_a_dialogue_is_thought_out_and_reranked(
    run: Run, thinking: Install, index: Path, encoder: Encoder, dialogue: Path, tmp_path: Path
) -> None:
    captioned = shutil.copytree(index, tmp_path / "captioned")
    write_captions(captioned, {"000006.png": CAPTION, "000001.png": "two red crabs"}, encoder)
    asked = thinking(SHOWS, {6})
    said = told(run, captioned, "--query", "a sleeping owl", "--dialogue", dialogue, "--rerank", "--strategy", "agent")
    assert said["ranking"][0]["image"] == "000006.png" and said["ranking"][0]["p_match"] > 0.5
    assert said["dialogue"] == ROUNDS
    assert "dialogue: a sleeping owl. q: what is the weather? a: at night. q: where is it?" in asked[0].text
    query = Query(id="q", text="a sleeping owl", dialogue=tuple(Turn(**each) for each in ROUNDS))
    descriptions = ("an owl", "a white owl", CAPTION)
    assert priors_of(said) == searched(captioned, encoder, query, descriptions, 0.15, "query")
    assert priors_of(said) != searched(captioned, encoder, query, descriptions, 0.0, "query")


@pytest.mark.usefixtures("terminal")
def test_a_search_is_widened_and_flags_what_it_finds_then(
    run: Run, thinking: Install, encoder: Encoder, rendered: Path, tmp_path: Path
) -> None:
    (tmp_path / "mixed").mkdir()
    shutil.copy(rendered / "000008.png", tmp_path / "mixed")
    PILImage.new("RGB", (40, 30), "#e01010").save(tmp_path / "mixed" / "red.png")
    folder = tmp_path / "two"
    build_index(open_collection([tmp_path / "mixed"]), encoder, folder)
    thinking({"is there a crab?": set()}, set())
    first = told(run, folder, "--query", FOX, "-k", "1")
    assert (images_of(first), first["flags"]) == (["000008.png"], [])
    line = ("search", "--index", folder, "--query", FOX, "-k", "1", "--rerank", "--strategy", "agent")
    result = run(*line, "--json")
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    assert set(images_of(said)) == {"000008.png", "red.png"}
    assert said["flags"] == [fieldscope.service.wiring.bundled.FOREIGN]
    assert result.stderr.count("warning:") == result.stderr.count("\n") == 1
    assert "1 more were found" in run(*line).stdout


def test_a_model_that_can_not_think_is_asked_the_query_itself(run: Run, world: World, index: Path) -> None:
    said = told(run, index, "--query", FOX, "--rerank", "--strategy", "predicates")
    assert said["ranking"][0]["image"] == "000008.png" and len(said["ranking"]) == 12
    (predicate,) = said["predicates"]
    assert FOX in predicate["question"]
    assert [request.images for request in world.asked[:2]] == [(), ()]
