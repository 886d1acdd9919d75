"""What a large index's folder says of itself: `large.json`, which is written last."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fieldscope.core.errors import IndexMismatchError
from fieldscope.core.files import replace_file
from fieldscope.core.fingerprint import fingerprint
from fieldscope.core.reading import file_bytes

FILE = "large.json"
VECTORS, QUANTISER, LISTS, CODES = "vectors.f16", "quantiser.npz", "lists.i32", "codes.u8"
FORMAT = 1


class Recall(BaseModel):
    """How many of the exact nearest `k` a search finds, on average over so many `queries`; `without_rescoring` of the
    codes alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    k: int
    queries: int
    recall: float
    without_rescoring: float


class LargeManifest(BaseModel):
    """A search looks into `probes` lists, and scores `candidates` vectors again for the best `recall.k`.

    `source` is the fingerprint of what the vectors were read from, `sample` the ids that stand for the collection
    (`fieldscope.retrieval.background`), and `attributes` further facts of the folder's owner, as JSON.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    encoder_fingerprint: str
    encoder_name: str = ""
    count: int = Field(ge=1)
    dim: int = Field(ge=1)
    codec: Literal["sq", "pq"]
    code_bytes: int = Field(ge=1)
    lists: int = Field(ge=1)
    probes: int = Field(ge=1)
    candidates: int = Field(ge=1)
    recall: Recall
    sample: tuple[str, ...] = ()
    attributes: dict[str, Any] = Field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Make the index in `folder` complete. Raises `OSError`."""
        body = self.model_dump(mode="json")
        replace_file(folder / FILE, json.dumps({"format": FORMAT, "checksum": fingerprint(body), **body}))


def is_large(folder: Path) -> bool:
    """Whether a folder holds a complete large index."""
    return (folder / FILE).is_file()


def read_large(folder: Path) -> LargeManifest:
    """What the large index in `folder` says of itself. Raises `IndexMismatchError` where there is none, or a damaged
    one."""
    path = folder / FILE
    try:
        body = json.loads(file_bytes(path))
        if body.pop("format") == FORMAT and body.pop("checksum") == fingerprint(body):
            return LargeManifest.model_validate(body)
    except OSError as error:
        raise IndexMismatchError(f"{str(path)!r} can't be read ({error.strerror}); build the index again") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ValidationError) as error:
        raise IndexMismatchError(f"{str(path)!r} is damaged; build the index again") from error
    raise IndexMismatchError(f"{str(path)!r} is damaged, or another version's; build the index again")
