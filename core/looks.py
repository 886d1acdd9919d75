"""A look at an image: the whole picture or a region of it, as it is or enhanced, and the id that such a look has.

The id is a media fragment (https://www.w3.org/TR/media-frags/) behind the image's own id: `heron.jpg#xywh=percent:
40,25,20,30`, `heron.jpg#look=enhance`. So a look is an image like any other wherever images are known by their ids.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

SMALLEST_SIDE = 0.005
"""A region has at least this share of the picture's width and of its height: 45 of 9,000 pixels."""

CUTOFF = 1.0
MEDIAN: Literal[3] = 3

_DIGITS = 5  # of a fraction: a tenth of a pixel of a picture with 9,000 a side
_REGION = "xywh=percent:"
_WHOLE = "look=whole"
_ENHANCED = "look=enhance"


def _rounded(fraction: float) -> float:
    return round(fraction, _DIGITS)


Fraction = Annotated[float, Field(ge=0, le=1), AfterValidator(_rounded)]


class Region(BaseModel):
    """A rectangle of the upright picture, as fractions (0 to 1) of its width and height, rounded to five digits."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    left: Fraction
    top: Fraction
    right: Fraction
    bottom: Fraction

    @model_validator(mode="after")
    def _not_minute(self) -> Self:
        if min(self.width, self.height) < SMALLEST_SIDE:
            raise ValueError(f"a region is less than {SMALLEST_SIDE:g} wide or high; use a larger one")
        return self

    @classmethod
    def clipped(cls, left: object, top: object, right: object, bottom: object) -> Region | None:
        """The part inside the picture of a rectangle that was named by a model or a file. None where one of the four is
        no finite number, the rectangle is empty or inverted, or what is left of it is minute."""
        sides = [_finite(value) for value in (left, top, right, bottom)]
        if None in sides:
            return None
        low_x, low_y, high_x, high_y = (_rounded(min(max(side, 0.0), 1.0)) for side in sides if side is not None)
        if min(_rounded(high_x - low_x), _rounded(high_y - low_y)) < SMALLEST_SIDE:
            return None
        return cls(left=low_x, top=low_y, right=high_x, bottom=high_y)

    @property
    def width(self) -> float:
        return _rounded(self.right - self.left)

    @property
    def height(self) -> float:
        return _rounded(self.bottom - self.top)

    @property
    def area(self) -> float:
        """The share of the picture's area."""
        return self.width * self.height

    def shared(self, other: Region) -> float:
        """How much of the smaller region lies within the larger one, 0 to 1."""
        across = min(self.right, other.right) - max(self.left, other.left)
        down = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(across, 0.0) * max(down, 0.0) / min(self.area, other.area)

    def around(self, *others: Region) -> Region:
        """The smallest region that holds this one and all others."""
        regions = (self, *others)
        return Region(
            left=min(region.left for region in regions),
            top=min(region.top for region in regions),
            right=max(region.right for region in regions),
            bottom=max(region.bottom for region in regions),
        )

    def pixels(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom in a picture of this size: all pixels that the region touches, at least one."""
        left, top = min(int(_rounded(self.left * width)), width - 1), min(int(_rounded(self.top * height)), height - 1)
        right, bottom = math.ceil(_rounded(self.right * width)), math.ceil(_rounded(self.bottom * height))
        return left, top, max(right, left + 1), max(bottom, top + 1)


class Look(BaseModel):
    """How an image is shown to the model: the whole picture (`region` None) or a region, as it is or enhanced.

    `enhance` stretches each channel's contrast, without the `cutoff` percent of its darkest and brightest pixels (None:
    it stretches nothing), after it took the median of each `median` x `median` pixels (1: it takes none).
    `proposed_by` says who chose the region: one of its `tiles`, the `model`, or `around` for the one that holds all
    others. `similarity` is how similar it is to the texts that it was chosen for. Neither changes what is shown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    region: Region | None = None
    enhance: bool = False
    cutoff: float | None = Field(default=CUTOFF, ge=0, le=40, exclude_if=lambda cutoff: cutoff == CUTOFF)
    median: Literal[1, 3, 5] = Field(default=MEDIAN, exclude_if=lambda median: median == MEDIAN)
    proposed_by: Literal["tiles", "model", "around"] | None = None
    similarity: float | None = None

    @property
    def shows(self) -> str:
        """What is shown, as the fragment of an id: `xywh=percent:40,25,20,30&look=enhance` for example."""
        parts = []
        if self.region is not None:
            box = (self.region.left, self.region.top, self.region.width, self.region.height)
            parts.append(_REGION + ",".join(_decimal(100 * share, _DIGITS - 2) for share in box))
        if self.enhance:
            cutoff = "none" if self.cutoff is None else _decimal(self.cutoff, _DIGITS)
            parts.append(_ENHANCED + ("" if self._is_default else f":{cutoff},{self.median}"))
        return "&".join(parts) or _WHOLE

    @property
    def _is_default(self) -> bool:
        return (self.cutoff, self.median) == (CUTOFF, MEDIAN)


def look_id(image_id: str, look: Look | None = None) -> str:
    """The id of an image as it is seen through a look; the image's own for the whole picture as it is.

    An id that itself reads as that of a look (a file may be called anything) becomes another one, so that no image is
    taken for a region of another.
    """
    shows = look.shows if look else _WHOLE
    if shows == _WHOLE and read_look(image_id) is None:
        return image_id
    return f"{image_id.replace('%', '%25').replace('#', '%23')}#{shows}"


def read_look(image_id: str) -> tuple[str, Look] | None:
    """The image and the look whose `look_id` this is; None where it is the id of an image itself."""
    escaped, mark, shows = image_id.rpartition("#")
    if not mark or "#" in escaped:
        return None
    image = escaped.replace("%23", "#").replace("%25", "%")
    try:
        look = _read_shows(shows)
    except ValueError:
        return None
    written = f"{image.replace('%', '%25').replace('#', '%23')}#{look.shows}"  # there is one way to write each look
    return (image, look) if written == image_id else None


def _read_shows(shows: str) -> Look:
    """Raises ValueError for anything else than what `Look.shows` writes."""
    if shows == _WHOLE:
        return Look()
    given: dict[str, Any] = {}
    for part in shows.split("&"):
        if part.startswith(_REGION):
            left, top, width, height = (float(share) / 100 for share in part.removeprefix(_REGION).split(","))
            given["region"] = Region(left=left, top=top, right=_rounded(left + width), bottom=_rounded(top + height))
        elif part.startswith(_ENHANCED):
            given["enhance"] = True
            if settings := part.removeprefix(_ENHANCED).removeprefix(":"):
                cutoff, median = settings.split(",")
                given |= {"cutoff": None if cutoff == "none" else float(cutoff), "median": int(median)}
        else:
            raise ValueError(f"{part!r} is no part of a look")
    return Look(**given)


def _decimal(number: float, digits: int) -> str:
    """A number without an exponent and without zeros at its end."""
    return f"{number:.{digits}f}".rstrip("0").rstrip(".")


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
