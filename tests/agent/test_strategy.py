"""Strategies: the shipped ones, a user's own, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from fieldscope.agent.strategies.strategy import Strategy, list_strategies, load_strategy
from fieldscope.core.errors import ConfigError, PromptError, StrategyError

VALID = "name: mine\nverify:\n  prompt: match_yes_no\nfusion:\n  method: p_yes\n"
COMPARE = "compare: {mode: pair, prompt: compare_pair, reference: compare_pair_reference}\n"
POSTERIOR = VALID.replace("p_yes", "posterior\n  prior_weight: 1")
PROMPT = '---\nname: mine\nvariables: [query]\nanswer: yes_no\n---\nIs it "{{ query }}"?\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_shipped_strategy_loads_under_its_file_name() -> None:
    assert set(list_strategies()) == {
        "agent", "cascade", "clip", "cross-encoder", "imagescope", "imagescope-published", "joint",
        "pairwise", "predicates", "reasoned", "setwise", "true-false",
        "true-false-documents", "true-false-fused", "true-false-reference", "yes-no", "yes-no-fused",
    }  # fmt: skip
    for name in list_strategies():
        strategy = load_strategy(name, prompts="fieldnotes")
        assert strategy.name == name
        assert strategy.description
        assert strategy.source


def test_clip_asks_nothing_and_the_others_do() -> None:
    assert load_strategy("clip", prompts="fieldnotes").prompts == ()
    assert [prompt.name for prompt in load_strategy("yes-no", prompts="fieldnotes").prompts] == ["match_yes_no"]


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(StrategyError, match=r"'yesno' \(did you mean 'yes-no'\?\); known: agent, cascade"):
        load_strategy("yesno", prompts="fieldnotes")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (VALID.replace("prompt:", "promt:"), r"unknown key 'verify.promt' \(did you mean 'prompt'\?\)"),
        (VALID + "fuse: 1\n", r"unknown key 'fuse' \(did you mean 'fusion'\?\)"),
        (VALID.replace("p_yes", "magic"), "fusion.method: .*'p_yes'"),
        (VALID.replace("p_yes", "prior"), "fusion.method is 'prior' where there is no stage 'verify'"),
        (VALID + "  error_rate: 0.1\n", "fusion: error_rate goes with the method log_odds"),
        (VALID + "  prior_weight: 1\n", "fusion: prior_weight goes with the methods log_odds and posterior"),
        (VALID.replace("p_yes", "log_odds"), "fusion: prior_weight goes with the methods log_odds and posterior"),
        (VALID.replace("p_yes", "log_odds") + "  prior_weight: -1\n", "fusion.prior_weight: .*greater than"),
        (VALID.replace("p_yes", "log_odds") + "  prior_weight: .nan\n", "fusion.prior_weight: "),
        ("name: mine\nfusion:\n  method: p_yes\n", "fusion.method is 'prior' where"),
        (VALID.replace("verify:\n", "verify:\n  top_k: 0\n"), "verify.top_k: .*greater than or equal to 1"),
        (VALID.replace("verify:\n", "verify:\n  top_logprobs: 21\n"), "verify.top_logprobs: "),
        (VALID.replace("name: mine\n", ""), "missing key 'name'"),
        (VALID.replace("name: mine", "name: ../up"), "name: "),
        (VALID + "decompose: {prompt: decompose}\n", "stage `decompose` needs stage `synthesize`; add it"),
        (VALID.replace("match_yes_no", "ask_predicate"), "whole query|'question' where there is a stage 'decompose'"),
        (VALID + "refine: {rounds: 1}\n", "stage `refine` needs stage `decompose`; add it"),
        (VALID + "check: {}\n", "stage `check` needs stage `decompose`; add it"),
        (
            VALID.replace("verify:\n", "verify:\n  whole: match_yes_no\n"),
            "takes 'query'; leave `whole` out",
        ),
        (VALID + COMPARE, "comparisons need the fusion method 'posterior'"),
        (
            POSTERIOR + COMPARE.replace("mode: pair", "mode: walk"),
            "'agreement'",
        ),
        (VALID.replace("match_yes_no", "compare_pair"), "declares the answer 'letter', but 'yes_no' is read"),
        (VALID.replace("verify:\n", "verify:\n  joint: {prompt: ask_joint}\n"), "`joint` asks all predicates"),
        ("name: [\n", "line [0-9]+: not valid YAML"),
        ("just words\n", "must be a YAML mapping"),
    ],
)
def test_a_faulty_file_is_refused_in_one_line_that_names_file_and_key(tmp_path: Path, text: str, named: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(StrategyError, match=named) as caught:
        load_strategy(path, prompts="fieldnotes")
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(StrategyError, match=r"gone.yaml: can't be read"):
        load_strategy(tmp_path / "gone.yaml", prompts="fieldnotes")
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(StrategyError, match=r"folder.yaml: can't be read"):
        load_strategy(tmp_path / "folder.yaml", prompts="fieldnotes")


def test_a_strategys_own_prompt_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "mine.md").write_text(PROMPT, encoding="utf-8")
    strategy = load_strategy(written(tmp_path, VALID.replace("match_yes_no", "mine.md")), prompts="fieldnotes")
    assert [prompt.render(query="a crab") for prompt in strategy.prompts] == ['Is it "a crab"?']


def test_an_unknown_prompt_is_named(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="unknown prompt 'match'"):
        load_strategy(written(tmp_path, VALID.replace("match_yes_no", "match")), prompts="fieldnotes")


def test_a_prompt_that_wants_more_than_the_query_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    greedy = PROMPT.replace("[query]", "[query, species]").replace("Is it", "Is {{ species }}")
    (tmp_path / "mine.md").write_text(greedy, encoding="utf-8")
    with pytest.raises(PromptError, match="needs the variable 'species', which is not given"):
        load_strategy(written(tmp_path, VALID.replace("match_yes_no", "mine.md")), prompts="fieldnotes")


def test_errors_are_configuration_errors() -> None:
    assert issubclass(StrategyError, ConfigError)


def test_the_fingerprint_follows_settings_and_prompt_and_not_names(tmp_path: Path) -> None:
    base = load_strategy("yes-no", prompts="fieldnotes")
    renamed = base.model_copy(update={"name": "other", "description": "", "source": ""})
    assert base.fingerprint == renamed.fingerprint
    (tmp_path / "mine.md").write_text(PROMPT, encoding="utf-8")
    reworded = load_strategy(written(tmp_path, VALID.replace("match_yes_no", "mine.md")), prompts="fieldnotes")
    windowed = load_strategy(
        written(tmp_path, VALID.replace("verify:\n", "verify:\n  top_k: 10\n")), prompts="fieldnotes"
    )
    assert (
        len({s.fingerprint for s in (base, reworded, windowed, load_strategy("yes-no-fused", prompts="fieldnotes"))})
        == 4
    )


def test_a_strategy_can_be_built_in_code() -> None:
    strategy = Strategy.model_validate(
        {"name": "s", "verify": {"prompt": "match_yes_no"}, "fusion": {"method": "p_yes"}}
    )
    assert strategy.fingerprint == load_strategy("yes-no", prompts="instruct").fingerprint
