"""`fieldscope compare` on a dozen pictures, and its report on names that nobody should choose."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result

from fieldscope.eval.measures.run_comparison import compare_runs
from fieldscope.eval.runs.scored import read_scored
from fieldscope.fieldnotes.rerank import SCHEMA
from fieldscope.service.viewer.charts.axes import ticks
from fieldscope.service.viewer.comparison.html import render_page
from fieldscope.service.viewer.comparison.markdown import render_markdown
from tests.eval.fabricated import fabricate
from tests.service.conftest import CRABS, FOX, OWL, RELEVANT, TURTLE, Run, World

GROUPS = {CRABS: "Appearance", OWL: "Behavior", FOX: "Species", TURTLE: "Species"}
NASTY = "<script>alert(1)</script> | `x` [a](http://b) & \x1b[31m"


def payload(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    value = json.loads(result.stdout)
    assert isinstance(value, dict)
    return value


class Page(HTMLParser):
    """What is in a page: how often each tag, all texts, all addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src", "action", "data")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture
def birds(world: World, tmp_path: Path) -> Path:
    """Every query over all pictures, in INQUIRE-Rerank's shape; the first stage likes the earlier ones better."""
    rows = [
        {
            **{field.name: "" if pa.types.is_string(field.type) else 0 for field in SCHEMA},
            "image": {"bytes": path.read_bytes(), "path": path.name},
            "query": text,
            "relevant": int(str(int(path.stem)) in relevant),
            "clip_score": -number / 10,
            "inat24_image_id": number,
            "supercategory": GROUPS[text],
            "iconic_group": "Birds" if text == OWL else "Others",
        }
        for text, relevant in RELEVANT.items()
        for number, path in enumerate(sorted(world.pictures.glob("*.png")))
    ]
    file = tmp_path / "birds" / "test-00000-of-00001.parquet"
    file.parent.mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), file)
    return file.parent


@pytest.fixture
def runs(run: Run, birds: Path) -> Path:
    """The runs of three strategies, in the folder of one `fieldscope eval`."""
    payload(run("eval", birds, "--strategy", "clip", "yes-no", "true-false", "--out", "r", "--json"))
    return Path("r")


def test_every_pair_and_metric_of_an_output_folder(run: Run, runs: Path) -> None:
    told = payload(run("compare", runs, "--json"))
    assert (told["split"], told["queries_scored"]) == ("test", 4)
    assert [each["run"] for each in told["runs"]] == ["clip", "true-false", "yes-no"]
    assert len(told["pairs"]) == 3 * 4  # pairs of runs, and INQUIRE-Rerank's metrics
    for row in told["pairs"]:
        assert {"p_value", "p_holm", "delta", "ci_low", "ci_high"} <= row.keys()
        assert row["ci_low"] <= row["delta"] <= row["ci_high"]
        assert 0 < row["p_value"] <= row["p_holm"] <= 1
        assert row["delta"] == pytest.approx(row["mean_b"] - row["mean_a"])
        assert (len(row["won"]), len(row["tied"]), len(row["lost"])) == (row["wins"], row["ties"], row["losses"])
    first = next(row for row in told["pairs"] if (row["a"], row["b"], row["metric"]) == ("clip", "yes-no", "AP@100"))
    measured = payload(run("measure", "significance", runs / "clip", runs / "yes-no", "--json"))["tests"][0]
    assert (first["p_value"], first["delta"], first["ci_low"]) == (
        measured["p"],
        measured["difference"],
        measured["low"],
    )
    assert {row["kind"] for row in told["groups"]} == {"supercategory", "iconic_group"}
    assert {row["group"] for row in told["groups"]} == {"Appearance", "Behavior", "Species", "Birds", "Others"}
    model = told["runs"][2]
    assert (model["model"], model["cost"]["calls"]) == ("truthful", 48)
    assert set(told["front"]) == {"calls", "tokens", "seconds"}
    assert len(told["queries"]) == 4
    assert told["queries"][0]["values"]["MRR"].keys() == {"clip", "true-false", "yes-no"}


def test_the_terminal_shows_quality_cost_and_queries(run: Run, runs: Path) -> None:
    result = run("compare", runs / "clip", runs / "yes-no")
    assert result.exit_code == 0, result.output
    for words in ("AP@100: B against A", "nDCG@100: B against A", "MRR: B against A", "by supercategory", "front"):
        assert words in result.stdout
    assert max(map(len, result.stdout.split("Differences are")[0].splitlines())) < 120
    typed = next(line for line in result.stdout.splitlines() if line.startswith("to see why: "))
    command = typed.removeprefix("to see why: fieldscope ").split()
    assert run(*command).exit_code == 0


