"""What commit bc49ce1 wrote (`tests/fixtures/first_edition`) is replayed with no call and the same rankings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

import fieldscope.service.wiring.models
from fieldscope.core.errors import FieldscopeError
from fieldscope.service.cli.main import cli

FIXTURES = Path(__file__).parents[1] / "fixtures" / "first_edition"
RUNS = ("runs/agent", "runs/yes-no-fused", "runs-composed/agent")


@pytest.fixture(autouse=True)
def no_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache folder of its own, and no model to ask."""

    def refuse(*_: object, **__: object) -> None:
        raise FieldscopeError("a replay asks no model")

    monkeypatch.setenv("FIELDSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fieldscope.service.wiring.models, "bundled_lmm", refuse)
    monkeypatch.setattr(fieldscope.service.wiring.models, "load_encoder", refuse)


def replayed(source: Path, out: Path) -> dict[str, dict[str, int]]:
    """Strategy -> its cost, of a replay into `out`."""
    result = CliRunner().invoke(cli, ["eval", f"--replay={source}", "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    return {run["strategy"]: run["cost"] for run in json.loads(result.stdout)["runs"]}


@pytest.mark.parametrize("archive", ["runs.fsr", "composed.fsr"])
def test_an_archive_replays_with_no_call_and_the_same_rankings(archive: str, tmp_path: Path) -> None:
    costs = replayed(FIXTURES / archive, tmp_path / "out")
    folder = FIXTURES / ("runs" if archive == "runs.fsr" else "runs-composed")
    assert set(costs) == {run.name for run in folder.iterdir()}
    for strategy, cost in costs.items():
        assert cost["calls"] == cost["cache_hits"] > 0
        for name in ("run.trec", "qrels.trec"):
            assert (tmp_path / "out" / strategy / name).read_bytes() == (folder / strategy / name).read_bytes()


@pytest.mark.parametrize("run", RUNS)
def test_a_run_replays_from_the_cache_that_it_was_made_with(run: str, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    shutil.copy(FIXTURES / "responses.sqlite", tmp_path / "cache")
    costs = replayed(FIXTURES / run, tmp_path / "out")
    strategy = Path(run).name
    assert costs[strategy]["calls"] == costs[strategy]["cache_hits"] > 0
    assert (tmp_path / "out" / strategy / "run.trec").read_bytes() == (FIXTURES / run / "run.trec").read_bytes()


@pytest.mark.parametrize("run", RUNS)
def test_a_run_is_shown(run: str) -> None:
    query = json.loads((FIXTURES / run / "results.jsonl").read_text().splitlines()[0])
    result = CliRunner().invoke(cli, ["trace", str(FIXTURES / run), query["query_id"]])
    assert result.exit_code == 0, result.output
    assert query["ranking"][0]["image_id"] in result.stdout
