"""What a notebook shows: escaped, bounded in size, and in one line where a terminal shows it."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest
from PIL import Image as PILImage

import fieldscope
from fieldscope.agent.lmm.base import LMMRequest
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.service.workflows.notebook import LONGEST, MOST_ROWS


def ranking_of(count: int, query: str = "blue") -> fieldscope.Ranking:
    images = {f"<b>{n}</b>": PILImage.new("RGB", (900, 600), (n % 256, 0, 0)) for n in range(count)}

    def answer(request: LMMRequest) -> float:
        return 0.5 + 0.4 / (1 + request.images[0].sha256.count("a"))

    return fieldscope.rerank(query, images, "yes-no", lmm=ScriptedLMM(answer))


def test_a_ranking_shows_thumbnails_ranks_and_reasons_escaped() -> None:
    html = ranking_of(3, "<script>alert(1)</script> & more")._repr_html_()
    assert html.count('src="data:image/jpeg;base64,') == 3
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "<b>" not in html
    assert "&lt;b&gt;0&lt;/b&gt;" in html
    for column in ("rank", "P(match)", "prior rank", "reason"):
        assert f">{column}</th>" in html


def test_html_is_bounded(tmp_path: Path) -> None:
    html = ranking_of(60, "blue " * 1000)._repr_html_()
    assert html.count("<img") == MOST_ROWS
    assert "40 more" in html
    assert len(html) < 200_000
    assert all(len(text) <= LONGEST for text in unescape(re.sub("<[^>]*>", "\n", html)).splitlines())


def test_texts_are_short() -> None:
    ranking = ranking_of(2, "blue " * 1000)
    assert re.fullmatch(r"Ranking\('blue .*…', 2 images, best='<b>.</b>', strategy='yes-no'\)", repr(ranking))
    assert repr(ranking[0]).startswith("RankedImage(1, '<b>")
    assert len(repr(ranking[0])) < 200
    assert ranking[0]._repr_html_().count("<img") == 1


def test_a_ranking_whose_images_are_gone_shows_no_thumbnail(tmp_path: Path, pictures: Path) -> None:
    ranking = fieldscope.rerank("a crab", pictures, "clip")
    loaded = fieldscope.Ranking(ranking.result, fieldscope.service.workflows.given_images.GivenImages({}))  # type: ignore[attr-defined]
    assert "<img" not in loaded._repr_html_()
    assert loaded[0].path is None


@pytest.mark.slow
def test_an_evaluation_and_a_run_show_intervals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: Path
) -> None:
    evaluation = fieldscope.evaluate("fieldnotes-rerank", ["clip", "yes-no"], split="validation", limit=3)
    assert [run.name for run in evaluation] == ["clip", "yes-no"]
    html = evaluation._repr_html_()
    assert "points [" in html
    assert re.search(r"\d % \[", html)
    assert repr(evaluation).startswith("Evaluation(clip: mAP@50 ")
    run = fieldscope.load_run("runs/fieldnotes-rerank-validation/yes-no")
    assert len(run) == 3
    assert evaluation["yes-no"].metric("MRR") == run.metric("MRR")
    low, high = run.metric("AP@50").low, run.metric("AP@50").high
    assert 0 <= low <= run.metric("AP@50").mean <= high <= 1
    ranking = run["q000"]
    assert len(ranking) == 100
    assert "<img" in ranking._repr_html_()
    assert evaluation.effect("yes-no").test.difference > 0
    with pytest.raises(fieldscope.ConfigError, match="metric"):
        run.metric("beauty@7")
    with pytest.raises(fieldscope.ConfigError):
        fieldscope.load_run(tmp_path)
