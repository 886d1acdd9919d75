"""A run repeated with its prompts in other words: over the same queries, and nothing that could mislead is run."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

import fieldscope.fieldnotes.vocabulary
from fieldscope.core.errors import ConfigError, PromptError, VocabularyError
from fieldscope.eval.runs.read import read_metrics
from fieldscope.service.wiring.settings import Settings
from fieldscope.service.workflows.prompt_edits import PromptEdit, Wording, edit_caveat, open_edit, price_edit, run_edit
from tests.service.conftest import Run, World

ASKED = Wording("", "is there {{ query }}? answer yes or no.")


@pytest.fixture
def made(run: Run, world: World) -> Path:
    """The folder of a run of `yes-no` over four queries."""
    words = fieldscope.fieldnotes.vocabulary.MODELS / "lmm" / "vocabulary.txt"
    words.write_text(f"{words.read_text()}\nis there answer yes or no a\n")
    fieldscope.fieldnotes.vocabulary.known_words.cache_clear()
    done = run("eval", "fieldnotes-rerank", "--strategy", "yes-no", "--out", "runs")
    assert done.exit_code == 0, done.output
    return Path("runs") / "yes-no"


def test_the_new_run_has_the_same_queries_and_the_new_words(made: Path, world: World) -> None:
    opened = open_edit(PromptEdit(made, {"match_yes_no": ASKED}, queries=3, name="is-there"))
    assert price_edit(opened, Settings()).estimate.calls == 3 * 12
    assert edit_caveat(opened, Settings()) is None
    before = len(world.asked)
    folder = asyncio.run(run_edit(opened, Path("runs") / "reworded", Settings()))
    assert folder == Path("runs/reworded/fieldnotes-rerank-test/is-there")
    assert {request.text.partition(" ")[0] for request in world.asked[before:]} == {"is"}
    old, new = (read_metrics(each).per_query for each in (made, folder))
    assert list(new) == list(old)[:3]
    manifests = [json.loads((each / "manifest.json").read_text())["configuration"] for each in (made, folder)]
    assert manifests[0]["benchmark"] == manifests[1]["benchmark"]
    assert manifests[0]["encoder"] == manifests[1]["encoder"]
    # The same words again ask nothing, and others with the same name are refused.
    asked = len(world.asked)
    asyncio.run(run_edit(opened, Path("runs") / "reworded", Settings()))
    assert len(world.asked) == asked
    other = open_edit(PromptEdit(made, {"match_yes_no": Wording("", "{{ query }}?")}, queries=3, name="is-there"))
    with pytest.raises(ConfigError):
        asyncio.run(run_edit(other, Path("runs") / "reworded", Settings()))


def test_what_can_not_be_run_is_refused_in_a_sentence(made: Path, world: World) -> None:
    def refused(prompt: str, template: str, name: str | None = None) -> str:
        with pytest.raises(ConfigError) as error:
            open_edit(PromptEdit(made, {prompt: Wording("", template)}, name=name))
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "did you mean 'match_yes_no'" in refused("match_yes_n", "{{ query }}?")
    assert "no words" in refused("match_yes_no", "  ")
    assert "no prompt was changed" in refused(
        "match_yes_no", 'does this image match the description: "{{ query }}"? answer yes or no.'
    )
    assert "can't name a run" in refused("match_yes_no", "{{ query }}?", name="../elsewhere")
    with pytest.raises(PromptError, match="'question'"):
        open_edit(PromptEdit(made, {"match_yes_no": Wording("", "{{ question }}?")}))
    with pytest.raises(PromptError, match="never uses"):
        open_edit(PromptEdit(made, {"match_yes_no": Wording("", "is it so?")}))
    unknown = open_edit(PromptEdit(made, {"match_yes_no": Wording("", "is {{ query }} a zebra?")}))
    with pytest.raises(VocabularyError, match="zebra"):
        asyncio.run(run_edit(unknown, Path("runs"), Settings()))
    with pytest.raises(ConfigError):
        open_edit(PromptEdit(made.parent, {"match_yes_no": ASKED}))
