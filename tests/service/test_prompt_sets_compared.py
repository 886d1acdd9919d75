"""One benchmark in several wordings: a run for each set of prompts, and paired differences between them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image as PILImage

from tests.service.conftest import Run, Server, World
from tests.service.test_evaluate import foreign, payload

__all__ = ["foreign"]

QUESTION = "Is it {{ query }}, as a biologist would say? Yes or no."


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder with one prompt, which shows an example."""
    folder = tmp_path / "my"
    folder.mkdir()
    PILImage.new("RGB", (12, 8), "green").save(folder / "green.png")
    example = "examples: [{images: [green.png], text: 'Is it a frog? Yes or no.', answer: 'No'}]"
    front = f"name: match_yes_no\nvariables: [query]\nanswer: yes_no\n{example}"
    (folder / "match_yes_no.md").write_text(f"---\n{front}\n---\n{QUESTION}\n", encoding="utf-8")
    return folder


def test_a_run_for_each_wording(run: Run, foreign: Path, server: Server, world: World, mine: Path) -> None:
    at = ("--lmm", server.url, "--model", "vl", "--prompts", "instruct", "fieldnotes", mine, "--out", "o", "--json")
    told = payload(run("eval", foreign, "--strategy", "clip", "yes-no-fused", *at))
    names = [each["strategy"] for each in told["runs"]]
    assert names == ["clip", *(f"yes-no-fused~prompts={name}" for name in ("instruct", "fieldnotes", "my"))]
    recorded = [
        json.loads((Path(each["out"]) / "manifest.json").read_text())["configuration"]["strategy"].get("prompt_set")
        for each in told["runs"]
    ]
    assert recorded == [None, "instruct", "fieldnotes", "my/"]
    assert len(server.bodies) == 3 * 6
    texts = [body["messages"][-1]["content"][-1]["text"] for body in server.bodies]
    assert sum(text.startswith("Does this photograph show") for text in texts) == 6
    assert sum(text.startswith("does this image match") for text in texts) == 6
    shown = [body["messages"] for body in server.bodies if "as a biologist would say" in str(body["messages"][-1])]
    assert [[message["role"] for message in messages] for messages in shown] == [["user", "assistant", "user"]] * 6
    assert all(messages[0]["content"][0]["type"] == "image_url" for messages in shown)
    differences = run("measure", "significance", *(each["out"] for each in told["runs"][1:3]))
    assert differences.exit_code == 0, differences.output


def test_a_dry_run_counts_the_calls_of_each_wording(run: Run, foreign: Path, world: World, mine: Path) -> None:
    line = ("eval", foreign, "--strategy", "yes-no-fused", "--prompts", "instruct", "--prompts", mine, "--dry-run")
    told = payload(run(*line, "--json"))
    assert {each["strategy"]: each["calls"] for each in told["runs"]} == {
        "yes-no-fused~prompts=instruct": 6, "yes-no-fused~prompts=my": 6,
    }  # fmt: skip


def test_the_bundled_model_and_a_served_one_have_each_their_set(
    run: Run, foreign: Path, server: Server, world: World
) -> None:
    lines = {"fieldnotes": ("fieldnotes-rerank",), "instruct": (foreign, "--lmm", server.url, "--model", "vl")}
    for prompt_set, line in lines.items():
        told = payload(run("eval", *line, "--strategy", "yes-no", "--out", prompt_set, "--limit", 1, "--json"))
        manifest = json.loads((Path(told["runs"][0]["out"]) / "manifest.json").read_text())
        assert manifest["configuration"]["strategy"]["prompt_set"] == prompt_set


def test_a_folder_that_lacks_a_prompt_says_where_it_comes_from(
    run: Run, foreign: Path, server: Server, world: World, mine: Path
) -> None:
    at = ("--lmm", server.url, "--model", "vl", "--prompts", mine)
    other = run("eval", foreign, "--strategy", "yes-no", "true-false", *at)
    assert "my/ has no match_true_false; the wording of instruct is used" in other.stderr
    refused = run("eval", foreign, "--strategy", "true-false", *at, "--out", "p")
    assert refused.exit_code == 1
    assert "has none of the prompts that are used (match_true_false); it has match_yes_no." in refused.stderr


def test_several_sets_go_with_neither_a_grid_nor_a_recording(run: Run, foreign: Path, tmp_path: Path) -> None:
    result = run("eval", "--replay", "made", "--prompts", "instruct", "fieldnotes")
    assert result.exit_code == 2 and "go with one --prompts" in result.stderr
