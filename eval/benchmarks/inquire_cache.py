"""INQUIRE's published answers of LMMs (arXiv 2411.02537): NumPy files that hold a pickled dictionary.

Its keys are an image's file name, `--` and the prompt; its values P(yes), the chat completions of the GPT runs, or in
those the HTTP response of a request that the server refused. Nothing in such a file is ever run
(`fieldscope.eval.benchmarks.inert_pickle`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.lib import format as npy

from fieldscope.agent.lmm.base import TokenLogprob
from fieldscope.agent.lmm.yes_no import MAX_LOG_ODDS, p_yes
from fieldscope.core.errors import BenchmarkError
from fieldscope.eval.benchmarks.inert_pickle import NUMPY, Array, Inert, Reader, read_inert

Scoring = Literal["official", "fieldscope"]
"""How an answer becomes a number. `fieldscope`: P(yes) from all spellings of yes and no, strictly between 0 and 1.
`official`, as INQUIRE's scripts have it: from the tokens `Yes` and `No` alone, exactly 0 without the one, exactly 1
without the other, and 0 for a request that was refused."""

SEPARATOR = "--"

_LEAST = 1.0 / (1.0 + 2.718281828459045**MAX_LOG_ODDS)
_REFUSED = 400  # the HTTP status that INQUIRE's script takes for a "no"
_OF_A_RESPONSE = frozenset({"requests", "urllib3", "http", "datetime", "collections"})


def read_published_cache(path: Path, scoring: Scoring = "fieldscope") -> dict[str, float | None]:
    """The number of each answer by its key; None for an answer that can't be read, or was refused.

    Raises `BenchmarkError` for a file that is no such cache, holds anything but plain values, or is too large.
    """
    answers = read_inert(path, _dictionary, "a cache of answers")
    read = _official if scoring == "official" else _ours
    return {key: read(value) for key, value in answers.items()}


@dataclass(frozen=True)
class PublishedAnswers:
    """A number by image file name and query, out of a cache whose prompts are one template around the query's words.

    The file names are without suffix (`image_key`).
    """

    template: tuple[str, str]
    answers: Mapping[tuple[str, str], float | None]

    def prompt(self, query: str) -> str:
        """The prompt that was asked."""
        return query.join(self.template)


def answers_to(cache: Mapping[str, float | None], queries: Collection[str]) -> PublishedAnswers:
    """The answers to these query texts. The template is what most prompts leave when their query is taken out.

    Raises `BenchmarkError` where no prompt has any of the queries in it.
    """
    prompts = Counter(key.partition(SEPARATOR)[2] for key in cache)
    templates: Counter[tuple[str, str]] = Counter()
    for prompt, count in prompts.items():
        for query in queries:
            before, found, after = prompt.partition(query)
            if found:
                templates[before, after] += count
    if not templates:
        raise BenchmarkError(
            "none of the queries occurs in the prompts of these answers. Name the answers to this benchmark."
        )
    (before, after), _ = templates.most_common(1)[0]
    asked = {f"{before}{query}{after}": query for query in queries}
    answers: dict[tuple[str, str], float | None] = {}
    for key, value in cache.items():
        image, _, prompt = key.partition(SEPARATOR)
        if prompt in asked:
            answers[image_key(image), asked[prompt]] = value
    return PublishedAnswers((before, after), answers)


def image_key(file_name: str) -> str:
    """A file's name as answers are looked up by: one copy of the data names it with `.jpg`, another without."""
    return file_name.strip().removesuffix(".jpg")


class _Response(Inert):
    """What stands for `requests.models.Response`: its status, and nothing else."""

    status: Any = None

    def __setstate__(self, state: Any) -> None:
        self.status = state.get("status_code") if isinstance(state, dict) else None


_NAMES = {**NUMPY, ("requests.models", "Response"): _Response}


def _of_a_response(module: str, name: str) -> bool:
    """Whether an object can be a part of a response, such as its headers, its cookies and the request."""
    return module.partition(".")[0] in _OF_A_RESPONSE


def _dictionary(file: BinaryIO) -> dict[str, Any]:
    version = npy.read_magic(file)
    header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
    shape, _, dtype = header(file)
    if shape != () or not dtype.hasobject:
        raise ValueError("it is an array, and no dictionary")
    array = Reader(file, _NAMES, _of_a_response).load()
    items = array.items if isinstance(array, Array) else None
    if not (isinstance(items, list) and len(items) == 1 and isinstance(items[0], dict)):
        raise ValueError("there is no dictionary in it")
    if not all(isinstance(key, str) and SEPARATOR in key for key in items[0]):
        raise ValueError("its keys are not image--prompt")
    return items[0]


def _ours(value: Any) -> float | None:
    if isinstance(value, int | float):
        return min(max(float(value), _LEAST), 1.0 - _LEAST) if 0.0 <= value <= 1.0 else None
    try:
        return p_yes([TokenLogprob(token=token, logprob=logprob) for token, logprob in _tokens(value)]).p_yes
    except (LookupError, TypeError, ValueError):
        return None


def _official(value: Any) -> float | None:
    if isinstance(value, int | float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, _Response):
        return 0.0 if value.status == _REFUSED else None
    try:
        tokens = _tokens(value)
    except (LookupError, TypeError, ValueError):
        return None
    yes, no = ([logprob for token, logprob in tokens if token == word] for word in ("Yes", "No"))
    if not yes:
        return 0.0
    if not no:
        return 1.0
    of_yes, of_no = np.exp(yes).sum(), np.exp(no).sum()
    share = float(of_yes / (of_yes + of_no)) if of_yes + of_no > 0 else math.nan
    return share if math.isfinite(share) else None


def _tokens(completion: Any) -> list[tuple[str, float]]:
    """The first token's alternatives in a chat completion, with their log-probabilities."""
    alternatives = completion["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    return [(str(each["token"]), float(each["logprob"])) for each in alternatives]
