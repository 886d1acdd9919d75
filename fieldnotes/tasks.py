"""What the LMM is trained to do with images: prompts in many wordings, and the right answers.

A `Segment` is one prompt and its answer about a fixed set of images (shown first, in order). Answers that are
truly open (two equally good images) carry several `options`, each right with equal weight.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

from fieldscope.fieldnotes.facts import KINDS, Fact, Spec, describe, find
from fieldscope.fieldnotes.grammar import CANON, ITEM, NUMBERS, PLACES, WEATHER, Words, article
from fieldscope.fieldnotes.sampling import mutate, other, random_spec
from fieldscope.fieldnotes.scene import COLOURS, COUNTS, HABITATS, ITEMS, POSES, SPECIES, WEATHERS, Scene

LETTERS = ("a", "b", "c", "d")
ENDINGS = ("answer yes or no.", "yes or no?", "reply yes or no.", "please answer yes or no.", "say yes or no.", "")
MATCH = (
    'does this image match the description: "{q}"?',
    'does the image show "{q}"?',
    'is this a photo of "{q}"?',
    "query: {q}. does the image match the query?",
    'does this picture match the query "{q}"?',
    "is this image relevant to the query: {q}?",
    "is everything in this description true of the image: {q}?",
    'description: "{q}". is it right for this image?',
)
TRUE_FALSE = (
    'true or false: this image matches the description "{q}".',
    "true or false: the image shows {q}.",
    '"{q}". is this true or false of the image?',
    "query: {q}. does the image match the query? answer true or false.",
    'does this image match the description: "{q}"? true or false?',
    "the image shows {q}. reply true or false.",
)
COMPARE = (
    'which image matches the description better: "{q}"? answer a or b.',
    "query: {q}. which image is the better match, a or b?",
    'image a or image b: which one shows "{q}"?',
    "is a or b the better match for the query: {q}?",
    "the first image is a, the second is b. which one matches better: {q}?",
    'compare the images. which is closer to "{q}"? reply a or b.',
    "which of the two images shows {q}? say a or b.",
)
COMPARE_REFERENCE = (
    "the first image is the reference, then come a and b. which one shows this change better: {q}? answer a or b.",
    'reference, image a, image b. which image is the reference changed like this: "{q}"? answer a or b.',
    "look at the first image. change it: {q}. is a or b the better match?",
    'which image, a or b, matches the reference with the change "{q}"?',
    "the first image is the reference. change: {q}. which of the other two images is closer? reply a or b.",
    "a or b: which one is the reference image changed like this: {q}?",
)
BEST_OF_FOUR = (
    'which image matches the description best: "{q}"? answer a, b, c or d.',
    "query: {q}. which image is the best match, a, b, c or d?",
    'the images are a, b, c and d. which one shows "{q}"?',
    "compare the four images. which is the best match for: {q}? reply a, b, c or d.",
    "which of the four images shows {q}? say a, b, c or d.",
    "pick the best image for the query: {q}. answer a, b, c or d.",
)
JOINT = (
    "answer every question with yes or no, as json. {q}",
    "{q} answer all questions yes or no, as json.",
    "here are questions about the image. {q} reply with json.",
    "look at the image and answer these questions as json: {q}",
    "for each question say yes or no in json. {q}",
    "questions: {q} give the answers as json.",
)
REASON = (
    'does this image match the description: "{q}"? answer and give the reason.',
    "query: {q}. does the image match? say why.",
    'why does the image match "{q}" or not?',
    "does the image show {q}? explain in one sentence.",
    "is this image right for the query: {q}? give a reason.",
    'explain: is this a photo of "{q}"?',
)
CAPTION = (
    "describe the image.",
    "what does the image show?",
    "give a caption for this image.",
    "what is in this picture?",
    "describe this photo in one sentence.",
    "caption:",
)


@dataclass(frozen=True)
class Segment:
    """One prompt behind the images, and its answer(s): each of `options` is right, with equal weight."""

    task: str
    prompt: str
    options: tuple[str, ...]


def wrong_value(fact: Fact, scene: Scene, rng: random.Random) -> Fact:
    """The same kind of fact with another value: often one that is true of the scene's other group."""
    domain = {
        "colour": COLOURS,
        "count": tuple(map(str, COUNTS)),
        "behaviour": POSES,
        "context": ITEMS[1:],
        "absence": ITEMS[1:],
        "habitat": HABITATS,
        "weather": WEATHERS,
    }[fact.kind]
    rest = [g for g in scene.groups if g.species != fact.species]
    if fact.species and rest and rng.random() < 0.55:
        g = rest[0]
        value = {"colour": g.colour, "count": str(g.count), "behaviour": g.pose}.get(fact.kind, g.item)
        if value in domain and value != fact.value:
            return Fact(fact.kind, fact.species, value)
    return Fact(fact.kind, fact.species, other(rng, domain, fact.value))


