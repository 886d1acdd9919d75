"""Reranking from Python: kinds of images, warnings, event loops, and what is let go of."""

from __future__ import annotations

import asyncio
import io
import signal
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PILImage

import fieldscope
from fieldscope.agent.lmm.base import LMMRequest, LMMResponse, TokenLogprob
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.core.types import ImageSource

pytestmark = pytest.mark.timeout(1200)  # the bundled models load and answer in a process that others may slow down

QUERY = "a yellow crab on a reef"


def yes_to(image_id: str, asked: list[str] | None = None) -> ScriptedLMM:
    """Says yes to one image."""

    def answer(request: LMMRequest) -> float:
        if asked is not None:
            asked.append(request.images[0].image_id)
        return 0.9 if request.images[0].image_id == image_id else 0.1

    return ScriptedLMM(answer)


@pytest.fixture
def squares() -> dict[str, PILImage.Image]:
    """Images that no bundled model knows."""
    return {name: PILImage.new("RGB", (20, 10), name) for name in ("red", "green", "blue")}


def test_bundled_models_rank_a_folder_and_give_reasons(pictures: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ranking = fieldscope.rerank(QUERY, pictures)
    assert [image.rank for image in ranking] == list(range(1, 11))
    best = ranking[0]
    assert best.path == (pictures / best.image_id).resolve()
    assert best.p_match is not None
    assert best.p_match > 0.5 > (ranking[1].p_match or 0.0)
    assert "yellow crab" in best.reason
    assert ranking[-1].reason == ranking[-1].why != ""
    assert ranking.flags == ()
    assert capfd.readouterr() == ("", "")


def test_images_may_be_paths_bytes_pillow_images_and_a_mapping(
    squares: dict[str, PILImage.Image], tmp_path: Path
) -> None:
    squares["red"].save(tmp_path / "red.png")
    data = io.BytesIO()
    squares["blue"].save(data, "PNG")
    mixed: list[Any] = [tmp_path / "red.png", squares["green"], data.getvalue()]
    ids = [(tmp_path / "red.png").as_posix(), "image-2", "image-3"]
    with fieldscope.Reranker("yes-no", lmm=yes_to("image-3")) as reranker:
        ranking = reranker.rerank("blue", mixed)
        assert ranking[0].image_id == "image-3"
        assert {image.image_id for image in ranking} == set(ids)
        assert ranking[0].load().getpixel((0, 0)) == (0, 0, 255)
        assert [image.path for image in ranking if image.path] == [tmp_path / "red.png"]
    by_name = fieldscope.rerank("blue", squares, "yes-no", lmm=yes_to("blue"))
    assert by_name[0].image_id == "blue"
    single = fieldscope.rerank("blue", squares["blue"], "yes-no", lmm=yes_to("image-1"))
    assert [image.image_id for image in single] == ["image-1"]


def test_images_that_can_not_be_read_are_skipped(squares: dict[str, PILImage.Image]) -> None:
    ranking = fieldscope.rerank("blue", {**squares, "broken": b"no image"}, "yes-no", lmm=yes_to("blue"))
    assert len(ranking) == 3
    assert "broken" in ranking.skipped
    with pytest.raises(fieldscope.ConfigError, match="no images were given"):
        fieldscope.rerank("blue", [], "yes-no", lmm=yes_to("blue"))
    with pytest.raises(TypeError, match="give a path"):
        fieldscope.rerank("blue", [7], "yes-no", lmm=yes_to("blue"))  # type: ignore[list-item]


def test_foreign_images_are_flagged_and_warned_of_at_the_callers_line(
    squares: dict[str, PILImage.Image], pictures: Path
) -> None:
    with pytest.warns(fieldscope.FieldscopeWarning, match="FieldNotes") as heard:
        ranking = fieldscope.rerank("a crab", squares, "yes-no")
    assert heard[0].filename == __file__
    assert len(heard) == 1
    assert "FieldNotes" in ranking.flags[0]


def test_unknown_words_are_an_error(pictures: Path) -> None:
    with pytest.raises(fieldscope.VocabularyError, match="heron"):
        fieldscope.rerank("a heron", pictures)


async def test_the_synchronous_calls_work_inside_a_running_event_loop(squares: dict[str, PILImage.Image]) -> None:
    assert asyncio.get_running_loop().is_running()
    with fieldscope.Reranker("yes-no", lmm=yes_to("blue")) as reranker:
        assert [reranker.rerank("blue", squares)[0].image_id for _ in range(2)] == ["blue", "blue"]


async def test_the_asynchronous_twin_ranks_several_queries_at_once(squares: dict[str, PILImage.Image]) -> None:
    async with fieldscope.AsyncReranker("yes-no", lmm=yes_to("blue")) as reranker:
        rankings = await asyncio.gather(*(reranker.rerank(query, squares) for query in ("blue", "a sky")))
    assert [ranking[0].image_id for ranking in rankings] == ["blue", "blue"]
    with pytest.raises(fieldscope.ConfigError, match="closed"):
        await reranker.rerank("blue", squares)


class PixelLMM:
    """Says yes to blue images; it sees pixels, and not ids."""

    identity = "pixels"

    def __init__(self, images: ImageSource) -> None:
        self.images = images
        self.closed = 0

    async def generate(self, request: LMMRequest) -> LMMResponse:
        red, _, blue = self.images.load(request.images[0].image_id).getpixel((0, 0))  # type: ignore[misc]
        tokens = (TokenLogprob(token="Yes", logprob=-0.1), TokenLogprob(token="No", logprob=-2.4))
        if red > blue:
            tokens = (TokenLogprob(token="No", logprob=-0.1), TokenLogprob(token="Yes", logprob=-2.4))
        return LMMResponse(text=tokens[0].token, answer_logprobs=tokens)

    async def aclose(self) -> None:
        self.closed += 1


def test_one_model_serves_calls_with_the_same_ids_and_is_closed_once(squares: dict[str, PILImage.Image]) -> None:
    made: list[PixelLMM] = []

    def make(images: ImageSource) -> PixelLMM:
        made.append(PixelLMM(images))
        return made[-1]

    with fieldscope.Reranker("yes-no", lmm=make) as reranker:
        first = reranker.rerank("blue", {"a": squares["red"], "b": squares["blue"]})
        second = reranker.rerank("blue", {"a": squares["blue"], "b": squares["red"]})
        assert (first[0].image_id, second[0].image_id) == ("b", "a")
        assert second.result.verdicts[0].image_id in {"a", "b"}
        assert first.models == {"clip": None, "lmm": "pixels"}
        assert [entry["image"] for entry in first.payload()["ranking"]] == ["b", "a"]
        assert made[0].closed == 0
    assert [lmm.closed for lmm in made] == [1]
    with pytest.raises(fieldscope.ConfigError, match="closed"):
        reranker.rerank("blue", squares)


def test_a_query_without_any_answer_is_an_error(squares: dict[str, PILImage.Image]) -> None:
    def fail(request: LMMRequest) -> float:
        raise fieldscope.LMMServerError("the server failed; restart it")

    with pytest.raises(fieldscope.LMMError, match="none of 3 questions"):
        fieldscope.rerank("blue", squares, "yes-no", lmm=ScriptedLMM(fail))


def test_a_budget_ends_the_work_and_warns(squares: dict[str, PILImage.Image]) -> None:
    budget = fieldscope.Budget(max_calls=1)
    with pytest.warns(fieldscope.FieldscopeWarning, match="budget"):
        ranking = fieldscope.rerank("blue", squares, "yes-no", lmm=yes_to("blue"), budget=budget)
    assert ranking.ended == "verify"


@pytest.mark.parametrize("options", [{"lmm": "http://localhost:1"}, {"model": "vl"}])
def test_a_server_and_its_model_go_together(options: dict[str, Any]) -> None:
    with pytest.raises(fieldscope.ConfigError, match="go together"):
        fieldscope.Reranker(**options)


def test_ctrl_c_interrupts_the_wait_and_the_reranker_goes_on(squares: dict[str, PILImage.Image]) -> None:
    waiting = threading.Event()
    cancelled = threading.Event()

    class Hanging(PixelLMM):
        async def generate(self, request: LMMRequest) -> LMMResponse:
            if request.text.count("forever"):
                waiting.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    cancelled.set()
            return await super().generate(request)

    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        waiting.wait()
        signal.pthread_kill(main, signal.SIGINT)

    with fieldscope.Reranker("yes-no", lmm=Hanging, cache="off") as reranker:
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            reranker.rerank("forever", squares)
        thread.join()
        assert cancelled.wait(60)
        assert reranker.rerank("blue", {"a": squares["red"], "b": squares["blue"]})[0].image_id == "b"


def test_an_index_is_searched_and_its_ids_are_reranked(pictures: Path, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from fieldscope.service.cli.main import cli

    index = tmp_path / "index"
    assert CliRunner().invoke(cli, ["index", str(pictures), "-o", str(index)]).exit_code == 0
    with fieldscope.Reranker("yes-no") as reranker:
        found = reranker.search(index, QUERY, top_k=4)
        assert len(found) == 4
        ids = [image.image_id for image in found[:2]]
        assert {image.image_id for image in reranker.rerank(QUERY, ids, index=index)} == set(ids)
        with pytest.raises(fieldscope.ConfigError, match="not in the index"):
            reranker.rerank(QUERY, ["nowhere.png"], index=index)
    assert fieldscope.search(index, QUERY, "clip", top_k=3)[0].p_match is None
