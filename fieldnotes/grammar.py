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

PLAIN = {"rain": "is it raining?", "fog": "is it foggy?", "night": "is it night?", "clear": "is it clear?"}
_DOES = (
    "is the {name} {does}?",
    "{verb} {the} {does} here?",
    "is there {some} {does}?",
    "does the image show {some} {does}?",
    "can you see {some} {does}?",
    "is it true that the {name} is {does}?",
)
# A kind of fact -> the wordings of its question.
QUESTIONS = {
    "habitat": (
        "was this photo taken {where}?",
        "is this {where}?",
        "is the scene {where}?",
        "does the image show a place {where}?",
        "was this picture taken {where}?",
        "are we {where} here?",
    ),
    "weather": (
        "was this photo taken {where}?",
        "{plain}",
        "is the scene {where}?",
        "is this {where}?",
        "was this picture taken {where}?",
        "does the image show a scene {where}?",
    ),
    "subject": (
        "is there {some}?",
        "is there {some} in the image?",
        "does the image show {some}?",
        "can you see {some}?",
        "does this picture contain {some}?",
        "do you see any {plural}?",
    ),
    "colour": (
        "is the {name} {value}?",
        "{verb} {the} {value} in colour?",
        "is there {a} {value} {name}?",
        "does the image show {a} {value} {name}?",
        "do you see {a} {value} {name}?",
        "is the colour of the {name} {value}?",
    ),
    "count": (
        "{be} there exactly {many}?",
        "{be} there {many}?",
        "does the image show exactly {many}?",
        "can you count {many}?",
        "is the number of {plural} {number}?",
        "do you see exactly {many}?",
    ),
    "behaviour": _DOES,
    "context": _DOES,
    "absence": _DOES,
    "alone": (
        "is there any other animal than the {name}?",
        "is there another animal besides the {name}?",
        "do you see any other animal than the {name}?",
        "does the image show an animal other than the {name}?",
        "is there a second kind of animal?",
        "is the {name} together with another animal?",
    ),
    "comparison": (
        "are there more {plural} than {others}?",
        "do you see more {plural} than {others}?",
        "does the image show more {plural} than {others}?",
        "is the number of {plural} greater than the number of {others}?",
        "can you count more {plural} than {others}?",
        "is it true that there are more {plural} than {others}?",
    ),
}


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
        """A yes/no question about one fact, one of six wordings."""
        if fact.kind in ("habitat", "weather"):
            where = self.pick((PLACES if fact.kind == "habitat" else WEATHER)[fact.value])
            return self.pick(QUESTIONS[fact.kind]).format(where=where, plain=PLAIN.get(fact.value))
        kind = SPECIES[fact.species]
        name, plural = kind.name, kind.plural
        the = self.pick((f"the {name}", f"the {plural}"))
        words = {"name": name, "plural": plural, "some": f"{article(name)} {name}", "the": the, "value": fact.value}
        words["verb"] = "are" if the == f"the {plural}" and plural != name else "is"
        if fact.kind == "colour":
            words["a"] = article(fact.value)
        elif fact.kind == "count":
            words |= {"number": NUMBERS[int(fact.value)], "be": "is" if fact.value == "1" else "are"}
            words["many"] = f"{words['number']} {name if fact.value == '1' else plural}"
        elif fact.kind == "behaviour":
            words["does"] = self.pose(fact.species, fact.value)
        elif fact.kind in ("context", "absence"):
            words["does"] = self.pick(ITEM[fact.value])
        elif fact.kind == "comparison":
            words["others"] = SPECIES[fact.value].plural
        return self.pick(QUESTIONS[fact.kind]).format(**words)


CANON = Words()