def random_fact(scene: Scene, rng: random.Random, kind: str | None = None) -> Fact:
    """A fact worth asking: true, false by a near miss, or about an animal that is not there. Balanced yes and no."""
    kind = kind or rng.choices(KINDS, (0.16, 0.17, 0.18, 0.12, 0.13, 0.04, 0.05, 0.05, 0.06, 0.04))[0]
    truth = rng.random() < 0.5
    absent = other(rng, tuple(SPECIES), *[g.species for g in scene.groups])
    group = rng.choice(scene.groups)
    if kind in ("habitat", "weather"):
        fact = Fact(kind, "", getattr(scene, kind))
        return fact if truth else wrong_value(fact, scene, rng)
    if kind == "subject":
        return Fact(kind, group.species if truth else absent)
    if kind == "alone":
        return Fact(kind, group.species)
    if kind == "comparison":
        if len(scene.groups) == 2 and (truth or rng.random() < 0.6):
            a, b = rng.sample(scene.groups, 2)
            if truth and b.count > a.count:
                a, b = b, a
            return Fact(kind, a.species, b.species)
        pair = [group.species, absent]
        rng.shuffle(pair)
        return Fact(kind, *pair)
    if kind in ("context", "absence") and truth:
        carriers = [g for g in scene.groups if g.item != "none"]
        if not carriers:
            return random_fact(scene, rng, "behaviour")
        group = rng.choice(carriers)
    value = {"colour": group.colour, "count": str(group.count), "behaviour": group.pose}.get(kind, group.item)
    fact = Fact(kind, group.species, value)
    if truth:
        return fact
    # A "no" comes from another value, or from an animal that is not there though its attribute is.
    if value != "none" and rng.random() < 0.3:
        return Fact(kind, absent, value)
    return wrong_value(fact, scene, rng)


def yes_no(answer: bool) -> tuple[str]:
    return ("yes" if answer else "no",)


def ask_fact(scene: Scene, fact: Fact, rng: random.Random) -> Segment:
    """A yes/no question about one predicate."""
    words = Words(rng).question(fact)
    return Segment(f"fact:{fact.kind}", f"{words} {rng.choice(ENDINGS)}".strip(), yes_no(fact.answer(scene)))


def ask_query(scene: Scene, spec: Spec, rng: random.Random) -> Segment:
    """A yes/no or true/false question about a whole query."""
    text, truth = Words(rng).spec(spec), spec.matches(scene)
    if rng.random() < 0.3:
        return Segment("query:tf", rng.choice(TRUE_FALSE).format(q=text), ("true" if truth else "false",))
    prompt = f"{rng.choice(MATCH).format(q=text)} {rng.choice(ENDINGS)}".strip()
    return Segment("query", prompt, yes_no(truth))


def ask_joint(scene: Scene, facts: Sequence[Fact], rng: random.Random) -> Segment:
    """Every predicate of one image in one structured answer."""
    words = Words(rng)
    questions = " ".join(f"{i + 1}. {words.question(fact)}" for i, fact in enumerate(facts))
    answers = {"answers": [yes_no(fact.answer(scene))[0] for fact in facts]}
    return Segment("joint", rng.choice(JOINT).format(q=questions), (json.dumps(answers),))


def caption(scene: Scene) -> str:
    """The canonical full description of a scene."""
    return CANON.spec(describe(scene))


