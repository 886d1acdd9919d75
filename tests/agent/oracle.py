"""A model that tells the truth about small pictures, whichever shipped prompt it is asked with, and queries for it.

Facts are words. A picture shows some of them, and a request says in words which it wants: "crab, snow, no net". There
is one picture for every set of facts, so what a query should find is known.
"""

from __future__ import annotations

import io
import json
import math
import random
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image as PILImage

from fieldscope.agent.image_scorer import ImageScorer
from fieldscope.agent.lmm.base import AnswerToken, LMMRequest, LMMResponse, TextPart, TokenLogprob, Tokens
from fieldscope.agent.lmm.choice import LETTERS
from fieldscope.agent.lmm.scripted import Answer, ScriptedLMM
from fieldscope.agent.scored import CachedScorer
from fieldscope.cache.store import MemoryStore
from fieldscope.core.errors import LMMRequestError
from fieldscope.core.fingerprint import fingerprint_pixels
from fieldscope.core.types import Candidate, Query, Turn
from fieldscope.prompts.prompt_set import list_prompts, list_sets, load_prompt
from fieldscope.retrieval.collection import FolderCollection
from fieldscope.retrieval.encoder import QueryInputs
from fieldscope.retrieval.scorer import Document

FACTS = ("crab", "net", "snow", "rain", "night")
SURE = 0.95
STRENGTH = 2.0
"""Log-odds in a comparison for each wanted fact that one picture shows and another does not."""

# What a request says, of whichever kind it is, in the forms of either set of prompts.
_SAID = re.compile(r'(?<!Question: )"([^"]+)"|dialogue: ([^.]+)\.| a: ([^.]+)\.')
_INSTRUCTION = re.compile(r'\d+\. \[?(\w+)[]:]+ (.*?) \((?:from: )?"(.*?)"\)')
_QUESTION = re.compile(r"(?:is there|does the image show|Does the photograph show) (\w+)\?")
_IN_JOINT = re.compile(
    _QUESTION.pattern.replace(r"(\w+)", r"(?P<fact>\w+)") + r'|(?:description:|in the search) "(?P<query>[^"]*)"'
)
_PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")

Wants = Mapping[str, bool]
"""Fact -> whether a match shows it (True) or must not."""


def wanted(text: str) -> Wants:
    """What a request asks for. What is said later counts, as with a change to an image."""
    items = (item.strip(" .") for item in text.split(","))
    return {item.removeprefix("no "): not item.startswith("no ") for item in items}


def satisfied(shown: Collection[str], wants: Wants) -> int:
    """How many of the wanted facts are as they should be."""
    return sum((fact in shown) == there for fact, there in wants.items())


class Oracle(ScriptedLMM):
    """Answers every shipped prompt from `shows`: the pixel hash of a picture -> the facts that it shows."""

    def __init__(self, shows: Mapping[str, Collection[str]]) -> None:
        super().__init__(self._tell, identity="oracle")
        self._shows = shows
        self._answers: dict[str, Callable[..., Answer]] = {
            "synthesize": _synthesis,
            "synthesize_again": lambda shown, request, **_: _synthesis(shown, request),
            "caption": lambda shown: ", ".join(sorted(shown[0])),
            "decompose": _predicates,
            "ask_predicate": lambda shown, question: _sure(_holds(shown[0], question)),
            "ask_joint": _joint,
            "match_yes_no": lambda shown, query: _sure(_matches(shown[0], wanted(query))),
            "match_true_false": lambda shown, query: _sure(_matches(shown[0], wanted(query))),
            "true_false_image": lambda shown, query: _sure(_matches(shown[0], wanted(query))),
            "true_false_change": lambda shown, query: _sure(_matches(shown[0], wanted(query))),
            "true_false_change_reference": lambda shown, query: _sure(_matches(shown[1], _changed(shown[0], query))),
            "reason_yes_no": lambda shown, query: _sure(_matches(shown[0], wanted(query))),
            "evaluate_reference": lambda shown, query: _sure(_matches(shown[1], _changed(shown[0], query))),
            "compare_pair": lambda shown, query: _best(shown, wanted(query)),
            "compare_set": lambda shown, query: _best(shown, wanted(query)),
            "compare_pair_reference": lambda shown, query: _best(shown[1:], _changed(shown[0], query)),
            "compare_set_reference": lambda shown, query: _best(shown[1:], _changed(shown[0], query)),
            "explain": _reason,
        }
        self._patterns = _patterns()

    def _tell(self, request: LMMRequest) -> Answer:
        question = request.messages[-1].content[-1]
        assert isinstance(question, TextPart), "the question comes last"
        for (_, name), pattern in self._patterns.items():
            if name not in self._answers or name == ("explain" if request.top_logprobs else "reason_yes_no"):
                continue  # these two are worded alike
            if asked := pattern.fullmatch(question.text):
                shown = [self._shows[image.sha256] for image in request.images]
                return self._answers[name](shown, **asked.groupdict())
        return LMMRequestError(f"no shipped prompt asks {question.text!r}")


