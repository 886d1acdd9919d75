import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fieldscope.core.fingerprint import canonical_json, fingerprint, fingerprint_files, fingerprint_pixels

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_canonical_json_says_the_same_value(value: object) -> None:
    assert json.loads(canonical_json(value)) == value


@given(st.dictionaries(st.text(), st.integers(), min_size=2, max_size=6))
def test_the_order_of_keys_does_not_matter(value: dict[str, int]) -> None:
    assert fingerprint(dict(reversed(value.items()))) == fingerprint(value)


@given(JSON, JSON)
def test_different_spellings_have_different_fingerprints(one: object, other: object) -> None:
    assert (fingerprint(one) == fingerprint(other)) == (canonical_json(one) == canonical_json(other))


def test_a_known_fingerprint() -> None:
    assert fingerprint({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1: object()}, {"a": b"bytes"}])
def test_what_json_cannot_say_is_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        fingerprint(value)


def test_pixels_survive_another_encoding() -> None:
    image = Image.effect_noise((20, 10), 60).convert("RGB")
    prints = set()
    for fmt, options in (("PNG", {"compress_level": 0}), ("PNG", {"compress_level": 9}), ("BMP", {})):
        buffer = io.BytesIO()
        image.save(buffer, format=fmt, **options)
        prints.add(fingerprint_pixels(Image.open(buffer)))
    assert prints == {fingerprint_pixels(image)}


def test_size_and_every_pixel_count() -> None:
    image = Image.new("RGB", (4, 2), "red")
    touched = image.copy()
    touched.putpixel((3, 1), (254, 0, 0))
    turned = Image.new("RGB", (2, 4), "red")
    assert len({fingerprint_pixels(i) for i in (image, touched, turned)}) == 3


def test_files_are_told_apart_by_name_and_content_not_by_folder_or_order(tmp_path: Path) -> None:
    def write(folder: str, **contents: str) -> list[Path]:
        (tmp_path / folder).mkdir()
        for name, text in contents.items():
            (tmp_path / folder / name).write_text(text)
        return sorted((tmp_path / folder).iterdir())

    one = write("one", a="12", b="3")
    assert fingerprint_files(reversed(one)) == fingerprint_files(write("two", a="12", b="3"))
    assert fingerprint_files(one) != fingerprint_files(write("three", a="1", b="23"))
    assert fingerprint_files(one) != fingerprint_files(write("four", a="12", c="3"))