def reason(scene: Scene, spec: Spec) -> str:
    """One sentence: what is shown where all is right, else the first thing that is wrong."""
    wrong = next((fact for fact in spec.facts() if not fact.holds(scene)), None)
    if wrong is None:
        return f"yes, the image shows {CANON.spec(spec)}."
    group = find(scene, wrong.species) if wrong.species else None
    if wrong.kind == "habitat":
        return f"no, it is {PLACES[scene.habitat][0]}, not {PLACES[wrong.value][0]}."
    if wrong.kind == "weather":
        return f"no, it is {WEATHER[scene.weather][0]}, not {WEATHER[wrong.value][0]}."
    if group is None:
        return f"no, there is no {wrong.species}."
    if wrong.kind == "colour":
        return f"no, the {wrong.species} is {group.colour}, not {wrong.value}."
    if wrong.kind == "count":
        return f"no, the number of {SPECIES[wrong.species].plural} is {NUMBERS[group.count]}."
    if wrong.kind == "alone":
        return f"no, the {wrong.species} is not alone."
    if wrong.kind == "comparison":
        return f"no, there are not more {SPECIES[wrong.species].plural} than {SPECIES[wrong.value].plural}."
    words = CANON.pose(wrong.species, wrong.value) if wrong.kind == "behaviour" else CANON.pick(ITEM[wrong.value])
    return f"no, the {wrong.species} is {'' if wrong.kind == 'absence' else 'not '}{words}."


def ask_reason(scene: Scene, spec: Spec, rng: random.Random) -> Segment:
    return Segment("reason", rng.choice(REASON).format(q=Words(rng).spec(spec)), (reason(scene, spec),))


def ask_caption(scene: Scene, rng: random.Random) -> Segment:
    return Segment("caption", rng.choice(CAPTION), (caption(scene),))


def ask_open(scene: Scene, rng: random.Random) -> Segment:
    """An open question with a short answer: what makes yes/no questions learnable at all."""
    group = rng.choice(scene.groups)
    species = group.species
    if rng.random() < 0.12:
        species = other(rng, tuple(SPECIES), *[g.species for g in scene.groups])
    kind = SPECIES[species]
    here = find(scene, species)
    pick = rng.choice(("colour", "colour", "count", "count", "pose", "pose", "item", "item", "place", "weather", "all"))
    if pick == "place":
        return Segment("open:place", "where is this?", (scene.habitat,))
    if pick == "weather":
        return Segment("open:weather", "what is the weather?", (scene.weather,))
    if pick == "all":
        names = " and ".join(f"{article(g.colour)} {g.colour} {g.species}" for g in scene.groups)
        return Segment("open:all", "which animals are there?", (names,))
    if pick == "colour":
        return Segment("open:colour", f"what colour is the {kind.name}?", (here.colour if here else "none",))
    if pick == "count":
        return Segment("open:count", f"how many {kind.plural} are there?", (NUMBERS[here.count if here else 0],))
    if pick == "pose":
        said = CANON.pose(species, here.pose) if here else "none"
        return Segment("open:pose", f"what is the {kind.name} doing?", (said.split()[0],))
    return Segment("open:item", f"what is with the {kind.name}?", (here.item if here else "none",))


def ask_best(scenes: Sequence[Scene], spec: Spec, rng: random.Random, change: str | None = None) -> Segment:
    """Which of two or four images matches best, graded by the facts that hold; with `change`, the first image in
    the prompt is a reference and `spec` is what the changed reference would be."""
    grades = [spec.satisfied(scene) for scene in scenes]
    best = tuple(LETTERS[i] for i, grade in enumerate(grades) if grade == max(grades))
    if change is not None:
        return Segment("compare:ref", rng.choice(COMPARE_REFERENCE).format(q=change), best)
    wordings, task = (COMPARE, "compare") if len(scenes) == 2 else (BEST_OF_FOUR, "best4")
    return Segment(task, rng.choice(wordings).format(q=Words(rng).spec(spec)), best)


def near_spec(scene: Scene, rng: random.Random) -> Spec:
    """A query that the scene matches, or one that a counterfactual of it matches and the scene does not."""
    if rng.random() < 0.5:
        return random_spec(scene, rng, 1, 7)
    for _ in range(40):
        changed = mutate(scene, rng)
        if rng.random() < 0.25:
            changed = mutate(changed, rng)
        spec = random_spec(changed, rng, 1, 7)
        if not spec.matches(scene):
            return spec
    return spec
