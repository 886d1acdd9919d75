"""Pictures in every disguise: what is none is refused with its index, and nothing of it is kept."""

from __future__ import annotations

import base64
import struct
import zlib
from pathlib import Path
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage

from fieldscope.service.server.api.calls import ImageDocument
from fieldscope.service.server.api.documents import DocumentObject, Given, read_inputs
from fieldscope.service.server.api.errors import ApiError
from fieldscope.service.server.limits import Limits
from tests.service.api.desk import GREEN, RED, Desk, data_url, picture

PNG = picture(RED)
SPELLED = base64.b64encode(PNG).decode()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    wild = tmp_path / "wild"
    (wild / "below").mkdir(parents=True)
    PILImage.new("RGB", (8, 6), RED).save(wild / "red.png")
    PILImage.new("RGB", (8, 6), GREEN).save(wild / "below" / "crab.png")
    PILImage.new("RGB", (2, 2)).save(tmp_path / "secret.png")
    return Desk(tmp_path, Limits(max_image_bytes=100_000, max_pixels=1_000_000)).open(wild=wild)


async def image_of(desk: Desk, document: Given) -> str:
    """The id of the picture of one document."""
    inputs = await read_inputs("q", ["words", document], desk.engine)
    found = inputs.documents[1]
    assert isinstance(found, ImageDocument)
    assert inputs.images.load(found.image_id).mode == "RGB"
    return found.image_id


async def refusal(desk: Desk, document: Given) -> ApiError:
    """Why a document is refused, and with which status; nothing may be left of it."""
    with pytest.raises(ApiError) as caught:
        await read_inputs("q", ["words", document], desk.engine)
    assert str(caught.value).startswith("document 1: ")
    assert len(desk.pictures) == 0
    assert list(desk.pictures.folder.iterdir()) == []
    return caught.value


@pytest.mark.parametrize(
    "given",
    [
        f"data:image/png;base64,{SPELLED}",
        f"DATA:IMAGE/PNG;BASE64,{SPELLED}",
        f"  data:image/png;name=a.png;base64,{SPELLED}\n",
        f"data:image/png;base64,{quote_from_bytes(SPELLED.encode(), safe='')}",
        f"data:image/png,{quote_from_bytes(PNG)}",
        f"data:image/png;base64,{SPELLED[:40]}\r\n{SPELLED[40:]}",
        DocumentObject(image=SPELLED),
        DocumentObject(image=f"{SPELLED}\n"),
        data_url(picture(RED, "BMP"), "image/bmp"),
        data_url(picture(RED, "TIFF"), "image/x-unheard-of"),
    ],
)
async def test_every_spelling_of_a_picture_is_the_same_picture(desk: Desk, given: Given) -> None:
    assert await image_of(desk, given) == await image_of(desk, data_url(PNG))
    assert len(desk.pictures) == 1


async def test_ids_of_registered_collections(desk: Desk) -> None:
    assert await image_of(desk, "fieldscope://wild/below/crab.png") == "fieldscope://wild/below/crab.png"
    assert await image_of(desk, "FieldScope://wild/red.png") == "fieldscope://wild/red.png"
    assert await image_of(desk, DocumentObject(image="red.png")) == "fieldscope://wild/red.png"
    assert len(desk.pictures) == 0


async def test_a_bare_id_that_two_collections_have_is_ambiguous(desk: Desk, tmp_path: Path) -> None:
    desk.open(copy=tmp_path / "wild")
    error = await refusal(desk, DocumentObject(image="red.png"))
    assert "fieldscope://wild/red.png, fieldscope://copy/red.png" in str(error)


@pytest.mark.parametrize(
    "image_id",
    ["../secret.png", "below/../../secret.png", "./red.png", "/etc/passwd", "..", "", "red.png\x00", "below//crab.png"],
)
async def test_ids_that_leave_the_collection_are_not_found(desk: Desk, image_id: str) -> None:
    assert (await refusal(desk, f"fieldscope://wild/{image_id}")).status == 404
    if image_id:
        assert (await refusal(desk, DocumentObject(image=image_id))).status == 404


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header claims so many pixels, and which has almost none."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


BROKEN = {
    "a bomb": (bomb(50_000, 50_000), "too_large"),
    "a smaller bomb": (bomb(1_001, 1_000), "too_large"),
    "a truncated JPEG": (picture(RED, "JPEG", (64, 64))[:400], "unreadable"),
    "a head without a body": (b"\x89PNG\r\n\x1a\n", "unreadable"),
    "a text": (b"GET / HTTP/1.0\r\n\r\n" * 40, "unreadable"),
    "a vector drawing": (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>" * 9, "unreadable"),
    "a PDF": (b"%PDF-1.4\n" + b"1 0 obj\n" * 90, "unreadable"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n" + b"showpage\n" * 90, "unreadable"),
    "nothing": (b"", "unreadable"),
    "too many bytes": (picture(RED, "BMP", (200, 200)), "too_large"),
}


@pytest.mark.parametrize(("data", "code"), BROKEN.values(), ids=BROKEN.keys())
async def test_what_is_no_picture_is_refused(desk: Desk, data: bytes, code: str) -> None:
    for spelling in (data_url(data), f"data:image/png,{quote_from_bytes(data)}"):
        error = await refusal(desk, spelling)
        assert error.status == 422
        assert code in error.code


@pytest.mark.parametrize(
    "spelled",
    [
        "data:image/png;base64,!!!!",
        "data:image/png;base64,QUJ",
        "data:image/png;base64,QUJD=QUJD",
        "data:image/png;base64," + "A" * 400_001,
        "data:text/html;base64," + SPELLED,
        "data:image/png;base64",
    ],
)
async def test_base64_that_is_none(desk: Desk, spelled: str) -> None:
    assert (await refusal(desk, DocumentObject(image=spelled))).status in (404, 422)


async def test_a_polyglot_leaves_nothing_but_its_pixels(desk: Desk) -> None:
    payload = b"<script>alert('polyglot')</script>PK\x03\x04"
    image_id = await image_of(desk, data_url(PNG + payload))
    assert image_id == await image_of(desk, data_url(PNG))
    (kept,) = desk.pictures.folder.iterdir()
    assert b"polyglot" not in kept.read_bytes()
    assert kept.read_bytes().startswith(b"\x89PNG")


async def test_of_several_that_can_not_be_used_the_first_is_told(desk: Desk) -> None:
    with pytest.raises(ApiError, match=r"^document 2: "):
        await read_inputs("q", ["a", data_url(PNG), data_url(b"x"), "fieldscope://wild/no.png"], desk.engine)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(text=st.text(max_size=80) | st.binary(max_size=60).map(data_url))
async def test_any_string_is_words_or_a_picture_or_refused(desk: Desk, text: str) -> None:
    for document in (text, DocumentObject(image=text)):
        try:
            inputs = await read_inputs("q", [document], desk.engine)
        except ApiError as error:
            assert error.status in (400, 404, 422)
            assert str(error).startswith("document 0: ")
            assert "\n" not in str(error)
        else:
            assert len(inputs.documents) == 1
