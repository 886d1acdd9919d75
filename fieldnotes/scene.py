"""The scene graph: the ground truth of every FieldNotes image.

A scene is a habitat, a weather and one or two groups of animals. Everything that a query can ask
about is a field here; everything else (place, scale, flip, light) follows from `seed`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "black", "white")
HABITATS = ("forest", "beach", "desert", "snow", "meadow", "pond", "reef", "street")
WEATHERS = ("clear", "rain", "fog", "night")
POSES = ("resting", "airborne", "sleeping", "climbing")
ITEMS = ("none", "litter", "tag", "leaf", "nest", "net")
COUNTS = (1, 2, 3)


@dataclass(frozen=True)
class Species:
    """One kind of animal: its everyday name, plural, a scientific name, and iNaturalist's iconic group."""

    name: str
    plural: str
    scientific: str
    iconic_group: str
    winged: bool = False


SPECIES = {
    species.name: species
    for species in (
        Species("crab", "crabs", "Carcinus pictus", "Crustaceans"),
        Species("fish", "fish", "Labrus pictus", "Ray-finned Fishes"),
        Species("turtle", "turtles", "Testudo picta", "Reptiles"),
        Species("snake", "snakes", "Natrix picta", "Reptiles"),
        Species("frog", "frogs", "Rana picta", "Amphibians"),
        Species("butterfly", "butterflies", "Papilio pictus", "Insects", winged=True),
        Species("beetle", "beetles", "Carabus pictus", "Insects", winged=True),
        Species("snail", "snails", "Helix picta", "Mollusks"),
        Species("owl", "owls", "Strix picta", "Birds", winged=True),
        Species("duck", "ducks", "Anas picta", "Birds", winged=True),
        Species("fox", "foxes", "Vulpes picta", "Mammals"),
        Species("rabbit", "rabbits", "Lepus pictus", "Mammals"),
        Species("starfish", "starfish", "Asterias picta", "Echinoderms"),
        Species("octopus", "octopuses", "Octopus pictus", "Mollusks"),
    )
}


@dataclass(frozen=True)
class Group:
    """`count` animals of one species and colour, all in one pose and each with the same item."""

    species: str
    colour: str
    count: int = 1
    pose: str = "resting"
    item: str = "none"

    def __post_init__(self) -> None:
        for value, allowed in (
            (self.species, SPECIES),
            (self.colour, COLOURS),
            (self.count, COUNTS),
            (self.pose, POSES),
            (self.item, ITEMS),
        ):
            if value not in allowed:
                raise ValueError(f"{value!r} is not one of {', '.join(map(str, allowed))}")


@dataclass(frozen=True)
class Scene:
    """A habitat, a weather, one or two groups (of different species and colours), and a nuisance seed."""

    habitat: str
    weather: str
    groups: tuple[Group, ...]
    seed: int = 0

    def __post_init__(self) -> None:
        if self.habitat not in HABITATS or self.weather not in WEATHERS:
            raise ValueError(f"unknown habitat {self.habitat!r} or weather {self.weather!r}")
        self._check_groups()
        if len({g.species for g in self.groups}) < len(self.groups) or len({g.colour for g in self.groups}) < len(
            self.groups
        ):
            raise ValueError("the groups of a scene differ in species and colour")

    def _check_groups(self) -> None:
        if len(self.groups) not in (1, 2):
            raise ValueError("a scene holds one or two groups")

    def content(self) -> dict[str, Any]:
        """All that a query can ask about: the scene without its nuisance seed."""
        return {k: v for k, v in asdict(self).items() if k != "seed"}

    def key(self) -> str:
        """Identity of the whole scene, nuisance included: 16 hexadecimal digits."""
        return sha256(json.dumps(self, default=vars, sort_keys=True).encode()).hexdigest()[:16]
