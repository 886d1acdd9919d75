"""Grids: what they expand to, how members are named, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldscope.agent.strategies.strategy import Strategy, load_strategy
from fieldscope.agent.usage import Usage
from fieldscope.core.errors import ConfigError
from fieldscope.eval.harness import _FOLDER_NAME
from fieldscope.eval.tuning.grid import MOST, Member, load_grid, pick, ranked, require_may_decide
from fieldscope.eval.types import RunSummary

PROMPT = '---\nname: mine\nvariables: [query]\nanswer: yes_no\n---\nIs it "{{ query }}"?\n'
Load = Callable[[str], tuple[Member, ...]]
SAMPLED = "verify.extra_body: [{temperature: 0.5}]\n"


@pytest.fixture
def members(tmp_path: Path) -> Load:
    def load(text: str) -> tuple[Member, ...]:
        path = tmp_path / "grid.yaml"
        path.write_text(text, encoding="utf-8")
        return load_grid(path)

    return load


def names(found: tuple[Member, ...]) -> list[str]:
    return [member.strategy.name for member in found]


def test_the_product_of_all_lists_the_last_varying_fastest(members: Load) -> None:
    found = members("base: yes-no-fused\nverify.top_k: [10, null]\nfusion.prior_weight: [0, 0.3]\n")
    assert names(found) == [
        "yes-no-fused~top_k=10,prior_weight=0",
        "yes-no-fused~top_k=10,prior_weight=0.3",
        "yes-no-fused~top_k=none,prior_weight=0",
        "yes-no-fused~top_k=none,prior_weight=0.3",
    ]
    for member, (window, weight) in zip(found, product((10, None), (0, 0.3)), strict=True):
        assert member.settings == {"verify.top_k": window, "fusion.prior_weight": weight}
        assert member.strategy.verify is not None
        assert (member.strategy.verify.top_k, member.strategy.fusion.prior_weight) == (window, weight)
        assert (member.strategy.retrieve, member.strategy.prompts) == (
            load_strategy("yes-no-fused").retrieve,
            load_strategy("yes-no-fused").prompts,
        )
    assert len({member.strategy.fingerprint for member in found}) == 4


def test_a_grid_of_nothing_is_its_base(members: Load) -> None:
    (only,) = members("base: agent\n")
    assert only.strategy == load_strategy("agent")


def test_settings_of_one_name_keep_their_stage(members: Load) -> None:
    (only,) = members("base: agent\nverify.top_k: [50]\nretrieve.top_k: [80]\ncompare.max_calls: [4]\n")
    assert only.strategy.name == "agent~verify.top_k=50,retrieve.top_k=80,max_calls=4"


def test_a_stage_may_come_and_go(members: Load) -> None:
    without, with_it = members("base: agent\nrefine: [null, {rounds: 2}]\n")
    assert (without.strategy.name, without.strategy.refine) == ("agent~refine=none", None)
    assert with_it.strategy.name == "agent~refine=rounds-2"
    assert with_it.strategy.refine is not None and with_it.strategy.refine.rounds == 2


def test_files_count_from_the_grids_folder(members: Load, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: own\nverify: {prompt: below/mine.md}\nfusion: {method: p_yes}\n")
    (tmp_path / "below").mkdir()
    for path in (tmp_path / "below" / "mine.md", tmp_path / "other.md"):
        path.write_text(PROMPT.replace("Is", path.stem))
    found = members("base: mine.yaml\nverify.prompt: [match_yes_no, below/mine.md, other.md]\n")
    assert names(found) == ["own~prompt=match_yes_no", "own~prompt=below-mine.md", "own~prompt=other.md"]
    wordings = [member.strategy.prompts[0].template for member in found]
    assert wordings[1:] == ['mine it "{{ query }}"?', 'other it "{{ query }}"?']


def test_models_are_told_apart(members: Load) -> None:
    one, two, three = members(
        "base: yes-no\nmodel: [Qwen/VL, {model: Qwen/VL, revision: b2}, {model: g, lmm: 'http://there:8000'}]\n"
    )
    assert names((one, two, three)) == ["yes-no~model=Qwen-VL", "yes-no~model=Qwen-VL-b2", "yes-no~model=g"]
    assert one.strategy.fingerprint == two.strategy.fingerprint
    assert one.model and two.model and three.model
    assert (one.model.lmm, two.model.revision, three.model.lmm) == (None, "b2", "http://there:8000")
    assert two.settings == {"model": "Qwen/VL@b2"}


def test_seeds_go_where_something_is_drawn(members: Load) -> None:
    one, two = members(f"base: yes-no\n{SAMPLED}seed: [1, 2]\n")
    assert [m.strategy.verify.extra_body for m in (one, two) if m.strategy.verify] == [
        {"temperature": 0.5, "seed": 1},
        {"temperature": 0.5, "seed": 2},
    ]
    assert one.strategy.name == "yes-no~extra_body=temperature-0.5,seed=1"
    with pytest.raises(ConfigError, match="draws nothing at random"):
        members("base: yes-no\nseed: [1, 2]\n")
    with pytest.raises(ConfigError, match="draws nothing at random"):
        members(f"base: yes-no\n{SAMPLED.replace('0.5', '0')}seed: [1]\n")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("verify.top_k: [1]\n", "missing key 'base'"),
        ("base: yesno\n", "unknown strategy 'yesno'"),
        ("base: yes-no\nverify.topk: [1]\n", r"unknown key 'verify.topk' \(did you mean 'top_k'\?\)"),
        ("base: yes-no\nverfy.top_k: [1]\n", "unknown key 'verfy.top_k'"),
        ("base: yes-no\nname: [a, b]\n", "unknown key 'name'"),
        ("base: yes-no\nverify.top_k: 5\n", "verify.top_k: must be a list of values"),
        ("base: yes-no\nverify.top_k: []\n", "verify.top_k: must be a list of values"),
        ("base: yes-no\nverify.top_k: [0]\n", "yes-no~top_k=0: .*verify.top_k: Input should be greater than"),
        ("base: yes-no\nverify.top_k: [5, 6, 5]\n", "5 occurs 2 times"),
        ("base: yes-no\nverify.prompt: [nothing]\n", "unknown prompt 'nothing'"),
        ("base: yes-no\nverify.prompt: [nothing.md]\n", "nothing.md: can't be read"),
        ("base: yes-no\nverify.prompt.name: [a]\n", "'prompt' is a single value"),
        ("base: yes-no\nfusion.prior_weight: [1]\n", "prior_weight goes with the methods log_odds and posterior"),
        ("base: agent\nrefine: [null]\nrefine.rounds: [1]\n", "refine and refine.rounds set the same thing"),
        ("base: agent\nverify.stop_below: [0.0001, 0.5]\nretrieve.top_k: [100]\nseed: [x]\n", "seed.0"),
        ("base: yes-no\nmodel: []\n", "model: "),
        ("base: yes-no\nmodel: [a, {model: a, lmm: 'http://b'}]\n", "a occurs 2 times. Give each a revision"),
        ("base: yes-no\nmodel: [{model: a, url: x}]\n", "unknown key 'model.0.url'"),
        ("base: clip\nmodel: [a]\n", "asks no model"),
        ("base: yes-no\nverify.wave: [64, 64.0]\n", "are the same strategy"),
        (
            f"base: yes-no\nverify.top_k: {list(range(1, MOST + 2))}\n",
            "makes 1,001 strategies, more than 1,000",
        ),
        ("[", "not valid YAML"),
    ],
)
def test_what_can_not_be_used_is_named(members: Load, text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named) as caught:
        members(text)
    assert "\n" not in str(caught.value)


values = st.one_of(
    st.integers(1, 10**6), st.text(max_size=200), st.booleans(), st.dictionaries(st.text(max_size=5), st.integers())
)


@settings(max_examples=50)
@given(st.lists(values, min_size=1, max_size=6, unique_by=yaml.safe_dump))
def test_names_are_folders_of_their_own(tmp_path_factory: pytest.TempPathFactory, bodies: list[object]) -> None:
    path = tmp_path_factory.mktemp("grid") / "grid.yaml"
    data = {"base": "yes-no", "verify.extra_body": [{"x": body} for body in bodies]}
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    try:
        found = load_grid(path)
    except ConfigError as error:
        assert re.search("there 2 times|same strategy", str(error))  # 1 and True are one key of JSON to nobody else
        return
    folded = {name.casefold() for name in names(found)}
    assert len(folded) == len(bodies)
    for member in found:
        name = member.strategy.name
        assert _FOLDER_NAME.fullmatch(name) and len(name) <= 160
        assert Strategy.model_validate(member.strategy.model_dump()) == member.strategy


def test_members_are_picked_by_name(members: Load) -> None:
    found = members("base: yes-no\nverify.top_k: [1, 2, 3]\n")
    assert pick(found, (), Path("g")) == found
    assert names(pick(found, ("yes-no~top_k=3", "yes-no~top_k=1"), Path("g"))) == ["yes-no~top_k=3", "yes-no~top_k=1"]
    with pytest.raises(ConfigError, match="g: unknown member 'yes-no~top_k=4'"):
        pick(found, ("yes-no~top_k=4",), Path("g"))


@pytest.mark.parametrize("split", ["test", "all", "TEST", ""])
def test_several_members_need_a_split_that_may_decide(members: Load, split: str) -> None:
    found = members("base: yes-no\nverify.top_k: [1, 2]\n")
    with pytest.raises(ConfigError, match="may not be fitted on the split"):
        require_may_decide(found, split)
    require_may_decide(found[:1], split)
    require_may_decide(found, "validation")


def test_the_best_come_first_and_the_cheapest_of_equals() -> None:
    base = RunSummary("b", "validation", "s", {"mAP@50": 0.5}, {}, Usage(calls=9), Path("s"), queries=1, scored=1)
    cheap = replace(base, strategy="cheap", cost=Usage(calls=3))
    best = replace(base, strategy="best", metrics={"mAP@50": 0.6})
    zero = replace(base, strategy="zero", metrics={"mAP@50": 0.0})
    none = replace(base, strategy="none", metrics={"mAP@50": None})
    order = [summary.strategy for summary in ranked([none, base, zero, cheap, best])]
    assert order == ["best", "cheap", "s", "zero", "none"]
