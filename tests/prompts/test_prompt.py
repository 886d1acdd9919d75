"""Prompts: what may be put into them, what may not, and what their fingerprints stand for."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.core.errors import PromptError
from fieldscope.prompts.prompt import Prompt, parse_prompt
from fieldscope.prompts.prompt_set import list_prompts, list_sets, load_prompt

FRONT = "name: mine\nvariables: [query]\nanswer: yes_no\n"


def file_of(front: str = FRONT, template: str = 'Is "{{ query }}" in the picture?') -> str:
    return f"---\n{front}---\n{template}\n"


def test_every_shipped_prompt_loads_under_its_file_name() -> None:
    assert list_sets() == ("fieldnotes", "instruct")
    assert set(list_prompts("fieldnotes")) == set(list_prompts("instruct")) - {"ground"}  # the bundled LMM names no box
    for name, prompt_set in product(list_prompts("fieldnotes"), list_sets()):
        prompt = load_prompt(name, prompt_set)
        assert prompt.name == name
        assert prompt.description


def test_the_question_about_a_whole_query_is_worded_as_the_bundled_model_learned_it() -> None:
    assert load_prompt("match_yes_no", "fieldnotes").render(query="two red crabs") == (
        'does this image match the description: "two red crabs"? answer yes or no.'
    )


def test_a_missing_variable_is_named() -> None:
    with pytest.raises(PromptError, match="'match_yes_no' needs the variable 'query', which is not given"):
        load_prompt("match_yes_no").render()


def test_a_variable_that_is_not_declared_is_named() -> None:
    with pytest.raises(PromptError, match="does not declare the variable 'species'"):
        load_prompt("match_yes_no").render(query="a crab", species="Pagurus")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (file_of(template="Is {{ species }} a {{ query }}?"), "uses the variable 'species', which is not declared"),
        (file_of(template="Is it?"), "'query' is declared, but the template never uses it"),
        (file_of(template="Is {{ query }} or {{ query|upper }}?"), "is no placeholder"),
        (file_of(template="Is {{ query }} or {{ query"), "is no placeholder"),
        (file_of(front=FRONT + "anwser: yes_no\n"), r"unknown key 'anwser' \(did you mean 'answer'\?\)"),
        (file_of(front=FRONT + "template: x\n"), "unknown key 'template'"),
        (file_of(front="name: mine\nanswer: yes_no\n"), "missing key 'variables'"),
        (file_of(front=FRONT.replace("yes_no", "essay")), "answer: .*yes_no"),
        (file_of(front="name: [\n"), "mine.md, line [0-9]+: not valid YAML"),
        (file_of(front="- name\n"), "must be a YAML mapping"),
        (file_of(template=""), "template: "),
        ("Is {{ query }} there?", "must begin with a front matter"),
    ],
)
def test_a_faulty_file_is_refused_in_one_line_that_names_file_and_fault(text: str, named: str) -> None:
    with pytest.raises(PromptError, match=named) as caught:
        parse_prompt(text, "mine.md")
    assert str(caught.value).startswith("mine.md")
    assert "\n" not in str(caught.value)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(PromptError, match=r"'match_yesno' \(did you mean 'match_yes_no'\?\); known: .*match_yes_no"):
        load_prompt("match_yesno")


def test_a_users_own_prompt_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.md"
    path.write_text(file_of(), encoding="utf-8")
    assert load_prompt(path).render(query="a crab") == 'Is "a crab" in the picture?'
    assert load_prompt(str(path)) == load_prompt(path)


def test_a_missing_or_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"gone\.md: can't be read"):
        load_prompt(tmp_path / "gone.md")
    (tmp_path / "binary.md").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PromptError, match="not UTF-8"):
        load_prompt(tmp_path / "binary.md")


def test_windows_line_ends_make_the_same_prompt() -> None:
    unix = parse_prompt(file_of(), "mine.md")
    assert parse_prompt(file_of().replace("\n", "\r\n"), "mine.md") == unix


@given(st.text())
def test_values_are_plain_text_and_are_never_rendered_again(value: str) -> None:
    prompt = Prompt(name="p", variables=("a", "b"), answer="yes_no", template="<{{ a }}|{{b}}>")
    assert prompt.render(a=value, b="{{ a }}") == f"<{value}|{{{{ a }}}}>"


def test_json_in_a_template_stays_as_it_is() -> None:
    template = '{"outer": {"inner": "{{ query }}"}}'
    assert parse_prompt(file_of(template=template), "mine.md").render(query="x") == '{"outer": {"inner": "x"}}'


def test_the_fingerprint_follows_the_wording_and_not_what_is_said_about_it() -> None:
    base = parse_prompt(file_of(), "mine.md")
    renamed = parse_prompt(file_of(front=FRONT.replace("mine", "other") + "description: new\n"), "other.md")
    reworded = parse_prompt(file_of(template="Is {{ query }} there?"), "mine.md")
    assert base.fingerprint == renamed.fingerprint
    assert base.fingerprint != reworded.fingerprint
