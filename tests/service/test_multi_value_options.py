"""`--strategy clip yes-no` is `--strategy clip --strategy yes-no`."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldscope.service.cli.multi_value_options import SpacedCommand, spread


@click.command(cls=SpacedCommand)
@click.argument("benchmark")
@click.option("-s", "--strategy", multiple=True)
@click.option("--out")
@click.option("--json", "as_json", is_flag=True)
def command(benchmark: str, strategy: tuple[str, ...], out: str | None, as_json: bool) -> None:
    click.echo(repr((benchmark, strategy, out, as_json)))


@pytest.mark.parametrize(
    "line",
    [
        "bench --strategy a b --out o --json",
        "bench --strategy a --strategy b --out o --json",
        "bench -s a b --json --out o",
        "bench --strategy=a b --out=o --json",
        "--out o --json --strategy a b bench",
        "--strategy a b bench --out o --json",
        "--json --strategy a --out o --strategy b -- bench",
        "--out o bench --strategy a --json --strategy b",
    ],
)
def test_spaced_and_repeated_are_one(line: str) -> None:
    result = CliRunner().invoke(command, line.split())
    assert result.output.strip() == repr(("bench", ("a", "b"), "o", True)), result.output


def test_without_the_argument_it_is_missing() -> None:
    result = CliRunner().invoke(command, ["--strategy", "a"])
    assert result.exit_code == 2
    assert "BENCHMARK" in result.stderr


def test_a_value_that_looks_like_an_option_is_left_to_click() -> None:
    assert spread(command.params, ["x", "--strategy", "--json"]) == ["x", "--strategy", "--json"]


@settings(deadline=None)
@given(st.lists(st.from_regex(r"[a-z][a-z.-]{0,5}", fullmatch=True), min_size=1, max_size=6))
def test_any_number_of_values(values: list[str]) -> None:
    result = CliRunner().invoke(command, ["bench", "--strategy", *values])
    assert result.output.strip() == repr(("bench", tuple(values), None, False))