class OracleScorer:
    """A scoring model that knows the same: the share of the wanted facts that a picture shows, or whether it shows the
    one that a predicate asks about. It has no score for the pictures in `refuses`, by their hashes."""

    fingerprint = "oracle scorer"

    def __init__(self, shows: Mapping[str, Collection[str]], refuses: Collection[str] = ()) -> None:
        self._shows = shows
        self._refuses = refuses
        self.texts: list[str] = []

    def score(self, inputs: QueryInputs, documents: Sequence[Document]) -> list[float | None]:
        self.texts += [inputs.text] * len(documents)
        return [self._score(inputs, document) for document in documents]

    def _score(self, inputs: QueryInputs, document: Document) -> float | None:
        assert isinstance(document, PILImage.Image)
        if (sha256 := fingerprint_pixels(document)) in self._refuses:
            return None
        shown = self._shows[sha256]
        if asked := _QUESTION.search(inputs.text):
            return 4.0 if asked[1] in shown else -4.0
        wants = wanted(inputs.text)
        if inputs.image is not None:
            wants = _changed(self._shows[fingerprint_pixels(inputs.image)], inputs.text)
        return satisfied(shown, wants) / len(wants)


@dataclass(frozen=True)
class Case:
    """A query with its candidates and those of them that match."""

    query: Query
    candidates: tuple[Candidate, ...]
    relevant: frozenset[str]


def paint(folder: Path) -> FolderCollection:
    """`00.png` to `31.png`, one picture for every set of facts, each of a colour of its own."""
    for n in range(2 ** len(FACTS)):
        image_id = f"{n:02}.png"
        (folder / image_id).write_bytes(_painted(image_id).png)
    return FolderCollection(folder)


@dataclass(frozen=True)
class _Painted:
    """A picture as a file, and the hash of its pixels."""

    png: bytes
    sha256: str


@cache
def _painted(image_id: str) -> _Painted:
    picture, file = PILImage.new("RGB", (8, 8), (8 * int(image_id.removesuffix(".png")), 100, 200)), io.BytesIO()
    picture.save(file, "PNG")
    return _Painted(file.getvalue(), fingerprint_pixels(picture))


def facts_of(image_id: str) -> frozenset[str]:
    """What a painted picture shows."""
    number = int(image_id.removesuffix(".png"))
    return frozenset(fact for bit, fact in enumerate(FACTS) if number >> bit & 1)


def oracle_of(images: FolderCollection) -> Oracle:
    """An oracle of painted pictures."""
    return Oracle({_painted(image_id).sha256: facts_of(image_id) for image_id in images.ids()})


def oracle_scorer(images: FolderCollection, refuses: Collection[str] = ()) -> OracleScorer:
    """A scoring model of painted pictures, without a score for those that `refuses` names."""
    shows = {_painted(image_id).sha256: facts_of(image_id) for image_id in images.ids()}
    return OracleScorer(shows, {_painted(image_id).sha256 for image_id in refuses})


def scorer_of(images: FolderCollection) -> ImageScorer:
    """The same as the agent uses it."""
    return ImageScorer(CachedScorer(oracle_scorer(images), MemoryStore(), images), images)


def draw_cases(count: int, seed: int = 0, candidates: int = 16) -> list[Case]:
    """Text, composed and dialogue queries in turn, with at least one match each and priors that know a little."""
    rng = random.Random(seed)
    cases: list[Case] = []
    while len(cases) < count:
        number = len(cases)
        draw = (_text, _composed, _dialogue)[number % 3]
        query, wants = draw(f"q{number:02}", rng)
        pool = [f"{n:02}.png" for n in range(2 ** len(FACTS))]
        ids = rng.sample([image_id for image_id in pool if image_id != query.reference_image], candidates)
        relevant = frozenset(image_id for image_id in ids if _matches(facts_of(image_id), wants))
        if relevant:
            priors = (satisfied(facts_of(image_id), wants) / len(wants) + rng.gauss(0, 0.4) for image_id in ids)
            cases.append(Case(query, tuple(map(Candidate, ids, priors)), relevant))
    return cases


def _text(id: str, rng: random.Random) -> tuple[Query, Wants]:
    text = _some(rng, 3)
    return Query(id=id, text=text), wanted(text)


def _composed(id: str, rng: random.Random) -> tuple[Query, Wants]:
    """Add a fact to a reference that shows two, and perhaps take one of them away."""
    one, other, new = rng.sample(FACTS, 3)
    number = sum(1 << FACTS.index(fact) for fact in (one, other))
    text = new if rng.random() < 0.5 else f"{new}, no {one}"
    return Query(id=id, text=text, reference_image=f"{number:02}.png"), _changed((one, other), text)


