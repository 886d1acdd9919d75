"""Strings that stand for an image, from clients whose documents are strings only."""

from __future__ import annotations

import base64
import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from fieldscope.service.server.api.pictures import SCHEME

Certainty = Literal["named", "meant", "perhaps"]
"""How certain it is that a string stands for an image. `named`: it has a documented form, and an image that can't be
used is the caller's mistake. `meant`: it can't be words. `perhaps`: it is an image if a collection has an image with
this id, else words."""

_DATA = re.compile(r"data:(?:[\w.+-]+/[\w.+-]+(?:;[^,;\s]*)*|(?:;[^,;\s]*)*;base64),", re.IGNORECASE)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]{1,20}://\S+", re.IGNORECASE)
_FIELD = re.compile(r"""^[ \t]*["']?image(?:_url)?["']?[ \t]*:[ \t]*(\S.*)$""", re.MULTILINE)
_BINARY = re.compile(r"!!binary \|-?\n((?:[ \t]+\S+\n?)+)")
_ENCODED = re.compile(r"[A-Za-z0-9+/_-]{200,}={0,2}")  # of any kind: no word is that long
_URL_SAFE = str.maketrans("-_", "+/")
_HEAD = 64  # characters of base64 that identify the format
_LONGEST_START = 300  # characters before the comma of a data URL
_LONGEST_NAME = 512
_FIELDS = 4  # fields of a text that are checked
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*", b"\0\0\0\x0cJXL ", b"\0\0\0\x0cjP  ")
_SUFFIXES = (
    ".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jpeg", ".jpg", ".jxl", ".png", ".svg", ".tif", ".tiff",
    ".webp",
)  # fmt: skip


@dataclass(frozen=True)
class Reference:
    """A string that stands for an image, and the words before it: a document's metadata, or a query's own words."""

    picture: str
    certainty: Certainty
    words: str = ""


def reference_in(text: str) -> Reference | None:
    """The image that a string stands for; None for words.

    The whole string may be a data URL, an address, base64, the name of an image file, or a mapping (YAML or JSON) with
    an `image`. After lines of a document's metadata, which some clients add, the last line may be a `fieldscope://` id,
    a data URL or base64.
    """
    trimmed = text.strip()
    if certainty := _certainty(trimmed):
        return Reference(trimmed, certainty)
    words, _, last = trimmed.rpartition("\n")
    last = last.strip()
    if words and (_is_id(last) or _is_data(last) or _spells_picture(last)):
        return Reference(last, "named" if _is_id(last) else "meant", words.strip())
    fields = list(_image_fields(trimmed))
    for field in fields:
        if certainty := _certainty(field.picture):
            return Reference(field.picture, certainty, field.words)
    if _is_file_name(trimmed):
        return Reference(trimmed, "meant")
    if not fields:
        return None
    alone = not fields[0].words and _is_file_name(fields[0].picture)
    return Reference(fields[0].picture, "meant" if alone else "perhaps", fields[0].words)


def is_blank(text: str) -> bool:
    """Whether a text has only blanks, control and format characters."""
    return all(unicodedata.category(character)[0] in "CZ" for character in text)


def _certainty(text: str) -> Certainty | None:
    """How certain it is that the whole string is, or leads to, an image; None if it does not."""
    if _is_id(text) or text[:64].lower().startswith("data:image/"):
        return "named"
    if _ADDRESS.fullmatch(text) or _is_data(text) or _spells_picture(text) or _ENCODED.fullmatch(text):
        return "meant"
    return None


def _is_id(text: str) -> bool:
    return text[: len(SCHEME)].lower() == SCHEME


def _is_file_name(text: str) -> bool:
    return len(text) <= _LONGEST_NAME and text.lower().endswith(_SUFFIXES) and not re.search(r"\s", text)


def _is_data(text: str) -> bool:
    return _DATA.match(text[:_LONGEST_START]) is not None


def _spells_picture(text: str) -> bool:
    """Whether a string begins with the base64 of an image file's first bytes."""
    head = "".join(text[: 2 * _HEAD].split())[:_HEAD].translate(_URL_SAFE)
    try:
        data = base64.b64decode(head[: len(head) // 4 * 4], validate=True)
    except ValueError:
        return False
    bitmap = data[:2] == b"BM" and data[6:10] == bytes(4)
    webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    return data.startswith(_MAGIC) or bitmap or webp or data[4:8] == b"ftyp"


def _image_fields(text: str) -> Iterator[Reference]:
    """The values of `image` and `image_url` in a mapping as YAML or JSON."""
    if text.startswith("{") and text.endswith("}"):
        try:
            mapping = json.loads(text)
        except (ValueError, RecursionError):
            return
        for name in ("image", "image_url"):
            value = mapping.pop(name, None)
            value = value.get("url") if isinstance(value, dict) else value
            if isinstance(value, str):
                words = "\n".join(str(other) for other in mapping.values() if isinstance(other, str))
                yield Reference(value.strip(), "perhaps", words)
        return
    for match in islice(_FIELD.finditer(text), _FIELDS):
        block = _BINARY.match(text, match.start(1))
        value = "".join(block[1].split()) if block else match[1].strip().removesuffix(",").rstrip()
        words = (text[: match.start()] + text[(block or match).end() :]).strip()
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
        yield Reference(value[1:-1] if quoted else value, "perhaps", words)
