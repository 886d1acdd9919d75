"""The page of an image shows its closer looks: boxes on the picture, and each crop beside its answer."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image as PILImage

from fieldscope.agent.types import RerankResult, Verdict
from fieldscope.core.looks import Look, Region, look_id
from fieldscope.service.viewer import addresses
from fieldscope.service.viewer.export import export
from fieldscope.service.viewer.pictures import Pictures
from fieldscope.service.viewer.site import Site
from tests.service.viewer.shelves import MARKUP, Made

CORNER = Look(region=Region(left=0.5, top=0.25, right=1, bottom=0.5), proposed_by="tiles", similarity=0.31)
ENHANCED = Look(enhance=True)


@pytest.fixture
def looked(few: Made) -> tuple[Made, RerankResult, str]:
    """A run in whose first result the best image was looked at twice, one answer with markup."""
    path = few.run("agent") / "results.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    result = RerankResult.model_validate_json(lines[0])
    image_id = result.ranking[0].image_id
    asked = next(verdict for verdict in result.verdicts if verdict.image_id == image_id)
    told = {"image_id": image_id, "predicate": asked.predicate, "state": "answered", "p_yes": 0.9, "p_expected": 0.9}
    closer = tuple(Verdict(**told, look=look, answer=MARKUP) for look in (CORNER, ENHANCED))  # type: ignore[arg-type]
    result = result.model_copy(update={"verdicts": (*result.verdicts, *closer)})
    path.write_text("\n".join([result.model_dump_json(), *lines[1:]]) + "\n", encoding="utf-8")
    return few, result, image_id


def page_of(made: Made, result: RerankResult, image_id: str) -> str:
    site = Site(made.shelf(), live=False)
    return site.render(site.page(addresses.image_page("agent", result.query_id, image_id)))


def test_the_boxes_lie_on_the_picture_and_the_crops_beside_their_answers(
    looked: tuple[Made, RerankResult, str],
) -> None:
    made, result, image_id = looked
    page = page_of(made, result, image_id)
    with PILImage.open(made.images / image_id) as picture:
        width, height = picture.size
    assert f'viewBox="0 0 {width} {height}"' in page
    box = f'x="{width / 2:.1f}" y="{height / 4:.1f}" width="{width / 2:.1f}" height="{height / 4:.1f}"'
    assert page.count(box) == 2, "the box and its halo; the enhanced picture has none"
    for look in (CORNER, ENHANCED):
        assert f"{addresses.slug(look_id(image_id, look))}.webp" in page
    assert "proposed by its tiles, similarity 0.310" in page
    assert "The whole picture, enhanced" in page
    assert "<script>alert" not in page
    assert "onerror=alert(1)>" not in page


def test_an_image_without_looks_has_neither(looked: tuple[Made, RerankResult, str]) -> None:
    made, result, image_id = looked
    other = next(ranked.image_id for ranked in result.ranking if ranked.image_id != image_id)
    page = page_of(made, result, other)
    assert "Closer looks" not in page
    assert "viewBox" not in page or 'class="boxes"' not in page


def test_a_crop_is_a_picture_like_any_other(looked: tuple[Made, RerankResult, str]) -> None:
    made, _, image_id = looked
    shelf = made.shelf()
    key = shelf.runs()[0].collection_key
    name = addresses.slug(look_id(image_id, CORNER))
    got = Pictures(shelf).picture("pictures", key, name)
    with PILImage.open(made.images / image_id) as whole, PILImage.open(io.BytesIO(got.webp)) as crop:
        assert got.found
        assert crop.size == (whole.width // 2, whole.height // 4)
    outside = addresses.slug("../secret.png#xywh=percent:0,0,50,50")
    assert not Pictures(shelf).picture("pictures", key, outside).found


def test_a_file_that_is_named_like_a_look_is_shown_as_it_is(looked: tuple[Made, RerankResult, str]) -> None:
    made, _, image_id = looked
    name = look_id(image_id, CORNER)
    PILImage.new("RGB", (7, 5), "red").save(made.images / name, format="PNG")
    try:
        shelf = made.shelf()
        got = Pictures(shelf).picture("pictures", shelf.runs()[0].collection_key, addresses.slug(name))
        with PILImage.open(io.BytesIO(got.webp)) as shown:
            assert shown.size == (7, 5)
    finally:
        (made.images / name).unlink()  # other tests share the pictures


def test_a_very_long_name_is_found_by_what_the_run_recorded(few: Made) -> None:
    long = "a" * 150 + ".png"
    PILImage.new("RGB", (40, 40), "blue").save(few.images / long)
    try:
        seen = look_id(long, CORNER)
        with (few.run("agent") / "images.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"image_id": seen, "sha256": "0" * 64}) + "\n")
        shelf = few.shelf()
        name = addresses.slug(seen)
        assert name.startswith("~~")
        assert Pictures(shelf).picture("pictures", shelf.runs()[0].collection_key, name).found
    finally:
        (few.images / long).unlink()


def test_the_export_has_the_crops(looked: tuple[Made, RerankResult, str], tmp_path: Path) -> None:
    made, _, image_id = looked
    export(Site(made.shelf(), live=False), tmp_path / "site")
    written = tmp_path.glob(f"site/pictures/*/{addresses.slug(look_id(image_id, CORNER))}.webp")
    with PILImage.open(next(written)) as crop, PILImage.open(made.images / image_id) as whole:
        assert crop.width * whole.height == 2 * crop.height * whole.width
