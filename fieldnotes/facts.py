"""What a query says, as facts that are true or false of a scene.

A `Spec` is what one query asks for. Its `facts` are the atomic predicates; a scene matches the query when every
fact holds. In a scene each species occurs in one group only, so naming the species binds the attribute.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from fieldscope.fieldnotes.scene import COLOURS, HABITATS, SPECIES, Group, Scene

KINDS = (
    "subject",
    "colour",
    "count",
    "behaviour",
    "context",
    "habitat",
    "weather",
    "absence",
    "alone",
    "comparison",
)


@dataclass(frozen=True)
class Fact:
    """One predicate: `kind` of attribute, the species it is about ("" for the place and the weather), its value.

    `absence` says that the species does not carry the item `value`; `alone` that no other animal is there;
    `comparison` that there are more of `species` than of the species `value`.
    """

    kind: str
    species: str = ""
    value: str = ""

    @property
    def expected(self) -> bool:
        """The answer that a match gives to this fact's question: absences are asked positively and expect no."""
        return self.kind not in ("absence", "alone")

    @property
    def about_one_group(self) -> bool:
        """Whether its question is answered no wherever its species is not."""
        return self.kind not in ("habitat", "weather", "alone")

    def answer(self, scene: Scene) -> bool:
        """The true answer to the fact's question about `scene`."""
        if self.kind in ("habitat", "weather"):
            return bool(getattr(scene, self.kind) == self.value)
        if self.kind == "alone":
            return any(g.species != self.species for g in scene.groups)
        group = find(scene, self.species)
        if group is None:
            return False
        match self.kind:
            case "subject":
                return True
            case "colour":
                return group.colour == self.value
            case "count":
                return str(group.count) == self.value
            case "behaviour":
                return group.pose == self.value
            case "context" | "absence":
                return group.item == self.value
            case "comparison":
                other = find(scene, self.value)
                return other is not None and group.count > other.count
        raise KeyError(self.kind)

    def holds(self, scene: Scene) -> bool:
        """Whether `scene` is as the fact says."""
        return self.answer(scene) == self.expected


def find(scene: Scene, species: str) -> Group | None:
    """The scene's group of this species, if it has one."""
    for group in scene.groups:
        if group.species == species:
            return group
    return None


@dataclass(frozen=True)
class Part:
    """What a query says of one group; an empty field is not asked for. `without` names an item it must not have."""

    species: str
    colour: str = ""
    count: int = 0
    pose: str = ""
    item: str = ""
    without: str = ""

    def facts(self) -> Iterator[Fact]:
        yield Fact("subject", self.species)
        if self.colour:
            yield Fact("colour", self.species, self.colour)
        if self.count:
            yield Fact("count", self.species, str(self.count))
        if self.pose:
            yield Fact("behaviour", self.species, self.pose)
        if self.item:
            yield Fact("context", self.species, self.item)
        if self.without:
            yield Fact("absence", self.species, self.without)


@dataclass(frozen=True)
class Spec:
    """What one query asks for: a subject, perhaps a companion, a habitat, a weather; or more of one than the other."""

    subject: Part
    companion: Part | None = None
    habitat: str = ""
    weather: str = ""
    alone: bool = False
    more: bool = False

    def facts(self) -> tuple[Fact, ...]:
        """The atomic predicates, in the order in which the query says them."""
        return self._facts

    @cached_property
    def _facts(self) -> tuple[Fact, ...]:
        facts = list(self.subject.facts())
        if self.companion:
            facts += self.companion.facts()
            if self.more:
                facts.append(Fact("comparison", self.subject.species, self.companion.species))
        if self.alone:
            facts.append(Fact("alone", self.subject.species))
        if self.habitat:
            facts.append(Fact("habitat", "", self.habitat))
        if self.weather:
            facts.append(Fact("weather", "", self.weather))
        return tuple(facts)

    def matches(self, scene: Scene) -> bool:
        """Whether every fact holds in `scene`."""
        return all(fact.holds(scene) for fact in self.facts())

    def satisfied(self, scene: Scene) -> int:
        """How many of the facts hold in `scene`."""
        return sum(fact.holds(scene) for fact in self.facts())


def describe(scene: Scene) -> Spec:
    """The fullest positive description of a scene."""
    parts = [
        Part(g.species, g.colour, g.count, "" if g.pose == "resting" else g.pose, "" if g.item == "none" else g.item)
        for g in scene.groups
    ]
    return Spec(parts[0], parts[1] if len(parts) > 1 else None, scene.habitat, scene.weather)


def held_out(species: str, colour: str, habitat: str) -> bool:
    """Whether this combination is kept out of every training scene, so that queries can ask for something new.

    A quarter of all triples: a fixed Latin pattern, so that each species, colour and habitat, and each pair of
    them, is seen in training.
    """
    return (list(SPECIES).index(species) + COLOURS.index(colour) + HABITATS.index(habitat)) % 4 == 0


def is_training_scene(scene: Scene) -> bool:
    """Whether a scene may be trained on: none of its groups shows a held-out combination."""
    return not any(held_out(g.species, g.colour, scene.habitat) for g in scene.groups)
