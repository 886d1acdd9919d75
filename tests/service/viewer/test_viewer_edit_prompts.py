"""Prompts side by side, to be edited: only where a service runs them, and only of runs that can be run again."""

from __future__ import annotations

import html
from pathlib import Path

import pytest

from fieldscope.core.errors import ConfigError
from fieldscope.eval.runs.notes import LONGEST_NOTE, read_notes, write_notes
from fieldscope.service.viewer import addresses
from fieldscope.service.viewer.page import NoPage
from fieldscope.service.viewer.site import Site
from tests.service.viewer.shelves import Made


def test_two_runs_or_one_twice(small: Made) -> None:
    site = Site(small.shelf(), live=True, try_it=True)
    for keys in (["agent"], ["predicates", "agent"]):
        text = site.render(site.page(addresses.edit_prompts_page(keys)))
        assert text.count('aria-label="Template of ask_predicate in') == 2
        for run in keys:
            found = small.shelf().run(run)
            assert found is not None and found.strategy_in_full is not None
            for prompt in found.strategy_in_full.prompts:
                assert html.escape(prompt.template, quote=False).replace('"', "&#34;") in text
    compared = site.render(site.page(addresses.compare_page(["predicates", "agent"])))
    assert 'href="../../compare/predicates+agent/prompts.html"' in compared


def test_it_is_not_there_without_a_service_and_for_runs_without_prompts(small: Made) -> None:
    with pytest.raises(NoPage):
        Site(small.shelf(), live=True).page(addresses.edit_prompts_page(["agent"]))
    site = Site(small.shelf(), live=True, try_it=True)
    for keys in (["clip"], ["agent", "clip"], ["agent", "predicates", "clip"], ["nowhere"]):
        with pytest.raises(NoPage):
            site.page(addresses.edit_prompts_page(keys))
    assert not [address for address in site.addresses() if address.endswith("+agent/prompts.html")]


def test_tags_and_notes_are_kept_shown_and_escaped(few: Made) -> None:
    folder = few.run("agent")
    kept = write_notes(folder, " short words, <b>bold</b>,short  words,, ", " seen & done ")
    try:
        assert (kept.tags, kept.note) == (("short words", "<b>bold</b>"), "seen & done")
        assert read_notes(folder) == kept
        site = Site(few.shelf(), live=True)
        for address in (addresses.INDEX, addresses.run_page("agent")):
            text = site.render(site.page(address))
            assert "&lt;b&gt;bold&lt;/b&gt;" in text and "<b>bold" not in text and "seen &amp; done" in text
        exported = Site(few.shelf(), live=False)
        assert "<form method" not in exported.render(exported.page(addresses.run_page("agent")))
        with pytest.raises(ConfigError, match="characters"):
            write_notes(folder, "x", "n" * (LONGEST_NOTE + 1))
        with pytest.raises(ConfigError, match="tags"):
            write_notes(folder, "x" * 41, "")
        (folder / "notes.json").write_text("{")
        assert read_notes(folder).tags == ()
    finally:
        Path(folder / "notes.json").unlink()
