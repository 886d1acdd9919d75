"""What the LMM is trained to do with text alone: a request turned into descriptions, instructions and questions.

Requests come in three kinds, as in ImageScope (arXiv 2503.10166): a text query, a composed request (a
reference image's description and a change), and a dialogue. All three end in the same structured answers.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from fieldscope.core.types import Turn
from fieldscope.fieldnotes.facts import Fact, Part, Spec, describe
from fieldscope.fieldnotes.grammar import BESIDE, CANON, ITEM, NUMBERS, PLACES, THING, WEATHER, Words, article
from fieldscope.fieldnotes.sampling import other, random_scene, random_spec
from fieldscope.fieldnotes.scene import COLOURS, HABITATS, ITEMS, POSES, SPECIES, WEATHERS
from fieldscope.fieldnotes.tasks import Segment

SYNTHESIZE = (
    "{q} think about what a matching image shows and answer as json.",
    "{q} describe the image that is looked for, as json.",
    "{q} write json with the thought, three descriptions and the instructions.",
    "think step by step about this request and reply with json. {q}",
    "turn this request into descriptions and instructions as json. {q}",
    "what must the image show? answer as json. {q}",
    "{q} reply in json: thought, core, detailed, comprehensive, instructions.",
    "read the request and describe what to look for, in json. {q}",
    "please describe the right image in json. {q}",
    "give a thought, three descriptions and instructions in json for this: {q}",
    "what is this request about? answer in json with descriptions and instructions. {q}",
    "think about the request. {q} then write the json.",
)
AGAIN = (
    '{q} the earlier answer was: "{d}" {w} answer again as json.',
    "{q} earlier description: {d}. {w} write the json again.",
    "{q} this description did not do: {d}. {w} think again and reply with json.",
    'the earlier description "{d}" was wanting: {w} describe the image again as json. {q}',
    "{w} the description was: {d}. make a better one, as json. {q}",
    "{q} look at the request again. {w} before, the description was: {d}. reply in json.",
)
WANTING = (
    "too few images match.",
    "no image matches.",
    "the answers contradict each other.",
    "a question does not tell the images apart.",
    "the answer was not right json.",
    "a field is missing.",
)
DECOMPOSE = (
    "{q} turn the instructions into yes or no questions as json.",
    "{q} write a question for each instruction, as json.",
    "here are instructions. {q} reply with questions and expected answers as json.",
    "make predicates from these instructions as json: {q}",
    "{q} which questions verify this? answer as json.",
    "for each instruction write a yes or no question with its expected answer in json. {q}",
    "write json with a yes or no question for every instruction: {q}",
    "please make questions from the instructions, in json. {q}",
    "{q} reply in json: a question, the expected answer and its words for each.",
    "these are the instructions: {q} ask about each of them, in json.",
    "how can each instruction be verified? write questions in json. {q}",
    "{q} give one question an instruction, with the expected answer, as json.",
)
QUERY = ('query: "{q}".', "query: {q}.", 'request: "{q}".', "find: {q}.")
COMPOSED = (
    'reference: "{r}". change: "{q}".',
    "reference image: {r}. change: {q}.",
    'the reference shows "{r}". change it: "{q}".',
    "reference: {r}. request: {q}.",
    'reference: "{r}". request: "{q}".',
    "the reference image shows {r}. change: {q}.",
)
SAME = ("the same, but {x}", "like this, but {x}", "the same scene, but {x}", "now {x}", "{x} instead", "but {x}")


@dataclass(frozen=True)
class Request:
    """A request in words, what it asks for, the words that say each fact, and what is to be done with each."""

    text: str
    spec: Spec
    said: Mapping[Fact, str]
    kind: str = "query"
    changed: Mapping[Fact, str] | None = None

    def operation(self, fact: Fact) -> str:
        """ImageScope's type of instruction: addition, removal, modification, comparison or retention."""
        if self.changed and fact in self.changed:
            return self.changed[fact]
        if self.kind == "composed":
            return "retention"
        if fact.kind in ("absence", "alone"):
            return "removal"
        return "comparison" if fact.kind == "comparison" else "addition"


def core(spec: Spec) -> str:
    """The core elements: animals and place, without their details."""
    companion = Part(spec.companion.species) if spec.companion else None
    bare = replace(spec, subject=Part(spec.subject.species), companion=companion, weather="", alone=False)
    return CANON.spec(bare)