def _dialogue(id: str, rng: random.Random) -> tuple[Query, Wants]:
    said = _some(rng, 3)
    caption, *answers = said.split(", ")
    rounds = tuple(Turn(question="what else?", answer=answer) for answer in answers)
    return Query(id=id, text=caption, dialogue=rounds), wanted(said)


def _some(rng: random.Random, count: int) -> str:
    first, *others = rng.sample(FACTS, count)
    return ", ".join([first, *(fact if rng.random() < 0.5 else f"no {fact}" for fact in others)])


@cache
def _patterns() -> dict[tuple[str, str], re.Pattern[str]]:
    """Set and prompt -> what its rendered text looks like, those with most words of their own first: some end alike."""
    patterns = {}
    own_words = {}
    for prompt_set in list_sets():
        for name in list_prompts(prompt_set):
            parts = _PLACEHOLDER.split(load_prompt(name, prompt_set).template)
            own_words[prompt_set, name] = sum(map(len, parts[::2]))
            shape = [f"(?P<{part}>.+)" if at % 2 else re.escape(part) for at, part in enumerate(parts)]
            patterns[prompt_set, name] = re.compile("".join(shape), re.DOTALL)
    return {key: patterns[key] for key in sorted(patterns, key=lambda key: -own_words[key])}


def read_as(said: str) -> str:
    """The answer of a model that thinks out a request for what was `said`."""
    wants = wanted(said)
    words = {fact: fact if there else f"no {fact}" for fact, there in wants.items()}
    everything = ", ".join(words.values())
    instructions = [
        {"text": fact, "words": words[fact], "type": "addition" if there else "removal"}
        for fact, there in wants.items()
    ]
    descriptions = dict.fromkeys(("core", "detailed", "comprehensive"), everything)
    return json.dumps({"thought": "as it says.", **descriptions, "instructions": instructions})


def _synthesis(shown: Sequence[Collection[str]], request: str) -> str:
    return read_as(", ".join("".join(said) for said in _SAID.findall(request)))


def _predicates(shown: Sequence[Collection[str]], instructions: str) -> str:
    predicates = [
        {
            "question": f"is there {fact}?",
            "expected": "no" if operation == "removal" else "yes",
            "words": words,
            "type": "absence" if operation == "removal" else "context",
        }
        for operation, fact, words in _INSTRUCTION.findall(instructions)
    ]
    return json.dumps({"predicates": predicates})


def _joint(shown: Sequence[Collection[str]], questions: str) -> LMMResponse:
    truths = [
        _matches(shown[0], wanted(asked["query"])) if asked["query"] else asked["fact"] in shown[0]
        for asked in _IN_JOINT.finditer(questions)
    ]
    answers = ["yes" if truth else "no" for truth in truths]
    pieces = ['{"answers": ["', *[piece for answer in answers for piece in (answer, '", "')][:-1], '"]}']
    tokens = tuple(_written(piece) for piece in pieces)
    return LMMResponse(
        text="".join(pieces), tokens=tokens, usage=Tokens(prompt_tokens=10, completion_tokens=len(pieces))
    )


def _written(piece: str) -> AnswerToken:
    """A token; one that is an answer is as sure as a single answer."""
    other = {"yes": "no", "no": "yes"}.get(piece)
    said = TokenLogprob(token=piece, logprob=math.log(SURE) if other else 0.0)
    rest = (TokenLogprob(token=other, logprob=math.log(1 - SURE)),) if other else ()
    return AnswerToken(text=piece, logprob=said.logprob, alternatives=(said, *rest))


def _reason(shown: Sequence[Collection[str]], query: str) -> str:
    says = "yes" if _matches(shown[0], wanted(query)) else "no"
    return f"{says}. it shows {', '.join(sorted(shown[0])) or 'nothing'}."


def _holds(shown: Collection[str], question: str) -> bool:
    asked = _QUESTION.fullmatch(question)
    assert asked is not None, question
    return asked[1] in shown


def _matches(shown: Collection[str], wants: Wants) -> bool:
    return satisfied(shown, wants) == len(wants)


def _changed(reference: Collection[str], change: str) -> Wants:
    return wanted(", ".join([*sorted(reference), change]))


def _sure(yes: bool) -> float:
    return SURE if yes else 1 - SURE


def _best(shown: Sequence[Collection[str]], wants: Wants) -> LMMResponse:
    merits = [STRENGTH * satisfied(facts, wants) for facts in shown]
    total = math.log(sum(map(math.exp, merits)))
    said = [TokenLogprob(token=a, logprob=u - total) for a, u in zip(LETTERS, merits, strict=False)]
    said.sort(key=lambda alternative: -alternative.logprob)
    usage = Tokens(prompt_tokens=10 * len(shown), completion_tokens=1)
    return LMMResponse(text=said[0].token, answer_logprobs=tuple(said), usage=usage)
