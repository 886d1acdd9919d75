"""Images with known answers: plain shapes for any model, FieldNotes' animals for the bundled one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image as PILImage

from fieldscope.fieldnotes.render import render
from fieldscope.fieldnotes.scene import Group, Scene
from fieldscope.service.doctor.images import blank, circle, dots, square, triangle

BLANK = "blank"
"""The id of the blank image in every set."""


@dataclass(frozen=True)
class Known:
    """A question, the image for which the answer is yes, and one for which it is no."""

    question: str
    right: str
    wrong: str


@dataclass(frozen=True)
class Probe:
    """A set of images by id, known answers about them, and a `lineup`: four descriptions, each with its image."""

    name: str
    images: Mapping[str, PILImage.Image]
    known: tuple[Known, ...]
    lineup: tuple[tuple[str, str], ...]


def shapes() -> Probe:
    """Shapes, colours and numbers. Every image is right for one question and wrong for another, so that a model that
    always says yes, or always no, is wrong half of the time."""
    images = {
        "red circle": circle("red"),
        "blue square": square("blue"),
        "green triangle": triangle("green"),
        "yellow circle": circle("yellow"),
        "two dots": dots(2),
        "three dots": dots(3),
        BLANK: blank(),
    }
    known = (
        Known("is there a red circle?", "red circle", "blue square"),
        Known("is there a blue square?", "blue square", "red circle"),
        Known("is there a green triangle?", "green triangle", "yellow circle"),
        Known("is there a yellow circle?", "yellow circle", "green triangle"),
        Known("are there exactly two black dots?", "two dots", "three dots"),
        Known("are there exactly three black dots?", "three dots", "two dots"),
    )
    lineup = tuple((f"a {name}", name) for name in ("red circle", "blue square", "green triangle", "yellow circle"))
    return Probe("shapes", images, known, lineup)


def fieldnotes() -> Probe:
    """The same with FieldNotes' images and words, the only ones that the bundled LMM knows."""
    scenes = {
        "two crabs": Scene("beach", "clear", (Group("crab", "red", 2),)),
        "owl": Scene("forest", "clear", (Group("owl", "white", 1),)),
        "black fox": Scene("snow", "clear", (Group("fox", "black", 1),)),
        "orange fox": Scene("snow", "clear", (Group("fox", "orange", 1),)),
        "ducks in the rain": Scene("pond", "rain", (Group("duck", "yellow", 3),)),
        "ducks": Scene("pond", "clear", (Group("duck", "yellow", 3),)),
    }
    known = (
        Known("is there a crab?", "two crabs", "owl"),
        Known("is there an owl?", "owl", "two crabs"),
        Known("is the fox black?", "black fox", "orange fox"),
        Known("is the fox orange?", "orange fox", "black fox"),
        Known("is it raining?", "ducks in the rain", "ducks"),
        Known("is there a duck?", "ducks", "black fox"),
    )
    lineup = (
        ("two red crabs on a beach", "two crabs"),
        ("a white owl in a forest", "owl"),
        ("a black fox in the snow", "black fox"),
        ("three yellow ducks at a pond", "ducks"),
    )
    images = {name: render(scene) for name, scene in scenes.items()}
    return Probe("fieldnotes", {**images, BLANK: blank()}, known, lineup)