def detailed(spec: Spec) -> str:
    """With details: the colours and numbers too."""
    subject = replace(spec.subject, pose="", item="", without="")
    companion = replace(spec.companion, pose="", item="", without="") if spec.companion else None
    return CANON.spec(replace(spec, subject=subject, companion=companion, weather="", alone=False))


def thought(spec: Spec) -> str:
    """What the request is about, and what has to be checked."""
    plurals = [SPECIES[part.species].plural for part in (spec.subject, spec.companion) if part]
    kinds = dict.fromkeys(fact.kind for fact in spec.facts())
    return f"this is about {' and '.join(plurals)}. check the {', '.join(kinds)}."


def synthesis(request: Request) -> str:
    """The right answer to a synthesize prompt. Each instruction's type comes last: what is to be done with a fact
    can only be said once it is clear which fact."""
    spec = request.spec
    return json.dumps(
        {
            "thought": thought(spec),
            "core": core(spec),
            "detailed": detailed(spec),
            "comprehensive": CANON.spec(spec),
            "instructions": [
                {"text": CANON.phrase(fact), "words": request.said[fact], "type": request.operation(fact)}
                for fact in spec.facts()
            ],
        }
    )


def decomposition(request: Request) -> str:
    """The right answer to a decompose prompt."""
    return json.dumps(
        {
            "predicates": [
                {
                    "question": CANON.question(fact),
                    "expected": "yes" if fact.expected else "no",
                    "words": request.said[fact],
                    "type": "absence" if fact.kind == "alone" else fact.kind,
                }
                for fact in request.spec.facts()
            ]
        }
    )


def instructions_text(request: Request) -> str:
    """A request's instructions as a decompose prompt shows them: numbered, with the words they come from."""
    return " ".join(
        f'{i + 1}. {request.operation(fact)}: {CANON.phrase(fact)} ("{request.said[fact]}").'
        for i, fact in enumerate(request.spec.facts())
    )


def query_request(spec: Spec, rng: random.Random) -> Request:
    """A plain text query."""
    text, said = Words(rng).speak(spec)
    return Request(rng.choice(QUERY).format(q=text), spec, said)


def changes(spec: Spec, rng: random.Random) -> list[tuple[Spec, Fact, str, str]]:
    """All kinds of change to a query: the new query, its new fact, the operation, and the words of the change."""
    words, subject, name = Words(rng), spec.subject, spec.subject.species
    taken = spec.companion.colour if spec.companion else ""
    out = []

    def add(changed: Spec, fact: Fact, had: object, said: str) -> None:
        out.append((changed, fact, "modification" if had else "addition", said))

    habitat = other(rng, HABITATS, spec.habitat)
    add(replace(spec, habitat=habitat), Fact("habitat", "", habitat), spec.habitat, words.pick(PLACES[habitat]))
    weather = other(rng, WEATHERS, spec.weather)
    add(replace(spec, weather=weather), Fact("weather", "", weather), spec.weather, words.pick(WEATHER[weather]))
    if spec.more:
        return out

    def alter(fact: Fact, had: object, said: str, **fields: object) -> None:
        add(replace(spec, subject=replace(subject, **fields)), fact, had, said)  # type: ignore[arg-type]

    colour = other(rng, COLOURS, subject.colour, taken)
    alter(Fact("colour", name, colour), subject.colour, rng.choice((colour, f"in {colour}")), colour=colour)
    count = rng.choice([n for n in (1, 2, 3) if n != subject.count])
    said = rng.choice((f"with {NUMBERS[count]} of them", f"{NUMBERS[count]} of them"))
    alter(Fact("count", name, str(count)), subject.count, said, count=count)
    pose = other(rng, POSES, "resting", subject.pose)
    alter(Fact("behaviour", name, pose), subject.pose, words.pose(name, pose), pose=pose)
    item = other(rng, ITEMS[1:], subject.item)
    alter(Fact("context", name, item), subject.item, words.pick(ITEM[item]), item=item, without="")
    if subject.item:
        said = "without " + words.pick(THING[subject.item])
        bare = replace(subject, item="", without=subject.item)
        out.append((replace(spec, subject=bare), Fact("absence", name, subject.item), "removal", said))
    if spec.companion:
        gone = replace(spec, companion=None, alone=True)
        said = rng.choice(("alone", f"without the {spec.companion.species}"))
        out.append((gone, Fact("alone", name), "removal", said))
    elif not spec.alone:
        extra = Part(other(rng, tuple(SPECIES), name))
        said = f"{rng.choice(BESIDE)} {article(extra.species)} {extra.species}"
        out.append((replace(spec, companion=extra), Fact("subject", extra.species), "addition", said))
    return out


