"""Plain English for facts and queries, in several wordings.

`Words(rng)` speaks with variety (training, queries); `CANON` always takes the first wording, which is also what
the LMM answers with. All text is lower case.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from fieldscope.fieldnotes.facts import Fact, Part, Spec
from fieldscope.fieldnotes.scene import SPECIES

NUMBERS = ("zero", "one", "two", "three")
PLACES = {
    "forest": ("in a forest", "in the woods"),
    "beach": ("on a beach", "on the beach", "on a sandy beach"),
    "desert": ("in a desert", "in the desert"),
    "snow": ("in the snow", "on snow"),
    "meadow": ("in a meadow", "on a grassy meadow"),
    "pond": ("at a pond", "in a pond"),
    "reef": ("on a reef", "on a coral reef"),
    "street": ("on a street", "on a city street"),
}
WEATHER = {
    "clear": ("in clear weather", "on a clear day"),
    "rain": ("in the rain", "on a rainy day"),
    "fog": ("in fog", "on a foggy day"),
    "night": ("at night", "in the dark"),
}
POSE = {
    "resting": ("resting",),
    "sleeping": ("sleeping", "asleep"),
    "climbing": ("climbing a post", "climbing up a post"),
}
AIRBORNE = {True: ("flying", "in flight"), False: ("jumping", "leaping")}
ITEM = {
    "litter": ("holding plastic litter", "holding a plastic bottle", "with plastic trash"),
    "tag": ("wearing a tag", "with a tag", "wearing a white tag"),
    "leaf": ("carrying a leaf", "with a leaf"),
    "nest": ("guarding a nest with eggs", "beside a nest with eggs", "with a nest of eggs"),
    "net": ("tangled in a net", "caught in a net", "trapped in a fishing net"),
}
THING = {
    "litter": ("plastic litter", "a plastic bottle"),
    "tag": ("a tag",),
    "leaf": ("a leaf",),
    "nest": ("a nest",),
    "net": ("a net",),
}
BESIDE = ("next to", "beside", "near", "together with")
ALONE = ("alone", "with no other animal")


def article(word: str) -> str:
    """ "an" before a vowel, else "a"."""
    return "an" if word[0] in "aeiou" else "a"


class Words:
    """Chooses among wordings: at random with an `rng`, else the first."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self.rng = rng

    def pick(self, options: Sequence[str]) -> str:
        return self.rng.choice(options) if self.rng else options[0]

    def chance(self, p: float) -> bool:
        return self.rng is not None and self.rng.random() < p

    def pose(self, species: str, pose: str) -> str:
        return self.pick(AIRBORNE[SPECIES[species].winged] if pose == "airborne" else POSE[pose])

    def noun(self, part: Part, said: dict[Fact, str]) -> str:
        """Determiner, colour and name: "a red crab", "two red crabs"; exactly one is said outright."""
        kind = SPECIES[part.species]
        name = kind.plural if part.count > 1 else kind.name
        body = f"{part.colour} {name}" if part.colour else name
        said[Fact("subject", part.species)] = name
        if part.colour:
            said[Fact("colour", part.species, part.colour)] = part.colour
        if not part.count:
            return f"{article(body)} {body}"
        many = self.pick(("one", "a single", "exactly one")) if part.count == 1 else NUMBERS[part.count]
        said[Fact("count", part.species, str(part.count))] = many
        return f"{many} {body}"

    def part(self, part: Part, said: dict[Fact, str]) -> str:
        """A group with all that is said of it."""
        words = self.noun(part, said)
        extras = []
        if part.pose:
            extras.append(self.pose(part.species, part.pose))
            said[Fact("behaviour", part.species, part.pose)] = extras[-1]
        if part.item:
            extras.append(self.pick(ITEM[part.item]))
            said[Fact("context", part.species, part.item)] = extras[-1]
        if part.without:
            extras.append("without " + self.pick(THING[part.without]))
            said[Fact("absence", part.species, part.without)] = extras[-1]
        if len(extras) == 2 and not part.without and self.chance(0.3):
            extras.insert(1, "and")
        if extras and not extras[0].startswith("with") and self.chance(0.15):
            words += " that " + ("are" if part.count > 1 else "is")
        return " ".join([words, *extras])

    def speak(self, spec: Spec) -> tuple[str, dict[Fact, str]]:
        """A whole query, and for each of its facts the words of the query that say it."""
        said: dict[Fact, str] = {}
        subject, companion = spec.subject.species, spec.companion.species if spec.companion else ""
        if spec.more:
            one, two = SPECIES[subject].plural, SPECIES[companion].plural
            core = f"more {one} than {two}"
            said |= {Fact("subject", subject): one, Fact("subject", companion): two}
            said[Fact("comparison", subject, companion)] = core
        else:
            core = self.part(spec.subject, said)
            if spec.companion:
                core += f" {self.pick(BESIDE)} {self.part(spec.companion, said)}"
            if spec.alone:
                said[Fact("alone", subject)] = self.pick(ALONE)
                core += " " + said[Fact("alone", subject)]
        where = []
        if spec.habitat:
            where.append(self.pick(PLACES[spec.habitat]))
            said[Fact("habitat", "", spec.habitat)] = where[-1]
        if spec.weather:
            where.append(self.pick(WEATHER[spec.weather]))
            said[Fact("weather", "", spec.weather)] = where[-1]
        if self.rng and where and self.chance(0.2):
            self.rng.shuffle(where)
            return f"{' '.join(where)}, {core}", said
        start = self.pick(("a photo of ", "a picture of ")) if self.chance(0.15) else ""
        return start + " ".join([core, *where]), said

    def spec(self, spec: Spec) -> str:
        """A whole query."""
        return self.speak(spec)[0]

    def phrase(self, fact: Fact) -> str:
        """The words of one fact: "two crabs", "in the rain"."""
        if fact.kind == "habitat":
            return self.pick(PLACES[fact.value])
        if fact.kind == "weather":
            return self.pick(WEATHER[fact.value])
        kind = SPECIES[fact.species]
        if fact.kind == "subject":
            return f"{article(kind.name)} {kind.name}"
        if fact.kind == "colour":
            return f"{fact.value} {kind.name}"
        if fact.kind == "count":
            n = int(fact.value)
            return f"{NUMBERS[n]} {kind.name if n == 1 else kind.plural}"
        if fact.kind == "behaviour":
            return f"{kind.name} {self.pose(fact.species, fact.value)}"
        if fact.kind == "context":
            return f"{kind.name} {self.pick(ITEM[fact.value])}"
        if fact.kind == "absence":
            return f"{kind.name} without {self.pick(THING[fact.value])}"
        if fact.kind == "alone":
            return f"{kind.name} alone"
        return f"more {kind.plural} than {SPECIES[fact.value].plural}"

    def question(self, fact: Fact) -> str:
        """A yes/no question about one fact, one of at least six wordings."""
        pick = self.pick
        if fact.kind == "habitat":
            place = pick(PLACES[fact.value])
            return pick(
                (
                    f"was this photo taken {place}?",
                    f"is this {place}?",
                    f"is the scene {place}?",
                    f"does the image show a place {place}?",
                    f"was this picture taken {place}?",
                    f"are we {place} here?",
                )
            )
        if fact.kind == "weather":
            weather = pick(WEATHER[fact.value])
            plain = {"rain": "is it raining?", "fog": "is it foggy?", "night": "is it night?", "clear": "is it clear?"}
            return pick(
                (
                    f"was this photo taken {weather}?",
                    plain[fact.value],
                    f"is the scene {weather}?",
                    f"is this {weather}?",
                    f"was this picture taken {weather}?",
                    f"does the image show a scene {weather}?",
                )
            )
        kind = SPECIES[fact.species]
        name, some = kind.name, f"{article(kind.name)} {kind.name}"
        the = pick((f"the {name}", f"the {kind.plural}" if kind.plural != name else f"the {name}"))
        verb = "are" if the == f"the {kind.plural}" and kind.plural != name else "is"
        if fact.kind == "subject":
            return pick(
                (
                    f"is there {some}?",
                    f"is there {some} in the image?",
                    f"does the image show {some}?",
                    f"can you see {some}?",
                    f"does this picture contain {some}?",
                    f"do you see any {kind.plural}?",
                )
            )
        if fact.kind == "colour":
            return pick(
                (
                    f"is the {name} {fact.value}?",
                    f"{verb} {the} {fact.value} in colour?",
                    f"is there {article(fact.value)} {fact.value} {name}?",
                    f"does the image show {article(fact.value)} {fact.value} {name}?",
                    f"do you see {article(fact.value)} {fact.value} {name}?",
                    f"is the colour of the {name} {fact.value}?",
                )
            )
        if fact.kind == "count":
            n = int(fact.value)
            many = f"{NUMBERS[n]} {name if n == 1 else kind.plural}"
            be = "is" if n == 1 else "are"
            return pick(
                (
                    f"{be} there exactly {many}?",
                    f"{be} there {many}?",
                    f"does the image show exactly {many}?",
                    f"can you count {many}?",
                    f"is the number of {kind.plural} {NUMBERS[n]}?",
                    f"do you see exactly {many}?",
                )
            )
        if fact.kind in ("behaviour", "context", "absence"):
            does = self.pose(fact.species, fact.value) if fact.kind == "behaviour" else pick(ITEM[fact.value])
            return pick(
                (
                    f"is the {name} {does}?",
                    f"{verb} {the} {does} here?",
                    f"is there {some} {does}?",
                    f"does the image show {some} {does}?",
                    f"can you see {some} {does}?",
                    f"is it true that the {name} is {does}?",
                )
            )
        if fact.kind == "alone":
            return pick(
                (
                    f"is there any other animal than the {name}?",
                    f"is there another animal besides the {name}?",
                    f"do you see any other animal than the {name}?",
                    f"does the image show an animal other than the {name}?",
                    "is there a second kind of animal?",
                    f"is the {name} together with another animal?",
                )
            )
        other = SPECIES[fact.value].plural
        return pick(
            (
                f"are there more {kind.plural} than {other}?",
                f"do you see more {kind.plural} than {other}?",
                f"does the image show more {kind.plural} than {other}?",
                f"is the number of {kind.plural} greater than the number of {other}?",
                f"can you count more {kind.plural} than {other}?",
                f"is it true that there are more {kind.plural} than {other}?",
            )
        )


CANON = Words()
