"""`fieldscope trace`: a whole ranking, one image, two runs; for people and for programs."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from rich.console import Console, RenderableType

from fieldscope.agent.trace import result_to_json, trace_schema
from fieldscope.agent.trace_diff import diff
from fieldscope.agent.trace_why import why
from fieldscope.agent.types import Comparison, Predicate, RankedCandidate, RerankResult, Synthesis, TraceEvent
from fieldscope.core.types import Turn
from fieldscope.service.cli.tables.trace import render_trace
from fieldscope.service.cli.tables.trace_diff import render_diff
from fieldscope.service.cli.tables.trace_why import render_why
from tests.agent.traced import agentic, single, verdict
from tests.service.conftest import FOX, Run, World


def shown(renderable: RenderableType, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def rows(text: str) -> dict[str, list[str]]:
    """The ranking's lines, by image."""
    cells = [line.split() for line in text.splitlines() if line.rstrip().endswith(".png")]
    return {row[-1]: row for row in cells if row[0].isdecimal()}


def wide(images: int = 40, predicates: int = 14) -> RerankResult:
    """More of everything than fits on a screen."""
    asked = tuple(Predicate(id=f"predicate-{n}", question=f"is it {n}?", words=f"w{n}") for n in range(predicates))
    ranking = tuple(
        RankedCandidate(
            image_id=f"images/{n:06d}.png", rank=n, score=-n, prior=1 / n, prior_rank=n, rank_low=1, rank_high=99
        )
        for n in range(1, images + 1)
    )
    verdicts = tuple(verdict(p.id, r.image_id, 0.99999, p_yes=0.99999) for r in ranking for p in asked)
    return agentic(ranking=ranking, predicates=asked, verdicts=verdicts, comparisons=(), reasons=(), trace=())


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with two queries, and another one with one of them."""
    monkeypatch.chdir(tmp_path)
    again = agentic(
        strategy="predicates",
        ranking=tuple(r.model_copy(update={"rank": 5 - r.rank}) for r in reversed(agentic().ranking)),
        predicates=agentic().predicates[:1],
    )
    for name, results in (("agent", (single(), agentic())), ("predicates", (again,))):
        folder = tmp_path / "out" / name
        folder.mkdir(parents=True)
        (folder / "results.jsonl").write_text("".join(f"{result_to_json(result)}\n" for result in results))
    return Path("out")


def told(run: Run, *args: object) -> str:
    result = run("trace", *args)
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("query", ["q7", "  A red crab   WITHOUT a net "])
def test_a_query_by_id_or_text(run: Run, out: Path, query: str) -> None:
    text = told(run, out / "agent", query)
    assert "a red crab without a net" in text
    assert "it must be red." in text


def test_a_run_that_eval_wrote_fits_the_schema_and_is_told(run: Run, world: World) -> None:
    made = run("eval", "fieldnotes", "--strategy", "yes-no", "--json", "--out", "out")
    assert made.exit_code == 0, made.stderr
    for line in Path("out/yes-no/results.jsonl").read_text(encoding="utf-8").splitlines():
        Draft202012Validator(trace_schema()).validate(json.loads(line))
    text = told(run, "out", "t002")
    assert FOX in text
    assert "does this image match" in text
    assert "retrieved" in text
    assert "(P(yes) 0.90)" in told(run, "out", "t002", "--why", "8")


def test_everything_about_a_ranking_is_told() -> None:
    text = shown(render_trace(agentic()))
    table = rows(text)
    assert table["fine.png"][:7] == ["1", "↑1", "0.50", "1–2", "0.800", "97", "96"]
    assert table["blue.png"][:7] == ["3", "↓2", "0.50", "2–4", "0.900", "2", "90"]
    assert table["net.png"][5:7] == ["90", "?"]
    for words in (
        *("a crab", "a red crab and no net", "is there a net?", "absence", "without a net", "is the crab red?"),
        *("2 × timed out", "the budget ran out in the stage compare", "separates_nothing p2", "it is red."),
        "≠ the reason says no, the verdict does not",
        "agree in 1 of 2; the image shown first wins 62%",
    ):
        assert words in text
    assert "fallback" not in text
    (pair,) = [line for line in text.splitlines() if line.startswith("fine.png | twin.png")]
    assert pair.split()[3:] == ["0.70", "|", "0.30", "0.60", "|", "0.40", "agree"]
    (verify,) = [line.split() for line in text.splitlines() if line.startswith("verify")]
    assert verify[1:7] == ["8", "4", "1", "0", "357", "0.00"]
    assert "4 images, furthest blue.png ↓3" in text


def test_a_single_question_is_told_too() -> None:
    text = shown(render_trace(single()))
    table = rows(text)
    assert table["a.png"][:6] == ["1", "↑1", "0.90", "-", "0.500", "90"]
    assert (table["b.png"][5], table["c.png"][5]) == ("?", "·")
    assert "1 × no server" in text
    assert "1 answered (0 from the cache), 1 unknown, 1 not asked; 41 tokens" in text
    assert "events 2, answered 1, unknown 1, tokens 41" in text
    assert "e" * 12 in text
    assert "e" * 13 not in text


def test_a_fallback_a_reference_and_a_dialogue_are_told() -> None:
    fallback = Synthesis(thought="", core="x", detailed="x", comprehensive="x", fallback="not JSON")
    request = {
        "synthesis": fallback,
        "reference_image": "7.png",
        "dialogue": (Turn(question="red?", answer="yes, red"),),
    }
    text = shown(render_trace(agentic(**request)))
    assert "the query's own words are used instead: not JSON" in text
    assert "7.png" in text
    assert "red?  yes, red" in text


def test_a_ranking_without_questions_is_told() -> None:
    bare = single().model_copy(update={"predicates": (), "verdicts": ()})
    assert rows(shown(render_trace(bare)))["a.png"] == ["1", "↑1", "0.90", "-", "0.500", "a.png"]


def test_many_images_and_predicates_stay_readable_at_100_columns() -> None:
    text = shown(render_trace(wide()))
    assert max(map(len, text.splitlines())) <= 100
    named = [line.split() for line in text.splitlines() if line.endswith("images/000001.png")]
    assert [row[5:-1] for row in named] == [[">99"] * 8, [">99"] * 6]
    assert "p14 (predicate-13)" in text
    assert "images/000020.png" in text
    assert "images/000021.png" not in text
    assert "20 more images; --all shows them" in text
    assert "images/000040.png" in shown(render_trace(wide(), None))


def test_an_order_that_was_never_asked_is_no_agreement() -> None:
    walk = Comparison(shown=("fine.png",), probabilities=(1.0,), answer="Yes", state="answered")
    text = shown(render_trace(agentic(comparisons=(walk, agentic().comparisons[4]))))
    assert "unknown: timed out" in text
    assert "agree in" not in text


def test_why_an_image_sank(run: Run, out: Path) -> None:
    text = told(run, out / "agent", "q7", "--why", "blue.png")
    lines = text.splitlines()
    assert lines[0] == 'ranked 3 (prior 1): sunk by "is the crab red?" (P(yes) 0.02)'
    (bar,) = [line for line in lines if line.strip().startswith("-4.00")]
    assert bar.count("█") == 12
    assert "is the crab red?" in bar and max(map(len, lines)) <= 80
    assert "3 of 4; the prior had it at 1 (↓2)" in text
    assert "just above, at rank 2" in text
    assert "    -5.90  p1 is the crab red?" in text
    assert told(run, out / "agent", "q7", "--image", "blue.png") == text
    assert "unknown: timed out" in told(run, out / "agent", "q7", "--why", "net.png")


def test_what_separates_any_two_images(run: Run, out: Path) -> None:
    text = told(run, out / "agent", "q7", "--why", "blue.png", "--above", "fine.png")
    assert text.splitlines()[0].startswith("fine.png (rank 1) stands above blue.png (rank 3) by ")
    assert "which sum to the difference of the scores" in text
    assert max(map(len, text.splitlines())) <= 80
    found = json.loads(told(run, out / "agent", "q7", "--why", "fine.png", "--above", "blue.png", "--json"))
    assert (found["upper"]["image_id"], found["lower"]["image_id"]) == ("fine.png", "blue.png")
    alone = run("trace", out / "agent", "q7", "--above", "fine.png")
    assert alone.exit_code == 2 and "name the other one with --why IMAGE" in alone.stderr


def test_long_ids_of_predicates_get_short_names() -> None:
    text = shown(render_why(wide(), why(wide(), "images/000003.png")))
    assert "p14" in text
    assert "predicate-13" not in text


def test_events_stand_in_the_order_of_time() -> None:
    late, early = TraceEvent(kind="planned", at=2.0), TraceEvent(kind="started", at=0.0)
    text = shown(render_trace(agentic(trace=(late, early))))
    assert text.index("started") < text.index("planned")


def test_why_tells_the_call(run: Run, out: Path) -> None:
    text = told(run, out / "agent", "q1", "--why", "a.png")
    assert "f" * 64 in text
    assert "40 tokens read, 1 written, 0.125 s" in text


def test_an_image_that_is_not_ranked_is_an_error(run: Run, out: Path) -> None:
    missing = run("trace", out / "agent", "q7", "--why", "bleu.png")
    assert missing.exit_code == 1
    assert "'bleu.png' (did you mean 'blue.png'?)" in missing.stderr


def test_two_runs_side_by_side(run: Run, out: Path) -> None:
    text = told(run, out / "agent", "q7", "--diff", out / "predicates")
    assert "prompt ask" in text
    assert "the same" in text
    assert "only A  is there a net? (expected no)" in text
    (first,) = [line.split() for line in text.splitlines() if line.strip().startswith("1 ")]
    assert first == ["1", "0.50", "fine.png", "0.50", "net.png", "↑3"]
    assert "rank 1  rank 4" in text
    assert "is there a net? (expected no)      96       ·" in text


def test_two_equal_runs_disagree_on_nothing() -> None:
    assert "no image changes its rank" in shown(render_diff(diff(agentic(), agentic())))


def test_a_query_that_the_other_run_lacks_is_an_error_in_one_line(run: Run, out: Path) -> None:
    missing = run("trace", out / "agent", "q1", "--diff", out / "predicates")
    assert missing.exit_code == 1
    assert missing.stderr.strip().splitlines() == [
        "error: out/predicates has no query 'q1'; choose one of its 1, such as q7 (a red crab without a net)"
    ]


def test_one_question_at_a_time(run: Run, out: Path) -> None:
    both = run("trace", out / "agent", "q7", "--why", "blue.png", "--diff", out / "predicates")
    assert both.exit_code == 2
    assert "--why and --diff" in both.stderr


def test_for_programs(run: Run, out: Path) -> None:
    assert RerankResult.model_validate_json(told(run, out / "agent", "q7", "--json")) == agentic()
    one = json.loads(told(run, out / "agent", "q7", "--why", "blue.png", "--json"))
    assert (one["query_id"], one["ranked"]["rank"], one["parts"][0]["source"]) == ("q7", 3, "p1")
    two = json.loads(told(run, out / "agent", "q7", "--diff", out / "predicates", "--json"))
    assert [p["id"] for p in two["only_a"]] == ["p2"]
    assert json.loads(told(run, "--schema")) == trace_schema()


def test_an_unknown_query_gets_the_nearest(run: Run, out: Path) -> None:
    result = run("trace", out / "agent", "a red crab with a net")
    assert result.exit_code == 1
    assert "choose one of its 2, such as q7 (a red crab without a net)" in result.stderr


def test_of_several_runs_one_must_be_named(run: Run, out: Path) -> None:
    result = run("trace", out, "q7")
    assert result.exit_code == 1
    assert "out/agent, out/predicates" in result.stderr
    (out / "predicates" / "results.jsonl").unlink()
    assert "it must be red." in told(run, out, "q7")


def test_a_line_that_a_kill_cut_off_is_passed_over(run: Run, out: Path) -> None:
    file = out / "agent" / "results.jsonl"
    whole = file.read_text()
    file.write_text(whole + '{"query_id": "q7", "query_te')
    assert run("trace", out / "agent", "q7").exit_code == 0
    file.write_text(whole + '{"query_id": "q7", "query_text": "x", "of": "another version"}\n')
    broken = run("trace", out / "agent", "q7")
    assert broken.exit_code == 1
    assert "not a rerank result of this version" in broken.stderr


EVIL = "[bold red]x[/bold red] \x1b[2Jgone \u202eflipped \rback"


@pytest.mark.parametrize(
    "line",
    ['{"a":' * 100_000, "[" * 5_000 + "]" * 5_000, '{"query_id": ["q1"], "query_text": "x"}', '{"query_id": NaN}', "7"],
    ids=["deep", "deep and closed", "an id that is a list", "not a number", "a number"],
)
def test_a_line_that_is_no_result_is_passed_over(run: Run, out: Path, line: str) -> None:
    path = out / "agent" / "results.jsonl"
    path.write_text(f"{line}\n{path.read_text()}")
    assert run("trace", "out/agent", "q1", "--json").exit_code == 0
    path.write_text(f"{line}\n")
    broken = run("trace", "out/agent", "q1")
    assert broken.exit_code == 1
    assert "has no query 'q1'; choose a run that has results" in broken.stderr
    assert len(broken.stderr.splitlines()) == 1


def evil() -> RerankResult:
    """Somebody else's words wherever there can be any."""

    def spoilt(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {key: spoilt(item, key) for key, item in value.items()}
        if isinstance(value, list):
            return [spoilt(item) for item in value]
        free = {"query_text", "thought", "core", "question", "words", "kind", "answer", "error", "text", "strategy"}
        return EVIL if isinstance(value, str) and key in free else value

    told = agentic(flags=(EVIL,), ended=EVIL, reference_image=EVIL).model_dump(mode="json")
    result = spoilt(told)
    result["trace"] = [TraceEvent(kind=EVIL, at=0.0, data={EVIL: [EVIL, {"model": EVIL}]}).model_dump()]
    for entry in (*result["ranking"], *result["verdicts"], *result["reasons"]):
        entry["image_id"] = f"{entry['image_id']}{EVIL}"
    for entry in result["predicates"]:
        entry["id"] = f"{entry['id']}{EVIL}"
    return RerankResult.model_validate(result)


def test_markup_and_control_characters_are_shown_and_not_obeyed() -> None:
    result = evil()
    views = (
        render_trace(result),
        render_trace(result.model_copy(update={"predicates": result.predicates[:1]})),
        *(render_why(result, why(result, r.image_id)) for r in result.ranking),
        render_diff(diff(result, result.model_copy(update={"ranking": result.ranking[::-1]}))),
    )
    for view in views:
        text = shown(view, width=700)
        assert "[bold red]x[/bold red]" in text
        assert "\\x1b[2Jgone" in text
        assert not {"\x1b", "\u202e", "\r"} & set(text)


def test_contributions_of_any_size_are_shown() -> None:
    ranked = agentic().ranking[0].model_copy(update={"contributions": {"prior": 1e308, "base": -1e308}})
    result = agentic(ranking=(ranked, *agentic().ranking[1:]))
    assert "█" in shown(render_why(result, why(result, ranked.image_id)))