def test_one_metric_and_prices(run: Run, runs: Path, tmp_path: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("input_per_million: 1\noutput_per_million: 2\ncurrency: CHF\n")
    told = payload(run("compare", runs, "--metric", "RR", "--prices", prices, "--json"))
    assert told["metrics"] == ["RR"]
    assert told["currency"] == "CHF"
    for each in told["runs"]:
        cost = each["cost"]
        assert cost["money"] == pytest.approx((cost["prompt_tokens"] + 2 * cost["completion_tokens"]) / 1e6)
    assert "money" in told["front"]
    assert "CHF" in run("compare", runs, "--prices", prices).stdout


def test_prices_by_model_in_one_currency(run: Run, tmp_path: Path) -> None:
    scores = {"q1": 0.5, "q2": 0.7}
    a = fabricate(tmp_path / "a", scores, calls=100, lmm="openai:org/vl@r2#png<=1024")
    b = fabricate(tmp_path / "b", scores, calls=100, lmm="local:0123:float32")
    prices = tmp_path / "prices.yaml"
    table = "{}: {{input_per_million: 1000, output_per_million: 0, currency: {}}}\n"
    prices.write_text(table.format("org/vl", "USD") + table.format("bundled", "USD"))
    told = payload(run("compare", a, b, "--prices", prices, "--json"))
    assert [each["cost"]["money"] for each in told["runs"]] == [2, 2]
    prices.write_text(table.format("org/vl", "USD") + table.format("bundled", "EUR"))
    refused = run("compare", a, b, "--prices", prices)
    assert (refused.exit_code, "EUR and USD" in refused.stderr) == (1, True)
    prices.write_text(table.format("bundled", "USD"))
    unpriced = run("compare", a, b, "--prices", prices)
    assert (unpriced.exit_code, "'org/vl'" in unpriced.stderr) == (1, True)


def test_what_can_not_be_compared(run: Run, runs: Path, birds: Path) -> None:
    payload(run("eval", birds, "--strategy", "clip", "--limit", "2", "--out", "s", "--json"))
    other = run("compare", runs / "clip", "s/clip")
    assert other.exit_code == 1
    assert re.fullmatch(
        r"error: r/clip and s/clip are runs over different queries: .* only in r/clip\. .*\n", other.stderr
    )
    alone = run("compare", "s")
    assert (alone.exit_code, "the only run" in alone.stderr) == (1, True)
    twice = run("compare", "s/clip", "s/clip", "s")
    assert (twice.exit_code, "the only run" in twice.stderr) == (1, True)
    assert "holds no run" in run("compare", "none", "s").stderr
    assert "unknown metric" in run("compare", runs, "--metric", "AP").stderr
    nowhere = run("compare", runs, "--html", runs / "clip" / "manifest.json" / "x.html")
    assert (nowhere.exit_code, "can't write" in nowhere.stderr) == (1, True)


def test_markdown_and_page_are_written_beside_any_output(run: Run, runs: Path) -> None:
    result = run("compare", runs, "--html", "out/report.html", "--markdown", "out/report.md", "--json")
    told = payload(result)
    assert {path.name for path in Path("out").iterdir()} == {"report.html", "report.md"}
    text = Path("out/report.md").read_text(encoding="utf-8")
    assert text.count("\n### AP@50: B against A") == 1
    page = Page(Path("out/report.html").read_text(encoding="utf-8"))
    words = " ".join(page.texts)
    for row in told["queries"]:
        assert row["query"] in words
        assert re.search(rf"fieldscope trace r/clip {row['query_id']} --diff r/yes-no", words)
        assert f"trace r/clip {row['query_id']} --diff r/yes-no" in text
    assert page.tags.count("svg") > 3
    assert page.tags.count("table") > 3
    assert "script" not in page.tags
    assert all(address.startswith(("#", "data:")) for address in page.addresses)


def test_nothing_that_a_data_set_says_is_markup(tmp_path: Path) -> None:
    scores = {"q1": 0.1, "q<i>2": 0.9}
    texts = dict.fromkeys(scores, NASTY)
    groups = {query: {"supercategory": f"<u>{query}"} for query in scores}
    folders = [fabricate(tmp_path / name, scores, texts=texts, groups=groups) for name in ("a", "b b")]
    runs = [read_scored(folder, f"<i>{folder.name}") for folder in folders]
    found = compare_runs(runs)
    page = Page(render_page(found))
    assert not {"script", "i", "u"} & set(page.tags)
    assert NASTY.replace("\x1b", "\\x1b") in " ".join(page.texts)
    text = render_markdown(found)
    outside = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", text.replace("\\`", ""))
    assert not re.search(r"(?<!\\)<", outside)
    assert "\x1b" not in text


def test_every_row_of_a_markdown_table_has_its_columns(tmp_path: Path) -> None:
    scores = {"q|1": 0.1, "q`2": 0.9}
    texts = {"q|1": NASTY, "q`2": "a | b"}
    folders = [fabricate(tmp_path / "a", scores, texts=texts)]
    folders.append(fabricate(tmp_path / "b", {query: 1 - score for query, score in scores.items()}, texts=texts))
    lines = render_markdown(compare_runs([read_scored(folder) for folder in folders])).splitlines()
    width = None
    for line in lines:
        if not line.startswith("|"):
            width = None
            continue
        columns = len(re.findall(r"(?<!\\)\|", line))
        width = width or columns
        assert columns == width


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-0.3, 0.9), (0.5, 0.5), (0, 0), (0.123, 0.124), (-1, -0.2), (0, 41_234)]
)
def test_ticks_are_round_and_hold_everything(low: float, high: float) -> None:
    marks = ticks(low, high)
    assert 2 <= len(marks) <= 9
    assert marks[0] <= low <= high <= marks[-1]
    steps = {round(b - a, 9) for a, b in pairwise(marks)}
    assert len(steps) == 1
