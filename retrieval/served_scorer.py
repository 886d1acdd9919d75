"""A scoring model behind a server: vLLM's, Jina's, Cohere's, and any other that answers like one of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image as PILImage

from fieldscope.core.errors import ConfigError, LMMError, LMMRequestError, LMMResponseError, LMMServerError, one_line
from fieldscope.core.fingerprint import fingerprint_pixels
from fieldscope.core.image_encoding import ImageEncoding
from fieldscope.core.server_failure import BUSY, KEY_REFUSED
from fieldscope.retrieval.encoder import Encoder, QueryInputs
from fieldscope.retrieval.lru import ByteLru
from fieldscope.retrieval.rerank_forms import Form, forms, read_scores, read_tokens
from fieldscope.retrieval.scorer import Document, PairScore
from fieldscope.retrieval.server import ModelServer, split_model, status_of

OPTION = "--scorer"
KEY_VARIABLE = "FIELDSCOPE_API_KEY_SCORER"

_ABSENT = frozenset({404, 405, 501})
_FINAL = KEY_REFUSED | _ABSENT
_KEPT_BYTES = 64_000_000
_PROBE = QueryInputs("a red crab")
_PROBE_SIDE = 64  # pixels
_SLACK = 32  # tokens; the letters of the noise are thousands, or as many as a server reads before it cuts a text off


@dataclass(frozen=True)
class Found:
    """What is known of a server: the form in which it takes pictures, or texts only. Where it was `asked` just now, and
    not remembered: whether the tokens that it counts prove that it reads pictures as such (`counts_tokens`; it may
    count none), and whether it gave two pictures that have nothing in common different scores (`tells_apart`)."""

    form: Form
    asked: bool = False
    counts_tokens: bool = False
    tells_apart: bool = True


class ServedScorer:
    """A reranker over HTTP, for any number of threads.

    Pictures travel as data URLs, encoded once each and scaled as `encoding` says. The form of a request is found out
    with the first one, from what the server answers to two small pictures (`fieldscope.retrieval.rerank_forms`). A
    server that counts other tokens for a picture of noise than for a grey one of the same size has read the letters of
    the data URL: such a form is not used.

    A request has `per_request` documents: by default one, so that a document's score can't depend on those beside it,
    whatever the model.
    """

    def __init__(
        self, server: ModelServer, encoding: ImageEncoding | None = None, form: Form | None = None, per_request: int = 1
    ) -> None:
        self.server = server
        self.found = Found(form) if form else None
        self.requests = 0
        self._encoding = encoding or ImageEncoding()
        self._per_request = per_request
        self._finding = threading.RLock()
        self._counting = threading.Lock()
        self._encoded: ByteLru[str] = ByteLru(_KEPT_BYTES)
        self._instructed: bool | None = None

    @classmethod
    def open(cls, argument: str, load_encoder: Callable[[], Encoder]) -> ServedScorer:
        """The scorer "openai": `argument` is URL#MODEL. Raises `ConfigError`."""
        return cls(ModelServer(*split_model(argument, OPTION), OPTION, key_variable=KEY_VARIABLE))

    @property
    def fingerprint(self) -> str:
        """The model's name, how images are sent, the form, and what the server tells of its model."""
        form = self.form or self.find_form()
        return self._named(f"{form}*{self._per_request}" if self._per_request > 1 else form)

    def base(self) -> str:
        return self._named()

    @property
    def form(self) -> str | None:
        return str(self.found.form) if self.found else None

    def use_form(self, form: str) -> bool:
        known = next((each for each in self._forms() if str(each) == form), None)
        if known is not None:
            self.found = Found(known)
        return known is not None

    def find_form(self) -> str:
        """Raises the `LMMError` that fits where the server takes none."""
        with self._finding:
            self.found = self.found or self._find()
            return str(self.found.form)

    def score(self, inputs: QueryInputs, documents: Sequence[Document]) -> list[float | None]:
        return [pair.value for pair in self.ask(inputs, documents)]

    def ask(self, inputs: QueryInputs, documents: Sequence[Document]) -> list[PairScore]:
        """One request for each `per_request` documents, many at once. Raises `ConfigError` for a query or documents
        that the server's form has no place for, and the `LMMError` of a server that is not there, or refuses all
        requests whatever is in them."""
        self.find_form()
        assert self.found is not None
        form = self.found.form
        if inputs.instruction:
            self._require_instructions(form, inputs.instruction)
        if inputs.image is not None and form.takes_pictures:
            self._encode(inputs.image)  # before many threads need it
        size = self._per_request
        chunks = [documents[start : start + size] for start in range(0, len(documents), size)]
        pairs = self.server.each(lambda chunk: self._ask_chunk(form, inputs, chunk), chunks)
        return [pair for chunk in pairs for pair in chunk]

    def using(self, form: Form, per_request: int) -> ServedScorer:
        """The same model, asked in this form with so many documents a request."""
        return ServedScorer(self.server, self._encoding, form, per_request)

    def close(self) -> None:
        """Close the connections."""
        self.server.close()

    def _ask_chunk(self, form: Form, inputs: QueryInputs, documents: Sequence[Document]) -> list[PairScore]:
        try:
            return read_scores(self._post(form, inputs, documents), len(documents))
        except (LMMRequestError, LMMResponseError) as error:  # about these documents, unless the status says otherwise
            if status_of(error) in _FINAL:
                raise
            return [PairScore(None, one_line(error))] * len(documents)

    def _post(self, form: Form, inputs: QueryInputs, documents: Sequence[Document], trial: bool = False) -> Any:
        body = form.body(self.server.model, inputs, documents, self._encode)
        with self._counting:
            self.requests += 1
        return self.server.post(form.path, body, trial)

    def _encode(self, document: PILImage.Image | str) -> str:
        """A picture as a data URL, encoded once however many requests show it."""
        if isinstance(document, str):
            return document
        key = fingerprint_pixels(document)
        url = self._encoded.get(key)
        if url is None:
            url = self._encoding.data_url(document)
            self._encoded.put(key, url, len(url))
        return url

    def _named(self, form: str | None = None) -> str:
        facts = ",".join(f"{name}={value}" for name, value in self.server.facts().items())
        return "#".join(part for part in (f"scorer:{self.server.model}", self._encoding.name, form, facts) if part)

    def _forms(self) -> list[Form]:
        return forms(self.server.endpoint, self.server.has_path)

    def _find(self) -> Found:
        """The first form in which the server scores documents. Raises the first refusal where it takes none."""
        absent: dict[str, LMMError] = {}
        refusal: LMMError | None = None
        for form in self._forms():
            if form.path in absent:
                continue
            try:
                if (found := self._try(form)) is not None:
                    return found
            except (LMMRequestError, LMMServerError, LMMResponseError) as error:
                status = status_of(error)
                if status in KEY_REFUSED or status in BUSY:
                    raise
                if status in _ABSENT:
                    absent[form.path] = error
                elif refusal is None or not form.takes_pictures:  # the words about texts are the plainest
                    refusal = error
        if refusal is not None:
            raise refusal
        words = f" ({one_line(next(iter(absent.values())), 160)})" if absent else ""
        raise LMMRequestError(
            f"{self.server.url} scores no documents{words}: check the address and the model in {OPTION}, and that the "
            "server serves a reranker"
        )

    def _try(self, form: Form) -> Found | None:
        """What the server makes of two small documents in this form; None where it reads a picture as text."""
        documents: Sequence[Document] = _probes() if form.takes_pictures else ("a crab on a beach",)
        answers = [self._post(form, _PROBE, [document], trial=True) for document in documents]
        scores = [read_scores(answer, 1)[0] for answer in answers]
        if any(pair.value is None for pair in scores):
            raise LMMResponseError(
                f"{self.server.url} gave no score for a small document ({scores[0].error}); run "
                "`fieldscope doctor --scorer` to see why"
            )
        if not form.takes_pictures:
            return Found(form, asked=True)
        plain, noisy = (read_tokens(answer) for answer in answers)
        counted = plain is not None and noisy is not None
        if plain is not None and noisy is not None and noisy > plain + _SLACK:
            return None
        return Found(form, asked=True, counts_tokens=counted, tells_apart=scores[0].value != scores[1].value)

    def _require_instructions(self, form: Form, instruction: str) -> None:
        """Raise `ConfigError` where the server does not read the instruction: it counts as many tokens without it."""
        with self._finding:
            if self._instructed is None:
                document = ["a crab on a beach"]
                answers = [
                    self._post(form, QueryInputs(_PROBE.text, instruction=words), document)
                    for words in (None, f"{instruction} {instruction}")
                ]
                tokens = [read_tokens(answer) for answer in answers]
                self._instructed = None in tokens or tokens[0] != tokens[1]
        if not self._instructed:
            raise ConfigError(
                f"the scorer {self.server.model} does not read the instruction: its server counts the same tokens "
                "without it. Leave the instruction out, or serve the model with a template that shows it"
            )


@cache
def _probes() -> tuple[PILImage.Image, PILImage.Image]:
    """A grey picture and one of noise, of the same size: the second takes thousands of letters."""
    noise = np.random.default_rng(0).integers(0, 256, (_PROBE_SIDE, _PROBE_SIDE, 3), dtype=np.uint8)
    return PILImage.new("RGB", (_PROBE_SIDE, _PROBE_SIDE), (128, 128, 128)), PILImage.fromarray(noise)
