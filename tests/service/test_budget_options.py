"""Budgets and dry runs from the command line, and what `agent` does there by default."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import fieldscope.service.wiring.models
from fieldscope.agent.lmm.base import LMM, LMMRequest
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.core.errors import ConfigError
from fieldscope.core.types import ImageSource
from fieldscope.eval.prices import Price, load_price
from tests.service.conftest import BUNDLED_LMM, CRABS, MODELS, Run, World


def told(result: Any) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    value = json.loads(result.stdout)
    assert isinstance(value, dict)
    return value


@pytest.fixture
def thinking(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Its model writes no JSON, says yes to every question, and asks for nothing but `world.asked` to count."""

    def make(images: ImageSource) -> LMM:
        def answer(request: LMMRequest) -> float | str:
            world.asked.append(request)
            return 0.8 if request.top_logprobs else "no json"

        return ScriptedLMM(answer, identity="says yes")

    monkeypatch.setattr(fieldscope.service.wiring.models, "bundled_lmm", make)
    return world


@pytest.fixture
def no_models(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Any model that is loaded is an error."""

    def never(*_: object) -> Any:
        raise AssertionError("a model was loaded")

    for name in ("bundled_lmm", "load_encoder"):
        monkeypatch.setattr(fieldscope.service.wiring.models, name, never)
    return world


def test_a_budget_of_calls_ends_a_query_and_the_result_says_where(run: Run, world: World) -> None:
    line = ("rerank", "--query", CRABS, "--images", world.pictures, "--strategy", "yes-no", "--json")
    result = run(*line, "--max-calls", "5")
    value = told(result)
    assert (value["ended"], value["cost"]["calls"], len(world.asked)) == ("verify", 5, 5)
    assert "The budget ran out in the stage 'verify'" in result.stderr
    assert len(value["ranking"]) == 12
    assert told(run(*line))["ended"] is None


def test_the_agent_is_the_default(run: Run, thinking: World, tmp_path: Path) -> None:
    value = told(run("rerank", "--query", CRABS, "--images", thinking.pictures, "--max-calls", "6", "--json"))
    assert (value["strategy"], value["cost"]["calls"]) == ("agent", 6)
    assert run("index", thinking.pictures, "-o", tmp_path / "index").exit_code == 0
    search = ("search", "--index", tmp_path / "index", "--query", CRABS, "--json")
    value = told(run(*search, "--rerank", "--max-calls", "4"))
    assert (value["strategy"], value["cost"]["calls"]) == ("agent", 4)
    assert told(run(*search))["strategy"] == "clip"


def test_no_call_at_all_leaves_the_prior(run: Run, world: World) -> None:
    line = ("rerank", "--query", CRABS, "--images", world.pictures, "--json")
    nothing = told(run(*line, "--strategy", "yes-no", "--max-calls", "0"))
    assert world.asked == []
    prior = told(run(*line, "--strategy", "clip"))
    assert [entry["image"] for entry in nothing["ranking"]] == [entry["image"] for entry in prior["ranking"]]


def test_budgets_of_a_query_and_of_a_run(run: Run, world: World) -> None:
    line = ("eval", "fieldnotes-rerank", "--strategy", "clip", "yes-no", "--json")
    result = run(*line, "--max-calls", "10", "--run-max-calls", "25", "--out", "a")
    clip, yes_no = told(result)["runs"]
    assert (clip["cost"]["calls"], clip["ended"]) == (0, {})
    assert yes_no["cost"]["calls"] == len(world.asked) == 25
    assert sum(yes_no["ended"].values()) == 4
    assert "yes-no: a budget ended the work on 4 of 4 queries" in result.stderr
    kept = told(run(*line, "--max-calls", "10", "--run-max-calls", "25", "--deadline", "60", "--out", "a"))
    assert kept["runs"][1]["cost"]["cache_hits"] == len(world.asked) == 25
    refused = run(*line, "--max-calls", "11", "--out", "a")
    assert refused.exit_code == 1
    assert "another configuration (other budget)" in refused.stderr


def test_a_deadline_and_a_budget_of_tokens(run: Run, world: World) -> None:
    line = ("eval", "fieldnotes-rerank", "--strategy", "yes-no", "--limit", "1", "--json")
    few = told(run(*line, "--max-tokens", "100", "--out", "a"))["runs"][0]
    assert few["cost"]["prompt_tokens"] + few["cost"]["completion_tokens"] <= 100
    assert 0 < few["cost"]["calls"] < 12
    late = told(run(*line, "--run-deadline", "0.000000001", "--out", "b"))["runs"][0]
    assert late["ended"] == {"verify": 1}
    assert late["cost"]["calls"] < 12  # the clock starts with the first call, which may still be answered


@pytest.mark.parametrize("name", ["yes-no", "yes-no-fused", "true-false"])
def test_a_dry_run_says_what_the_run_then_asks(
    run: Run, world: World, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("fieldscope.fieldnotes.vocabulary.MODELS", MODELS)
    line = ("eval", "fieldnotes-rerank", "--strategy", name, "--limit", "1", "--json")
    with monkeypatch.context() as patch:
        patch.setattr(fieldscope.service.wiring.models, "load_encoder", None)
        patch.setattr(fieldscope.service.wiring.models, "bundled_lmm", None)
        (dry,) = told(run(*line, "--dry-run"))["runs"]
    assert world.asked == [] and not Path("runs").exists()
    monkeypatch.setattr(fieldscope.service.wiring.models, "bundled_lmm", BUNDLED_LMM)
    (used,) = told(run(*line))["runs"]
    assert not dry["bound"]
    assert dry["calls"] == used["cost"]["calls"]
    for side in ("prompt_tokens", "completion_tokens"):
        assert dry[side] == pytest.approx(used["cost"][side], rel=0.15)


@pytest.mark.parametrize("benchmark", ["fieldnotes", "fieldnotes-rerank"])
def test_a_dry_run_loads_no_model(run: Run, no_models: World, benchmark: str, tmp_path: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("input_per_million: 2\noutput_per_million: 10\ncurrency: CHF\n")
    line = ("eval", benchmark, "--strategy", "clip", "yes-no", "agent", "--dry-run", "--prices", prices)
    clip, yes_no, agent = told(run(*line, "--json"))["runs"]
    assert (clip["calls"], clip["amount"], clip["currency"]) == (0, 0, "CHF")
    assert (yes_no["calls"], yes_no["bound"], agent["bound"]) == (48, False, True)
    assert yes_no["amount"] == pytest.approx((2 * yes_no["prompt_tokens"] + 10 * yes_no["completion_tokens"]) / 1e6)
    assert agent["calls"] > 48 and agent["stages"]["verify"]["calls"] > 48
    table = run(*line).stdout
    assert "CHF" in table and "at most" in table and "verify" in table
    within = told(run(*line, "--json", "--max-calls", "5", "--run-max-calls", "12"))["runs"]
    assert [each["calls"] for each in within] == [0, 12, 12]


def test_a_dry_run_of_ones_own_images(run: Run, no_models: World) -> None:
    line = ("rerank", "--query", CRABS, "--images", no_models.pictures, "--dry-run", "--json")
    assert told(run(*line, "--strategy", "yes-no"))["runs"][0]["calls"] == 12
    (agent,) = told(run(*line, "--max-calls", "7"))["runs"]
    assert (agent["strategy"], agent["calls"], agent["bound"]) == ("agent", 7, True)


def test_prices_go_with_a_dry_run(run: Run, tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text("{}")
    result = run("eval", "fieldnotes", "--prices", tmp_path / "prices.yaml")
    assert result.exit_code == 2
    assert "--prices needs --dry-run" in result.stderr


def test_a_price_by_model(tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    prices = ("vl: {input_per_million: 1, output_per_million: 4}", "big: {input_per_million: 3, output_per_million: 9}")
    file.write_text("\n".join(prices))
    assert load_price(file, "vl") == Price(input_per_million=1, output_per_million=4, currency="USD")
    assert load_price(file, "big").of(1e6, 2e6) == 21
    with pytest.raises(ConfigError, match=r"unknown model 'bgi' \(did you mean 'big'\?\)"):
        load_price(file, "bgi")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("input_per_million: 1", "missing key 'output_per_million'"),
        ("input_per_million: -1\noutput_per_million: 1", "input_per_million"),
        ("vl: {input_per_milion: 1, output_per_million: 1}", "did you mean 'input_per_million'"),
        ("vl: 3\nbig: {}", "'vl' must be a mapping"),
        ("- 1", "must be a YAML mapping"),
    ],
)
def test_a_price_file_that_is_none(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"prices\.yaml.*" + message.replace("(", r"\(")):
        load_price(file, "vl")


@pytest.mark.parametrize("command", ["eval", "rerank", "search"])
def test_the_help_names_the_budgets(run: Run, command: str) -> None:
    text = " ".join(run(command, "--help").stdout.split())
    for option in ("--max-calls", "--max-tokens", "--deadline"):
        assert option in text
    assert ("--run-max-calls" in text) == (command == "eval")