def change_words(said: str, rng: random.Random) -> str:
    """The words of a change in a whole phrase: "the same, but on snow"."""
    return rng.choice(SAME).format(x=said)


def composed_request(reference: Spec, rng: random.Random) -> Request:
    """A reference image's description and a change."""
    text, said = CANON.speak(reference)
    spec, fact, operation, words = rng.choice(changes(reference, rng))
    facts = {f: said[f] for f in spec.facts() if f in said} | {fact: words}
    asked = rng.choice(COMPOSED).format(r=text, q=change_words(words, rng))
    return Request(asked, spec, facts, "composed", {fact: operation})


def dialogue_request(spec: Spec, rng: random.Random) -> Request:
    """A caption that says little, and rounds of question and answer that say the rest."""
    text, rounds, said = converse(spec, rng)
    shown = " ".join(f"q: {turn.question} a: {turn.answer}." for turn in rounds)
    label = rng.choice(("caption", "dialogue", "request"))
    return Request(f"{label}: {text}. {shown}".strip(), spec, said, "dialogue")


def converse(spec: Spec, rng: random.Random) -> tuple[str, tuple[Turn, ...], dict[Fact, str]]:
    """A caption of the subject, perhaps with its colour; a round for each fact that it leaves unsaid; and the words
    that say each fact."""
    words, subject = Words(rng), spec.subject
    text, said = words.speak(Spec(Part(subject.species, subject.colour if rng.random() < 0.5 else "")))
    rounds = [ask(fact, words, said) for fact in spec.facts() if fact not in said]
    return text, tuple(Turn(question=question, answer=answer) for question, answer in rounds), said


def ask(fact: Fact, words: Words, said: dict[Fact, str]) -> tuple[str, str]:
    """One round of a dialogue that reveals `fact`; the answer's words go into `said`."""
    name = fact.species
    rounds: dict[str, tuple[str, Callable[[], str]]] = {
        "subject": ("is another animal there?", lambda: f"{article(name)} {name}"),
        "colour": (f"what colour is the {name}?", lambda: fact.value),
        "count": (f"how many {SPECIES[name].plural if name else ''} are there?", lambda: NUMBERS[int(fact.value)]),
        "behaviour": (f"what is the {name} doing?", lambda: words.pose(name, fact.value)),
        "context": (f"what is with the {name}?", lambda: words.pick(ITEM[fact.value])),
        "absence": (f"what is not with the {name}?", lambda: words.pick(THING[fact.value])),
        "alone": ("is another animal there?", lambda: "no"),
        "habitat": ("where is it?", lambda: words.pick(PLACES[fact.value])),
        "weather": ("what is the weather?", lambda: words.pick(WEATHER[fact.value])),
        "comparison": ("are there more of one?", lambda: CANON.phrase(fact)),
    }
    question, answer = rounds[fact.kind]
    said[fact] = answer()
    return question, said[fact]


def random_request(rng: random.Random) -> Request:
    """A request of any kind about any scene."""
    kind = rng.choices(("query", "composed", "dialogue"), (0.35, 0.43, 0.22))[0]
    spec = random_spec(random_scene(rng, 0.5), rng, 1, 7)
    if kind == "composed":
        return composed_request(describe(random_scene(rng, 0.35)) if rng.random() < 0.5 else spec, rng)
    return dialogue_request(spec, rng) if kind == "dialogue" else query_request(spec, rng)


def synthesize(request: Request, rng: random.Random) -> Segment:
    return Segment(f"synthesize:{request.kind}", rng.choice(SYNTHESIZE).format(q=request.text), (synthesis(request),))


def synthesize_again(request: Request, rng: random.Random) -> Segment:
    """The same request after an answer that was judged insufficient, which may or may not have been wrong."""
    earlier = request.spec
    if rng.random() < 0.6:
        earlier = random_spec(random_scene(rng), rng, 1, 6)
    prompt = rng.choice(AGAIN).format(q=request.text, d=CANON.spec(earlier), w=rng.choice(WANTING))
    return Segment(f"synthesize:{request.kind}", prompt, (synthesis(request),))


def decompose(request: Request, rng: random.Random) -> Segment:
    text = f"{request.text} instructions: {instructions_text(request)}"
    if rng.random() < 0.5:
        text = f"instructions: {instructions_text(request)}"
    return Segment("decompose", rng.choice(DECOMPOSE).format(q=text), (decomposition(request),))
