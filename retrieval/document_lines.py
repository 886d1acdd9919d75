"""Documents in a file of JSON lines: pictures, texts, and pictures with texts.

A line is `{"id": "12", "image": "photos/12.jpg", "text": "A heron."}`, with either part left out or null. M-BEIR's
pools are such files under other names: `did`, `img_path`, `txt`.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, BinaryIO, NamedTuple

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from fieldscope.core.documents import Modality, modality
from fieldscope.core.errors import ConfigError, FieldscopeError

SUFFIX = ".jsonl"

_LINES_KEPT = 4096  # that were read last


class _Names(NamedTuple):
    """How a file names the parts of a document."""

    id: str
    text: str
    image: str


_OWN, _MBEIR = _Names("id", "text", "image"), _Names("did", "txt", "img_path")


class Document(BaseModel):
    """A line of a file of documents: an id, and a text, the path of a picture, or both. Keys that are not read here,
    such as M-BEIR's `src_content`, can reach no prompt."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    id: Annotated[str, StringConstraints(min_length=1)] = Field(validation_alias=AliasChoices("id", "did", "_id"))
    text: str | None = Field(default=None, validation_alias=AliasChoices("text", "txt"))
    image: str | None = Field(default=None, validation_alias=AliasChoices("image", "img_path"))
    modality: Modality | None = None

    @property
    def parts(self) -> Modality:
        """What it is made of."""
        return modality(bool(self.image), bool((self.text or "").strip()))


class DocumentLines(Mapping[str, Document]):
    """The documents of one or more files by their ids, read from there when they are asked for: memory holds ids and
    places. A document that a file before has, too, is the one from there.

    Every line is checked first. Raises `error` with one line that names the file, the line and the field.
    """

    def __init__(self, *paths: Path, error: type[FieldscopeError] = ConfigError) -> None:
        self.paths = paths
        self._error = error
        self._ids: dict[Path, tuple[str, ...]] = {}
        self._files: list[BinaryIO] = []
        self._places: dict[str, int] = {}
        self._file_of, self._offsets, self._lengths = array("H"), array("q"), array("l")
        self._read: dict[str, Document] = {}
        for path in paths:
            self._ids[path] = tuple(self._scan(path))

    def ids_of(self, path: Path) -> tuple[str, ...]:
        """The ids of one of the files, in its order."""
        return self._ids[path]

    def __getitem__(self, document_id: str) -> Document:
        known = self._read.get(document_id)
        if known is None:
            place = self._places[document_id]
            file = self._file_of[place]
            line = os.pread(self._files[file].fileno(), self._lengths[place], self._offsets[place])
            known = self._parsed(line, self.paths[file], place + 1)
            if len(self._read) >= _LINES_KEPT:
                self._read.clear()
            self._read[document_id] = known
        return known

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def _scan(self, path: Path) -> Iterator[str]:
        try:
            file = path.open("rb")
        except OSError as cause:
            raise self._error(f"{path} can't be read ({cause.strerror}). Check the file.") from cause
        self._files.append(file)
        own: set[str] = set()
        offset = 0
        for number, line in enumerate(file, start=1):
            if line.strip():
                document_id = self._parsed(line, path, number).id
                if document_id in own:
                    name = (_MBEIR if b'"did"' in line else _OWN).id
                    raise self._error(f"{path}, line {number}: {name}: {document_id!r} occurs twice. Correct the file.")
                own.add(document_id)
                if document_id not in self._places:
                    self._places[document_id] = len(self._offsets)
                    self._file_of.append(len(self._files) - 1)
                    self._offsets.append(offset)
                    self._lengths.append(len(line))
                yield document_id
            offset += len(line)
        if not own:
            raise self._error(f"{path} has no document. Add a line for each.")

    def _parsed(self, line: bytes, path: Path, number: int) -> Document:
        where, names = f"{path}, line {number}", _MBEIR if b'"did"' in line else _OWN
        try:
            document = Document.model_validate_json(line.strip())
        except ValidationError as cause:
            first = cause.errors(include_url=False)[0]
            field = ".".join(map(str, first["loc"]))
            what = f"missing key {field!r}" if first["type"] == "missing" else f"{field}: {first['msg']}"
            raise self._error(f"{where}: {' '.join(what.removeprefix(': ').split())}. Correct the file.") from cause
        if not document.image and not (document.text or "").strip():
            raise self._error(f"{where}: {names.text}: it has neither a text nor a picture. Correct the file.")
        if document.modality is not None and document.modality != document.parts:
            raise self._error(
                f"{where}: modality: it says {document.modality!r}, and the document is {document.parts!r}. Correct "
                "the file."
            )
        if document.image and not lies_below(document.image):
            raise self._error(
                f"{where}: {names.image}: {document.image!r} is not a path below the file's folder. Correct the file."
            )
        return document


def lies_below(name: str) -> bool:
    """Whether a path that a file names stays below the file's folder."""
    plain = PurePosixPath(name)
    return not plain.is_absolute() and ".." not in plain.parts and "\0" not in name
