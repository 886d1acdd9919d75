"""YAML that users write is read; YAML that is made to hurt is refused in one line, wherever it comes in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.core.errors import ConfigError
from fieldscope.core.validation import load_yaml, parse_yaml
from fieldscope.eval.prices import load_price
from fieldscope.eval.tuning.grid import load_grid
from fieldscope.prompts.prompt_set import load_prompt
from fieldscope.service.server.settings import read_settings
from fieldscope.service.wiring.queries import make_query

LEVELS = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 20))
HURTING = {
    "deep lists": "a: " + "[" * 10_000,
    "deep mappings": "a: " + "{a: " * 5_000,
    "deep blocks": "\n".join(" " * n + "a:" for n in range(2_000)),
    "aliases of aliases": f"a0: &a0 [1, 2]\n{LEVELS}",
    "an alias of itself": "a: &a [*a]",
    "many values": "a: [" + "1," * 30_000 + "1]",
    "a long document": "a: " + "x" * 1_100_000,
    "half a character": 'a: "\\ud800"',
    "no date": "a: 2024-13-45",
    "a number of thousands of digits": "a: " + "9" * 5_000,
    "no end": "a: [",
}


@pytest.mark.parametrize("text", HURTING.values(), ids=HURTING.keys())
def test_each_of_them_is_one_line(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_yaml(text, "the file", ConfigError)
    assert str(refused.value).startswith("the file") and "not valid YAML" in str(refused.value)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 500


def test_anchors_that_share_parts_are_read() -> None:
    text = "base: &base {a: [1, 2], b: no}\none: *base\ntwo: {<<: *base, c: yes}"
    base = {"a": [1, 2], "b": False}
    assert parse_yaml(text, "f", ConfigError) == {"base": base, "one": base, "two": {**base, "c": True}}
    assert load_yaml("- no\n- 2024-01-01", all_text=True) == ["no", "2024-01-01"]
    with pytest.raises(yaml.YAMLError, match="nested"):
        load_yaml("[" * 60, all_text=True)


def strategy(file: Path, text: str) -> Any:
    return load_strategy(_written(file.with_suffix(".yaml"), text), prompts="fieldnotes")


def prompt(file: Path, text: str) -> Any:
    return load_prompt(_written(file.with_suffix(".md"), f"---\n{text}\n---\nwords"))


def grid(file: Path, text: str) -> Any:
    return load_grid(_written(file.with_suffix(".yaml"), text))


def prices(file: Path, text: str) -> Any:
    return load_price(_written(file.with_suffix(".yaml"), text), "vl")


def dialogue(file: Path, text: str) -> Any:
    return make_query("a crab", _written(file.with_suffix(".yaml"), text))


def settings(file: Path, text: str) -> Any:
    toml = "lmm = " + text.removeprefix("a: ")
    return read_settings({}, _written(file.with_suffix(".toml"), toml), {})


def _written(file: Path, text: str) -> Path:
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("read", [strategy, prompt, grid, prices, dialogue, settings])
@pytest.mark.parametrize("name", ["deep lists", "aliases of aliases", "an alias of itself", "half a character"])
def test_every_file_that_a_user_names(tmp_path: Path, read: Callable[[Path, str], Any], name: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read(tmp_path / "file", HURTING[name])
    assert "\n" not in str(refused.value) and "file" in str(refused.value)
