"""The scene graph of a photograph in the wild: a FieldNotes scene, more animals, and how it was photographed."""

from __future__ import annotations

from dataclasses import dataclass

from fieldscope.fieldnotes.facts import find
from fieldscope.fieldnotes.scene import Group, Scene

WIDTH, HEIGHT = 896, 672
"""Of every frame, in pixels."""

SIZES = {"small": (80, 200), "medium": (220, 275), "large": (280, 600)}
"""Band of subject size -> the least and the greatest width of an animal's box, in thousandths of the frame's width."""

LIGHTS = ("day", "dusk", "night")
"""Night is the light of scenes whose weather is night, and of no others."""

OCCLUSIONS = {"none": (0, 0), "some": (5, 12), "much": (16, 26)}
"""Class -> how much of an animal plants hide, in percent of its area."""

MOST_GROUPS = 4


@dataclass(frozen=True)
class Conditions:
    """What makes a subject hard to see: its band of `size`, the `light`, and the class of its `occlusion`."""

    size: str
    light: str
    occlusion: str


@dataclass(frozen=True)
class Shot:
    """How a scene was photographed: every degradation of the picture.

    `widths` (thousandths of the frame's width) and `hidden` (percent of an animal's area behind plants, 0 for none)
    are per group. `gain` is the brightness in percent, `grain` the standard deviation of the noise in levels of 255,
    `blur` how far the camera moved in whole pixels (x, y), `haze` its share in percent, `quality` that of the JPEG.
    """

    light: str
    widths: tuple[int, ...]
    hidden: tuple[int, ...]
    gain: int = 100
    grain: int = 0
    blur: tuple[int, int] = (0, 0)
    haze: int = 0
    quality: int = 90


@dataclass(frozen=True)
class WildScene(Scene):
    """A scene of up to four groups, all of different species and colours: the `main` ones, which stand together, and
    then distractors, one animal each. All of them count when a query is judged."""

    main: int = 1
    shot: Shot = Shot("day", (200,), (0,))

    def _check_groups(self) -> None:
        if not 1 <= self.main <= min(2, len(self.groups)) or len(self.groups) > MOST_GROUPS:
            raise ValueError(f"a wild scene holds one or two main groups, and {MOST_GROUPS} in all")
        if not len(self.shot.widths) == len(self.shot.hidden) == len(self.groups):
            raise ValueError("a shot has a width and a hidden share for each group")
        if (self.shot.light == "night") != (self.weather == "night"):
            raise ValueError("the light is night where the weather is, and nowhere else")

    @property
    def subjects(self) -> tuple[Group, ...]:
        """The main groups."""
        return self.groups[: self.main]

    def conditions(self, species: str) -> Conditions | None:
        """How the group of this species is seen; None where there is none, or its size lies between the bands."""
        group = find(self, species)
        if group is None:
            return None
        at = self.groups.index(group)
        size = _class_of(self.shot.widths[at], SIZES)
        occlusion = _class_of(self.shot.hidden[at], OCCLUSIONS)
        return Conditions(size, self.shot.light, occlusion) if size and occlusion else None


def _class_of(value: int, classes: dict[str, tuple[int, int]]) -> str:
    return next((name for name, (least, most) in classes.items() if least <= value <= most), "")
