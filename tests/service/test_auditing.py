"""`fieldscope measure reliability`, `audit` and `agreement` on runs whose every verdict is known."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from PIL import Image

from fieldscope.agent.calibration import Calibration, CalibrationKey
from fieldscope.agent.types import Predicate, RankedCandidate, RerankResult, Verdict
from fieldscope.core.fingerprint import fingerprint
from fieldscope.service.wiring.calibrations import save_calibration
from tests.service.conftest import CRABS, OWL, RELEVANT, Run, World

PREDICATES = {
    CRABS: (
        Predicate(id="p-crab", question="is there a crab?", kind="subject", words="crabs"),
        Predicate(id="p-red", question="is the crab red?", kind="colour", words="red"),
        Predicate(id="p-litter", question="is the crab holding plastic litter?", expected="no", kind="absence"),
        Predicate(id="p-odd", question="is it a lovely day for two crabs?", kind="weather"),
        Predicate(id="query", question=f"does it show {CRABS}?", words=CRABS),
    ),
    OWL: (Predicate(id="p-owl", question="is there an owl?", kind="subject", words="owl"),),
}
IMAGES = {CRABS: "1234", OWL: "5678"}
"""In order of prior. All four show crabs, the third blue ones, the second hold litter; 5, 6 and 7 show an owl."""

SAID: dict[str, dict[str, tuple[float | None, ...]]] = {
    CRABS: {
        "p-crab": (0.9, 0.9, 0.2, 0.9),
        "p-red": (0.1, 0.8, 0.3, 0.9),
        "p-litter": (0.2, 0.9, 0.3, None),
        "p-odd": (0.9, 0.9, 0.9, 0.9),
        "query": (0.3, 0.9, 0.1, 0.7),
    },
    OWL: {"p-owl": (0.9, 0.6, 0.7, 0.2)},
}
"""P(yes), by predicate, along the images."""

FITTED = Calibration(
    key=CalibrationKey(model="m", prompts={}), benchmark="b", split="validation", temperature=2.0, whole_weight=0.5
)
Write = Callable[..., Path]


def result(text: str, said: dict[str, tuple[float | None, ...]], strategy: str) -> RerankResult:
    """The images backwards, with contributions: what is said against an image is the log-odds of its colour."""
    predicates = PREDICATES[text]
    images = IMAGES[text]
    verdicts = [
        Verdict.model_validate(
            {
                "predicate": predicate.id,
                "image_id": image_id,
                "state": "unknown" if p is None else "answered",
                "p_yes": p,
                "p_expected": p if p is None or predicate.expected == "yes" else 1 - p,
            }
        )
        for predicate in predicates
        for image_id, p in zip(images, said[predicate.id], strict=True)
    ]
    return RerankResult(
        query_id=f"q{list(PREDICATES).index(text)}",
        query_text=text,
        strategy=strategy,
        ranking=tuple(
            RankedCandidate(
                image_id=image_id,
                rank=rank,
                score=-rank,
                prior=rank,
                prior_rank=5 - rank,
                p_match=0.9 / rank,
                contributions={"base": -rank + 1.0, "prior": 0.0, "p-red": -1.0},
            )
            for rank, image_id in enumerate(reversed(images), start=1)
        ),
        predicates=predicates,
        verdicts=tuple(verdicts),
    )


@pytest.fixture
def write(world: World, tmp_path: Path) -> Write:
    """`write(name, ...)` makes the folder of a finished run."""

    def made(
        name: str,
        benchmark: str = "fieldnotes-rerank",
        said: dict[str, dict[str, tuple[float | None, ...]]] | None = None,
        relevant: dict[str, set[str]] = RELEVANT,
        **configuration: Any,
    ) -> Path:
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        results = [result(text, (said or SAID)[text], name) for text in PREDICATES]
        (folder / "results.jsonl").write_text("".join(f"{each.model_dump_json()}\n" for each in results))
        manifest = {
            "format": 1,
            "began": "",
            "configuration": {
                "benchmark": {"name": benchmark, "split": "test", "fingerprint": "f"},
                "strategy": {"name": name, "fingerprint": "s"},
                "lmm": "m",
                **configuration,
            },
        }
        (folder / "manifest.json").write_text(json.dumps(manifest))
        (folder / "metrics.json").write_text(json.dumps({"per_query": {each.query_id: {} for each in results}}))
        lines = [
            f"{each.query_id} 0 {ranked.image_id} {int(ranked.image_id in relevant[each.query_text])}\n"
            for each in results
            for ranked in each.ranking
        ]
        (folder / "qrels.trec").write_text("".join(lines))
        return folder

    return made


def payload(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    value = json.loads(result.stdout)
    assert isinstance(value, dict)
    return value


def table(told: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    names = ("seen", "missed", "refused", "passed", "untold", "unknown")
    return {row["kind"]: tuple(row[name] for name in names) for row in told["kinds"]}


def test_an_audit_against_the_scene_graph(run: Run, write: Write, tmp_path: Path) -> None:
    folder = write("agent")
    (told,) = payload(run("measure", "audit", folder, "--json", "--out", tmp_path / "out"))["runs"]
    assert table(told) == {
        "absence": (2, 0, 1, 0, 0, 1),  # 1 and 3 have no litter, which 2 is rightly said to have
        "colour": (2, 1, 1, 0, 0, 0),  # of 1, 2 and 4, which are red, 1 is missed; 3 is refused
        "subject": (6, 1, 1, 0, 0, 0),  # four times crabs, once missed; three owls, and a fox refused
        "weather": (0, 0, 0, 0, 4, 0),  # nobody knows what is a lovely day
        "query": (1, 1, 1, 1, 0, 0),  # 1 and 2 are relevant
    }
    assert {row["kind"]: row["source"] for row in told["kinds"]} == {
        "absence": "scene graph", "colour": "scene graph", "subject": "scene graph", "weather": "scene graph",
        "query": "relevance",
    }  # fmt: skip
    assert told["total"]["seen_share"] == pytest.approx(11 / 14)
    # Backwards, 1 and 2 stand below 3 and 4; 5 and 6 below 7 and 8, but there nobody asked about colours.
    assert [(s["image_id"], s["predicate"], s["holds"], s["prior_rank"], s["rank"]) for s in told["sunk"]] == [
        ("1", "p-red", True, 1, 4),
        ("2", "p-red", True, 2, 3),
    ]
    assert (told["relevant"], told["sunk_otherwise"]) == (4, 2)
    data = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert data["runs"] == [told]
    with (tmp_path / "out" / "audit.csv").open() as stream:
        assert [(row["run"], row["kind"], row["seen"]) for row in csv.DictReader(stream)][:1] == [
            ("agent", "absence", "2")
        ]
    with (tmp_path / "out" / "sunk.csv").open() as stream:
        assert [row["image_id"] for row in csv.DictReader(stream)] == ["1", "2"]


def test_an_audit_for_people(run: Run, write: Write) -> None:
    shown = run("measure", "audit", write("agent"))
    assert shown.exit_code == 0
    assert (
        "checked against scene graph: absence, colour, subject, weather; checked against relevance: query"
        in shown.stdout
    )
    assert "4 of 4 relevant images fell or stand below an irrelevant one; predicates count against 2" in shown.stdout
    assert "is the crab red?" in shown.stdout
    assert shown.stderr == ""


def test_another_benchmark_is_audited_against_relevance(run: Run, write: Write) -> None:
    folder = write("agent", benchmark="inquire-rerank")
    (told,) = payload(run("measure", "audit", folder, "--json"))["runs"]
    assert table(told) == {
        "absence": (1, 1, None, None, 1, 1),  # relevance says that 2 is without litter, as all its predicates hold
        "colour": (1, 1, None, None, 2, 0),
        "subject": (4, 0, None, None, 4, 0),
        "weather": (2, 0, None, None, 2, 0),
        "query": (1, 1, 1, 1, 0, 0),
    }
    shown = run("measure", "audit", folder)
    assert "relevance says that all predicates of a relevant image hold" in shown.stdout


def test_a_run_that_only_bears_the_name_is_not_believed(run: Run, write: Write) -> None:
    folder = write("agent", relevant={CRABS: {"3"}, OWL: {"5", "6"}})
    shown = run("measure", "audit", folder, "--json")
    assert shown.stderr == (
        "warning: agent is named fieldnotes-rerank, but its queries or judgments are not FieldNotes'. Its verdicts "
        "are checked against relevance.\n"
    )
    assert {row["source"] for row in json.loads(shown.stdout)["runs"][0]["kinds"]} == {"relevance"}


def test_reliability_before_and_after(run: Run, write: Write, tmp_path: Path) -> None:
    save_calibration(FITTED)
    known = write("agent", calibration=fingerprint(FITTED.model_dump(mode="json")))
    plain = write("plain")
    out = tmp_path / "out"
    told = payload(run("measure", "reliability", known, plain, "--json", "--out", out))["runs"]
    assert [(each["run"], each["lmm"], each["calibrated"]) for each in told] == [
        ("agent", "m", True),
        ("plain", "m", False),
    ]
    claims = {each["subject"]: each for each in told[0]["claims"]}
    assert list(claims) == ["absence", "colour", "subject", "query", "all verdicts", "match"]
    assert claims["absence"]["before"]["brier"]["value"] == pytest.approx((0.2**2 + 0.1**2 + 0.3**2) / 3)
    assert claims["absence"]["after"]["brier"]["value"] == pytest.approx(
        ((1 / 3) ** 2 + (1 / 4) ** 2 + (1 - 0.7**0.5 / (0.7**0.5 + 0.3**0.5)) ** 2) / 3
    )
    assert claims["subject"]["before"]["claims"] == 8
    assert claims["match"]["before"] != claims["match"]["after"]
    assert all(each["after"] is None for each in told[1]["claims"])
    with (out / "reliability.csv").open() as stream:
        summary = list(csv.DictReader(stream))
    assert {(row["run"], row["stage"]) for row in summary} == {
        ("agent", "before"), ("agent", "after"), ("plain", "before"),
    }  # fmt: skip
    with (out / "reliability-bins.csv").open() as stream:
        bins = [row for row in csv.DictReader(stream) if row["run"] == "plain" and row["claim"] == "subject"]
    assert sum(int(row["count"]) for row in bins if row["binning"] == "width") == 8
    assert sum(int(row["count"]) for row in bins if row["binning"] == "mass") == 8
    for name in ("agent", "plain"):
        with Image.open(out / f"reliability-{name}.png") as figure:
            assert figure.width > 300


def test_reliability_for_people(run: Run, write: Write) -> None:
    shown = run("measure", "reliability", write("agent", calibration="0" * 64))
    assert shown.exit_code == 0
    assert "the calibration of agent is not kept here" in shown.stderr
    assert "checked against relevance: query, match" in shown.stdout
    assert "all verdicts" in shown.stdout


def test_agreement_of_two_models(run: Run, write: Write, tmp_path: Path) -> None:
    other = SAID | {OWL: {"p-owl": (0.9, 0.4, 0.1, None)}}
    a, b = write("a"), write("b", said=other, lmm="another")
    told = payload(run("measure", "agreement", a, b, "--json", "--out", tmp_path / "out"))
    assert told["runs"] == ["a", "b"]
    (pair,) = told["pairs"]
    # Of 19 answers about crabs all are equal, of three about owls one is.
    assert (pair["queries"], pair["shared"], pair["only_a"], pair["only_b"]) == (2, 22, 2, 0)
    assert pair["equal"] == pytest.approx(20 / 22)
    yes = (pair["both"] + 2) / 22, pair["both"] / 22
    chance = yes[0] * yes[1] + (1 - yes[0]) * (1 - yes[1])
    assert pair["kappa"] == pytest.approx((20 / 22 - chance) / (1 - chance))
    assert json.loads((tmp_path / "out" / "agreement.json").read_text()) == told
    with Image.open(tmp_path / "out" / "agreement.png") as figure:
        assert figure.width > 300
    # The folder that holds both will do.
    shown = run("measure", "agreement", a.parent)
    assert "90.9%" in shown.stdout


def test_what_can_not_be_audited(run: Run, write: Write, tmp_path: Path) -> None:
    a, elsewhere = write("a"), write("b", benchmark="fieldnotes")
    refused = run("measure", "agreement", a, elsewhere)
    assert refused.exit_code == 1
    assert "runs over different queries" in refused.stderr
    alone = run("measure", "agreement", a)
    assert (alone.exit_code, alone.stderr) == (1, "error: agreement is between runs; name two or more\n")
    (tmp_path / "empty").mkdir()
    for command in ("audit", "reliability", "agreement"):
        assert "holds no run" in run("measure", command, tmp_path / "empty").stderr
    silent = write("silent")
    lines = [RerankResult.model_validate_json(line) for line in (silent / "results.jsonl").read_text().splitlines()]
    bare = [
        each.model_copy(
            update={
                "predicates": (),
                "verdicts": (),
                "ranking": tuple(r.model_copy(update={"p_match": None, "contributions": {}}) for r in each.ranking),
            }
        )
        for each in lines
    ]
    (silent / "results.jsonl").write_text("".join(f"{each.model_dump_json()}\n" for each in bare))
    for command, words in (
        ("audit", "asked nothing about their images"),
        ("reliability", "claim nothing with a probability"),
        ("agreement", "name two or more"),
    ):
        told = run("measure", command, silent)
        assert told.exit_code == 1
        assert words in told.stderr
        assert "silent" in told.stderr
    assert "silent has no verdict" in run("measure", "agreement", a, write("c"), silent).stderr


@pytest.mark.parametrize("name", ["manifest.json", "metrics.json", "qrels.trec", "results.jsonl"])
def test_a_damaged_run_is_refused(run: Run, write: Write, name: str) -> None:
    folder = write("agent")
    (folder / name).write_text('{"configuration": {}} oh')
    refused = run("measure", "audit", folder)
    assert refused.exit_code == 1
    assert f"{name} is missing or damaged" in refused.stderr
