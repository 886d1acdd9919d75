"""The file of `fieldscope label`: JSON lines, the ranked list first, then each image that was drawn, with its label.

People fill in `label` (yes, no, unsure) with any editor or program. Lines that they add themselves name an image and a
label only: such an image was not drawn at random.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from fieldscope.core.errors import ConfigError
from fieldscope.core.files import replace_file
from fieldscope.core.reading import file_bytes, load_json

Side = Literal["above", "below"]
SIDES: tuple[Side, ...] = ("above", "below")

Label = Literal["yes", "no", "unsure"]

LINE = 0.5
"""P(match) above which an image lies above the line, unless a user or a promised precision says otherwise."""


def _label(value: Any) -> Any:
    """A label as programs write it, too: true is yes, false is no."""
    return {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


LineT = TypeVar("LineT", bound=_Line)


class ListedImage(_Line):
    """An image of the list, with its P(match) and, where it is a file of its own, its path."""

    image: str = Field(min_length=1)
    p_match: float = Field(ge=0, le=1)
    path: str | None = Field(default=None, exclude_if=lambda path: path is None)


class RankedList(_Line):
    """The first line: the query, its ranked images (best first), and the line between those above (P(match) of at
    least `line`) and those below. `seed` decides what is drawn."""

    format: Literal[1] = 1
    query: str
    line: float = Field(ge=0, le=1)
    seed: int = 0
    images: tuple[ListedImage, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        if len({listed.image for listed in self.images}) < len(self.images):
            raise ValueError("the list names an image twice; write the file again with --ranking")
        return self

    def side(self, side: Side) -> tuple[ListedImage, ...]:
        """The images above or below the line, best first."""
        return tuple(listed for listed in self.images if (listed.p_match >= self.line) == (side == "above"))


class LabelLine(_Line):
    """An image to label. `how` says why: drawn at `random`, drawn as one of the `next` to look at, or the user's `own`
    choice.

    A drawn image has the `number` of its draw on its side, from 1, and the `probability` with which it was drawn from
    the images of that side which had not been drawn before.
    """

    image: str
    how: Literal["random", "next", "own"] = "own"
    side: Side | None = Field(default=None, exclude_if=lambda side: side is None)
    number: int | None = Field(default=None, ge=1, exclude_if=lambda number: number is None)
    probability: float | None = Field(default=None, gt=0, le=1, exclude_if=lambda probability: probability is None)
    path: str | None = Field(default=None, exclude_if=lambda path: path is None)
    label: Annotated[Label | None, BeforeValidator(_label)] = None

    @model_validator(mode="after")
    def _drawn_with_a_probability(self) -> Self:
        if self.how != "own" and None in (self.side, self.number, self.probability):
            raise ValueError("a drawn image has `side`, `number` and `probability`; restore them")
        return self


@dataclass(frozen=True)
class LabelFile:
    """A ranked list and the images of it that were drawn or labelled."""

    ranked: RankedList
    lines: tuple[LabelLine, ...] = ()

    def drawn(self, side: Side) -> list[LabelLine]:
        """The draws on a side, in their order."""
        drawn = [line for line in self.lines if line.side == side and line.how != "own"]
        return sorted(drawn, key=lambda line: line.number or 0)

    @property
    def unlabelled(self) -> list[LabelLine]:
        """The drawn images without a label, in the order in which to label them: the earliest draws first."""
        waiting = [line for line in self.lines if line.how != "own" and line.label is None]
        return sorted(waiting, key=lambda line: line.number or 0)

    def labelled(self, image: str, label: Label) -> LabelFile:
        """The same with a label on a drawn image."""
        lines = (
            line.model_copy(update={"label": label}) if line.image == image and line.how != "own" else line
            for line in self.lines
        )
        return LabelFile(self.ranked, tuple(lines))

    def write(self, path: Path) -> None:
        """Replace the file in one step. Raises `ConfigError` where the disk refuses."""
        text = "".join(f"{line.model_dump_json()}\n" for line in (self.ranked, *self.lines))
        try:
            replace_file(path, text)
        except OSError as error:
            raise ConfigError(f"can't write {path} ({error.strerror or error}). Choose another file.") from error


def read_label_file(path: Path) -> LabelFile:
    """Raises `ConfigError`, which names the line, for a file that is missing, damaged, or has been drawn otherwise."""
    try:
        rows = [(n, row) for n, row in enumerate(file_bytes(path).splitlines(), start=1) if row.strip()]
    except OSError as error:
        raise ConfigError(
            f"{path} can't be read ({error.strerror or error}). Check the path, or start the file with --ranking."
        ) from error
    if not rows:
        raise ConfigError(f"{path} is empty. Start it with --ranking.")
    ranked = _read_line(path, *rows[0], RankedList)
    label_file = LabelFile(ranked, tuple(_read_line(path, number, row, LabelLine) for number, row in rows[1:]))
    if problem := _problem(label_file):
        raise ConfigError(f"{path}: {problem}")
    return label_file


def read_ranking(path: Path, line: float | None, seed: int) -> RankedList:
    """The list in what `fieldscope search --json` or `fieldscope rerank --json` printed; without a `line` it is the
    cut-off of the promised precision, else `LINE`. Raises `ConfigError` where the file is something else, or an image
    has no P(match)."""
    try:
        data = load_json(file_bytes(path))
        entries = data["ranking"]
        if line is None:
            line = data["cutoff"]["threshold"] if "cutoff" in data else LINE
        unknown = [entry["image"] for entry in entries if entry["p_match"] is None]
        if unknown:
            raise ConfigError(
                f"{path}: {len(unknown)} of {len(entries)} images have no P(match) (the first: {unknown[0]}). Rank "
                "with a strategy that claims one, such as agent."
            )
        images = tuple(
            ListedImage(image=entry["image"], p_match=entry["p_match"], path=entry.get("path")) for entry in entries
        )
        return RankedList(query=data["query"], line=line, seed=seed, images=images)
    except OSError as error:
        raise ConfigError(f"{path} can't be read ({error.strerror or error}). Check the path.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is no ranking. Write one with `fieldscope search --json` or `fieldscope rerank --json`."
        ) from error


def _read_line(path: Path, number: int, row: bytes, kind: type[LineT]) -> LineT:
    try:
        return kind.model_validate(load_json(row))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        reason = f"{where}: {first['msg']}" if where else first["msg"]
        raise ConfigError(f"{path}, line {number}: {reason}. Correct that line.") from error
    except ValueError as error:
        raise ConfigError(f"{path}, line {number}: not valid JSON ({error}). Correct that line.") from error


def _problem(file: LabelFile) -> str | None:
    """What contradicts itself in a file that can be read."""
    drawn = [line for side in SIDES for line in file.drawn(side)]
    known = {side: {listed.image for listed in file.ranked.side(side)} for side in SIDES}
    for line in file.lines:
        if line.image not in known["above"] | known["below"]:
            return f"{line.image!r} is not in the ranked list of the first line. Remove its line."
    for line in drawn:
        if line.side is not None and line.image not in known[line.side]:
            return f"{line.image!r} does not lie {line.side} the line. Undo what was changed in its line."
    for side in SIDES:
        numbers = [line.number for line in file.drawn(side)]
        images = {line.image for line in file.drawn(side)}
        if numbers != list(range(1, len(numbers) + 1)) or len(images) < len(numbers):
            return f"a drawn image {side} the line is missing, or is there twice. Undo that; only fill in `label`."
    return None
