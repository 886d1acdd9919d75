"""The page of a run's prompts, and which prompt a request was made with."""

from __future__ import annotations

import html
import re
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.agent.call import messages
from fieldscope.agent.lmm.base import ImagePart, LMMRequest, TextPart
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.prompts.prompt import Prompt
from fieldscope.prompts.prompt_set import list_prompts, list_sets, load_prompt
from fieldscope.service.viewer import addresses
from fieldscope.service.viewer.pages import prompts
from fieldscope.service.viewer.runs.exchange import exchanges
from fieldscope.service.viewer.runs.prompt_text import wording
from fieldscope.service.viewer.runs.run_list import RunList
from fieldscope.service.viewer.site import Site
from tests.service.viewer import shelves
from tests.service.viewer.shelves import Made

SHIPPED = [load_prompt(name, prompt_set) for prompt_set in list_sets() for name in list_prompts(prompt_set)]


def shown(made: Made, name: str, stored: bool = True) -> str:
    site = Site(RunList(made.root, store=made.store if stored else None), live=False)
    return site.render(site.page(addresses.prompts_page(addresses.slug(name))))


def words(page: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def sent(prompt: Prompt, **values: str) -> LMMRequest:
    picture = ImagePart(image_id="1", sha256="0" * 64)
    return LMMRequest(messages=messages(prompt, picture, TextPart(text=prompt.render(**values))))


def own_words(prompt: Prompt) -> str:
    """A prompt without the names of what is put in, in which alone some shipped ones differ."""
    return re.sub(r"{{.*?}}", "{{}}", prompt.template)


@given(st.sampled_from(SHIPPED), st.data())
def test_a_request_shows_its_prompt_and_what_was_put_in(prompt: Prompt, data: st.DataObject) -> None:
    values = {name: data.draw(st.text(max_size=30)) for name in prompt.variables}
    request = sent(prompt, **values)
    found = wording(request, SHIPPED)
    assert found is not None
    assert found.text == prompt.render(**values)
    assert found.prompt.system == prompt.system
    # Shipped prompts can be told apart by their own words, where they differ; but what is put in may imitate them.
    if all(value.isalnum() for value in values.values()):
        assert own_words(found.prompt) == own_words(prompt)
        put_in = {piece.variable: piece.text for piece in found.pieces if piece.variable}
        assert sorted(put_in.values()) == sorted(values.values())
        assert found.prompt.template != prompt.template or put_in == values


def test_a_request_of_no_prompt_has_none() -> None:
    prompt = load_prompt("ask_predicate", "fieldnotes")
    request = LMMRequest(messages=messages(prompt, TextPart(text="something else")))
    assert wording(request, [prompt]) is None
    assert wording(LMMRequest(messages=()), [prompt]) is None


@pytest.mark.parametrize("stored", [True, False])
def test_every_prompt_is_told_in_full(small_shelf: Made, stored: bool) -> None:
    page = shown(small_shelf, "agent", stored)
    said = words(page)
    used = load_strategy("agent", prompts="fieldnotes").prompts
    assert len(used) > 5
    for prompt in used:
        assert f'id="prompt-{prompt.name}"' in page
        assert prompt.fingerprint in said
        assert " ".join(prompt.system.split()) in said
        for piece in prompt.pieces[::2]:
            assert " ".join(piece.split()) in said
    for one, other in combinations(used, 2):
        assert f'data-a="{one.name}" data-b="{other.name}"' in page


@pytest.mark.parametrize("stored", [True, False])
def test_examples_are_what_was_sent(small_shelf: Made, stored: bool) -> None:
    run = RunList(small_shelf.root, store=small_shelf.store if stored else None).run("agent")
    assert run is not None
    page = prompts.page(run)
    by_name = {each.used.name: each for each in page.context["prompts"]}
    for name in ("synthesize", "decompose", "ask_predicate", "match_yes_no", "compare_pair", "explain"):
        examples = by_name[name].examples
        assert examples, name
        for example in examples:
            assert example.exchange.source == ("cache" if stored else "proven")
            (again,) = exchanges(run, example.result, [example.exchange.asked])
            assert again.wording is not None
            assert again.wording.text == example.exchange.wording.text
            assert again.wording.prompt.name == name
    assert len({example.result.query_id for example in by_name["ask_predicate"].examples}) > 1
    assert by_name["caption"].examples == ()  # no request of this run is a change to an image


def test_the_difference_is_marked_by_more_than_colour(small_shelf: Made) -> None:
    page = shown(small_shelf, "agent")
    pair = page[page.index('data-a="compare_pair" data-b="compare_pair_reference"') :]
    pair = pair[: pair.index("</details>")]
    a, b = load_prompt("compare_pair", "fieldnotes"), load_prompt("compare_pair_reference", "fieldnotes")
    shown_text = pair[pair.index("Template</h3>") :]
    body = html.unescape(shown_text[shown_text.index('<div class="said"') : shown_text.index("</div>")])
    body = body[body.index(">") + 1 :]
    old = re.sub(r"<ins>.*?</ins>", "", body, flags=re.DOTALL).replace("<del>", "").replace("</del>", "")
    new = re.sub(r"<del>.*?</del>", "", body, flags=re.DOTALL).replace("<ins>", "").replace("</ins>", "")
    assert (old, new) == (a.template, b.template)


def test_a_strategy_without_a_model_has_no_prompts(small_shelf: Made) -> None:
    assert "asks no model, so it has no prompts" in words(shown(small_shelf, "clip"))


def test_an_old_run_shows_prompts_by_their_fingerprints(small: Made) -> None:
    shelves.bare(small.run("predicates"))
    said = words(shown(small, "predicates"))
    assert "keeps only the names and fingerprints of its prompts" in said
    prompt = load_prompt("ask_predicate", "fieldnotes")
    assert prompt.fingerprint in said
    assert "answer yes or no." in said
    path = small.run("predicates") / "manifest.json"
    path.write_text(path.read_text().replace(prompt.fingerprint, "f" * 64))
    page = words(shown(small, "predicates"))
    assert "f" * 64 in page
    assert "The text of this prompt is not available." in page


def test_what_is_hostile_is_words(hostile_shelf: Made) -> None:
    page = shown(hostile_shelf, "predicates")
    assert shelves.SCRIPT not in page
    assert "<img src=x" not in page
