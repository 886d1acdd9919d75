"""Sets of prompts: what is shipped, folders of a user's own, forms, and examples with pictures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image as PILImage

from fieldscope.agent.call import messages
from fieldscope.agent.lmm.base import ImagePart, TextPart
from fieldscope.agent.query_text import instructions_text, own_words, request_text
from fieldscope.agent.schemas import PredicatesAnswer, SynthesisAnswer
from fieldscope.agent.strategies.strategy import list_strategies, load_strategy
from fieldscope.agent.types import Instruction
from fieldscope.core.errors import PromptError, StrategyError
from fieldscope.core.types import Query, Turn
from fieldscope.prompts.examples import MOST_BYTES
from fieldscope.prompts.prompt_set import list_prompts, load_prompt, open_prompt_set, shipped_set
from fieldscope.retrieval.collection import FolderCollection
from fieldscope.service.wiring.prompt_pictures import with_examples

# The first digits of the fingerprints that the bundled LMM's prompts have always had. Its calibrations and all answers
# in caches belong to them.
BUNDLED = {
    "ask_joint": "8841faa7a4b6a728",
    "ask_predicate": "2bbbc68be7d72e45",
    "caption": "907fa137a8503053",
    "compare_pair": "1208feac6cc15945",
    "compare_pair_reference": "37cdd1eaee7b54f8",
    "compare_set": "de7006b86f2e5e15",
    "compare_set_reference": "c5669b543b117fcb",
    "decompose": "f76f5972c178dec3",
    "evaluate_reference": "1d911c5e5f430e5d",
    "explain": "ca3e7ed8ae10384a",
    "match_text": "1011395659ea552d",
    "match_true_false": "885bd4b51e2d5096",
    "match_yes_no": "55bf5ebb3050f667",
    "synthesize": "a8a883bbbe585aef",
    "synthesize_again": "16882b87157ce532",
}
QUERIES = {
    "text": Query(id="q", text="a heron"),
    "composed": Query(id="q", text="at night", reference_image="r"),
    "dialogue": Query(
        id="q", text="a bird", dialogue=(Turn(question="big?", answer="yes"), Turn(question="wet?", answer="no"))
    ),
}
INSTRUCTIONS = [Instruction(text="a heron", words="heron", type="addition")] * 2


def picture(path: Path, colour: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PILImage.new("RGB", (9, 7), colour).save(path)
    return path


def own(folder: Path, name: str = "match_yes_no", more: str = "", answer: str = "yes_no") -> Path:
    folder.mkdir(exist_ok=True)
    text = f"---\nname: {name}\nvariables: [query]\nanswer: {answer}\n{more}---\nIs it {{{{ query }}}}?\n"
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    return folder


def shown(folder: Path, *paths: str) -> str:
    listed = "".join(f"\n  - images: [{path}]\n    text: Is it a heron?\n    answer: 'Yes'" for path in paths)
    return f"examples:{listed}\n"


def test_the_bundled_models_prompts_are_what_they_were() -> None:
    assert {name: load_prompt(name, "fieldnotes").fingerprint[:16] for name in BUNDLED} == BUNDLED


@pytest.mark.parametrize(
    ("kind", "fieldnotes", "instruct"),
    [
        ("text", 'query: "a heron".', 'Request: "a heron"'),
        ("composed", 'reference: "a fox". change: "at night".', 'Reference: "a fox"\nChange: "at night"'),
        (
            "dialogue",
            "dialogue: a bird. q: big? a: yes. q: wet? a: no.",
            'First description: "a bird"\nQuestion: "big?"\nAnswer: "yes"\nQuestion: "wet?"\nAnswer: "no"',
        ),
    ],
)
def test_each_set_words_a_request_in_its_own_form(kind: str, fieldnotes: str, instruct: str) -> None:
    said = [
        request_text(QUERIES[kind], "a fox", load_prompt("synthesize", name)) for name in ("fieldnotes", "instruct")
    ]
    assert said == [fieldnotes, instruct]


def test_each_set_words_instructions_in_its_own_form() -> None:
    assert [instructions_text(INSTRUCTIONS, load_prompt("decompose", name)) for name in ("fieldnotes", "instruct")] == [
        '1. addition: a heron ("heron"). 2. addition: a heron ("heron").',
        '1. [addition] a heron (from: "heron")\n2. [addition] a heron (from: "heron")',
    ]


def test_the_worked_examples_are_answers_of_the_kind_they_teach() -> None:
    taught = load_prompt("synthesize").system.split("Example, ")[1:]
    assert len(taught) == 6
    for example in taught:
        request, _, answer = example.partition('\n{"')
        said = SynthesisAnswer.model_validate_json('{"' + answer.split("\n")[0])
        assert all(own_words(each.words, Query(id="q", text=request)) for each in said.instructions)
    lines = [line for line in load_prompt("decompose").system.splitlines() if line.lstrip().startswith('{"')]
    assert len([PredicatesAnswer.model_validate_json(line) for line in lines]) == 5


def test_all_questions_about_one_image_begin_alike_so_that_a_server_reads_it_once() -> None:
    prompts = [load_prompt(name) for name in list_prompts()]
    about_one = [
        prompt
        for prompt in prompts
        if (prompt.answer in ("yes_no", "answers", "probability") or prompt.name == "explain") and prompt.shows is None
    ]
    apart = ("match_text", "imagescope_ask", "imagescope_evaluate", "imagescope_evaluate_reference")
    systems = {prompt.system for prompt in about_one if prompt.name not in apart}
    assert len(systems) == 1
    image = ImagePart(image_id="a", sha256="0")
    first, second = messages(about_one[0], image, TextPart(text="x"))
    assert first.role == "system" and second.content[0] == image


def test_every_shipped_strategy_finds_its_prompts_in_each_set() -> None:
    for name in list_strategies():
        one, other = (load_strategy(name, prompts=prompt_set) for prompt_set in ("fieldnotes", "instruct"))
        assert [prompt.name for prompt in one.prompts] == [prompt.name for prompt in other.prompts]
        assert (one.fingerprint == other.fingerprint) == (not one.prompts)
        assert one.prompt_set == ("fieldnotes" if one.prompts else None)


def test_a_strategys_file_does_not_choose_the_set(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("name: s\nprompt_set: instruct\nverify: {prompt: match_yes_no}\nfusion: {method: p_yes}\n")
    with pytest.raises(StrategyError, match="use --prompts"):
        load_strategy(file)


def test_a_folder_replaces_some_prompts_and_has_the_rest_from_its_base(tmp_path: Path) -> None:
    mine = open_prompt_set(own(tmp_path / "mine"), "fieldnotes")
    assert (mine.name, mine.own_names, mine.names) == ("mine/", ("match_yes_no",), list_prompts("fieldnotes"))
    assert mine.load("match_yes_no").render(query="a crab") == "Is it a crab?"
    assert mine.load("explain") == load_prompt("explain", "fieldnotes")
    assert (mine.origin("match_yes_no"), mine.origin("explain")) == ("mine/", "fieldnotes")


def test_a_prompt_without_forms_has_those_of_its_base(tmp_path: Path) -> None:
    folder = own(tmp_path / "mine", "compare_pair", answer="letter")
    assert open_prompt_set(folder).load("compare_pair").form("candidate", letter="a", capital="A") == "Photograph A:"
    own(tmp_path / "mine", "compare_pair", 'forms: {candidate: "{{ letter }})"}\n', "letter")
    assert open_prompt_set(folder).load("compare_pair").form("candidate", letter="a", capital="A") == "a)"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("forms: {candidate: x}\n", "a prompt for yes_no has no form 'candidate'"),
        ("system: x\nsystem_file: y.txt\n", "both system and system_file"),
        ("system_file: ../y.txt\n", "no file beside the prompt"),
        ("system_file: y.txt\n", "can't be read"),
        ("examples: x\n", "must be a list"),
        ("examples: [{images: x, text: a, answer: b}]\n", "must be a list of paths"),
        ("examples: [{images: [../out.png], text: a, answer: b}]\n", "lies outside of the prompt's folder"),
        ("examples: [{images: [gone.png], text: a, answer: b}]\n", "can't be read as a PNG, JPEG or WebP"),
        ("examples: [{images: [match_yes_no.md], text: a, answer: b}]\n", "can't be read as a PNG, JPEG or WebP"),
        ("examples: [{text: a}]\n", "missing key 'examples.0.answer'"),
    ],
)
def test_files_that_cant_be_used(more: str, said: str, tmp_path: Path) -> None:
    picture(tmp_path / "out.png")
    with pytest.raises(PromptError, match=said):
        open_prompt_set(own(tmp_path / "mine", more=more)).load("match_yes_no")


def test_a_link_out_of_the_folder_and_a_huge_file_are_refused(tmp_path: Path) -> None:
    folder = own(tmp_path / "mine", more=shown(tmp_path, "a.png"))
    (folder / "a.png").symlink_to(picture(tmp_path / "out.png"))
    with pytest.raises(PromptError, match="lies outside"):
        open_prompt_set(folder).load("match_yes_no")
    (folder / "a.png").unlink()
    picture(folder / "a.png")
    os.truncate(folder / "a.png", MOST_BYTES + 1)
    with pytest.raises(PromptError, match="more than"):
        open_prompt_set(folder).load("match_yes_no")


def test_an_unknown_set(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="unknown prompt set 'instrct'"):
        open_prompt_set("instrct")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PromptError, match="has no prompts"):
        open_prompt_set(tmp_path / "empty")


def test_examples_are_earlier_turns_whose_pictures_reach_the_model(tmp_path: Path) -> None:
    folder = own(tmp_path / "mine", more="system: Look.\n" + shown(tmp_path, "pictures/a.png", "pictures/b.png"))
    picture(folder / "pictures" / "a.png"), picture(folder / "pictures" / "b.png", "blue")
    prompt = open_prompt_set(folder).load("match_yes_no")
    collection = FolderCollection(picture(tmp_path / "images" / "c.png", "green").parent)
    sent = messages(prompt, ImagePart(image_id="c.png", sha256=collection.pixel_hash("c.png")), TextPart(text="Is it?"))
    assert [message.role for message in sent] == ["system", "user", "assistant", "user", "assistant", "user"]
    images = with_examples(collection, [prompt])
    parts = [part for message in sent for part in message.content if isinstance(part, ImagePart)]
    assert [images.load(part.image_id).getpixel((0, 0)) for part in parts] == [(255, 0, 0), (0, 0, 255), (0, 128, 0)]
    assert [images.pixel_hash(part.image_id) for part in parts] == [part.sha256 for part in parts]
    assert with_examples(collection, [load_prompt("match_yes_no")]) is collection


def test_another_picture_is_another_prompt(tmp_path: Path) -> None:
    folder = own(tmp_path / "mine", more=shown(tmp_path, "a.png"))
    prints = []
    for colour in ("red", "blue"):
        picture(folder / "a.png", colour)
        prints.append(open_prompt_set(folder).load("match_yes_no").fingerprint)
    assert len({*prints, load_prompt("match_yes_no").fingerprint}) == 3
    again = open_prompt_set(folder).load("match_yes_no")
    assert type(again).model_validate(again.model_dump(mode="json")).fingerprint == prints[1]


def test_a_prompt_may_name_the_query_beside_the_question(tmp_path: Path) -> None:
    text = "---\nname: p\nvariables: [query, question]\nanswer: yes_no\n---\n{{ query }}: {{ question }}\n"
    (tmp_path / "p.md").write_text(text)
    strategy = load_strategy("predicates", {"verify.prompt": str(tmp_path / "p.md")})
    assert strategy.verify is not None
    settings = strategy.verify.about("a {{ question }}")
    assert settings.prompt.render(question="is it red?") == "a {{ question }}: is it red?"
    with pytest.raises(PromptError, match="species"):
        (tmp_path / "p.md").write_text(text.replace("query", "species"))
        load_strategy("predicates", {"verify.prompt": str(tmp_path / "p.md")})


def test_a_shipped_set_has_a_prompt_for_every_name_of_the_other() -> None:
    bundled_lmm_names_no_boxes = {"ground"}
    assert set(shipped_set("instruct").names) - bundled_lmm_names_no_boxes == set(shipped_set("fieldnotes").names)
