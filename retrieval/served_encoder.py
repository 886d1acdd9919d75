"""An encoder behind `/v1/embeddings` of an OpenAI-compatible server: a multimodal embedder under vLLM, or one of
texts."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from PIL import Image as PILImage

from fieldscope.core.errors import (
    ConfigError,
    ContextLengthError,
    LMMError,
    LMMRequestError,
    LMMResponseError,
    LMMServerError,
    one_line,
)
from fieldscope.core.fingerprint import fingerprint
from fieldscope.core.image_encoding import ImageEncoding
from fieldscope.core.server_facts import WEIGHTS
from fieldscope.retrieval.embedding_forms import FORMS, Form, Recipe, read_vector, recipe_of
from fieldscope.retrieval.encoder import DocumentInputs, QueryInputs, QueryPart, Vectors
from fieldscope.retrieval.progress import Report
from fieldscope.retrieval.server import ModelServer, split_model, status_of

OPTION = "--encoder"
KEY_VARIABLE = "FIELDSCOPE_API_KEY_ENCODER"

IMAGES = ImageEncoding("jpeg", 1024)
"""How pictures travel. Vectors of an index and those of later pictures must be made alike, so this is no setting."""

_ABOUT_FORM = frozenset({None, 400, 405, 415, 422, 500, 501})
"""What a server answers to a form of request that it does not take; None is an error that came with status 200."""

_SAME = 1e-4  # the distance of two vectors of length 1
_BY_LETTERS = 0.2  # of the distance of two pictures: more is no noise of the computation
_WORDS = ("a red crab on a beach", "the roots of an old tree")
_INSTRUCTIONS = ("Find pictures of animals.", "Say how old the building is.")
_SIDE = 64  # pixels of a picture to try


class ServedEncoder:
    """An encoder over HTTP, for any number of threads.

    Each text and each picture is one request, and many are out at once. The form of a request is found out with the
    first one: a conversation (`messages`, as vLLM takes them), whose system part is the instruction and whose user part
    is a text, a picture, or both; or a plain text (`input`) where the server refuses conversations. `note` then says
    so. A server of texts only can't encode pictures, and says so when it is asked to.

    What a vector depends on is asked of the server itself (`fieldscope.core.server_facts`) and is the fingerprint,
    together with the model's name, the length of its vectors, and how pictures are sent. The address is not part of it.
    Methods raise the `LMMError` that fits where the server is not there, or gives no usable vector.
    """

    def __init__(self, server: ModelServer, note: Callable[[str], None] = lambda _: None) -> None:
        self._server = server
        self._note = note
        self._recipe = Recipe()
        self._finding = threading.RLock()
        self._form: Form | None = None
        self._refused = ""  # what the server said of conversations
        self._dim: int | None = None
        self._uses: frozenset[QueryPart] | None = None
        self._sees = False
        self._fingerprint: str | None = None

    @classmethod
    def open(cls, argument: str) -> ServedEncoder:
        """The encoder "openai": `argument` is URL#MODEL. Raises `ConfigError`."""
        return cls(ModelServer(*split_model(argument, OPTION), OPTION, key_variable=KEY_VARIABLE))

    @property
    def fingerprint(self) -> str:
        with self._finding:
            if self._fingerprint is None:
                self._fingerprint = self._identify()
            return self._fingerprint

    @property
    def dim(self) -> int:
        self._found_form()
        assert self._dim is not None
        return self._dim

    @property
    def uses(self) -> frozenset[QueryPart]:
        """The server is asked once. It takes a picture beside words, or an instruction, where the vector shows it."""
        with self._finding:
            if self._uses is None:
                self._uses = self._find_uses()
            return self._uses

    def encode_query(self, inputs: QueryInputs) -> Vectors:
        """One L2-normalised vector, shape (dim,). An instruction that the model does not read is left out. Raises
        `ConfigError` for a reference image that it does not take together with words."""
        instruction = inputs.instruction if inputs.instruction and "instruction" in self.uses else None
        if inputs.image is None:
            return self._embed(inputs.text, None, instruction)
        if "image" not in self.uses:
            raise ConfigError(
                f"the query has a reference image, and {self._named} takes no picture together with words; give an "
                "index that holds the image"
            )
        return self._embed(inputs.text, inputs.image, instruction)

    def encode_images(self, images: Sequence[PILImage.Image], progress: Report | None = None) -> Vectors:
        """L2-normalised vectors, shape (len(images), dim), in the order given. Raises `ConfigError` where the model
        takes no pictures, or they make no difference to it."""
        if not images:
            return np.empty((0, self.dim), dtype=np.float32)
        self._require_sight()
        vectors = self._server.each(lambda image: self._embed("", image), images)
        if progress is not None:
            progress(len(images), len(images))
        return np.stack(vectors)

    def encode_documents(self, documents: Sequence[DocumentInputs]) -> Vectors:
        """L2-normalised vectors, shape (len(documents), dim), of pictures, texts and both, in the order given, without
        an instruction. Raises `ConfigError` as `encode_images` does, and where the model does not take a picture
        together with words."""
        if not documents:
            return np.empty((0, self.dim), dtype=np.float32)
        if any(each.image is not None for each in documents):
            self._require_sight()
        if any(each.image is not None and each.text for each in documents) and "image" not in self.uses:
            raise ConfigError(
                f"a document has a picture and a text, and {self._named} does not take both together; name an embedder "
                "that does with --encoder"
            )
        return np.stack(self._server.each(lambda each: self._embed(each.text, each.image), documents))

    def close(self) -> None:
        """Close the connections."""
        self._server.close()

    @property
    def _named(self) -> str:
        return f"{self._server.model} at {self._server.url}"

    def _embed(self, text: str, image: PILImage.Image | None = None, instruction: str | None = None) -> Vectors:
        return self._embed_url(text, IMAGES.data_url(image) if image is not None else None, instruction)

    def _embed_url(self, text: str, url: str | None, instruction: str | None = None) -> Vectors:
        vector = self._ask(self._found_form(), text, url, instruction)
        self._require_length(vector, self._dim)
        return vector

    def _ask(self, form: Form, text: str, url: str | None = None, instruction: str | None = None) -> Vectors:
        body = form.body(self._server.model, self._recipe, text, url, instruction)
        return read_vector(self._server.post(self._path, body), self._server.url)

    def _require_length(self, vector: Vectors, dim: int | None) -> None:
        """Raise `LMMResponseError` for a vector that is not as long as those before."""
        if vector.size != dim:
            raise LMMResponseError(
                f"{self._server.url} gave a vector of {vector.size} numbers after some of {dim}; check that a single "
                "model is served under this name, and start again"
            )

    @property
    def _path(self) -> str:
        if self._server.endpoint == "embeddings":
            return ""
        return "/embeddings" if self._server.has_path else "/v1/embeddings"

    def _identify(self) -> str:
        facts, form = self._server.facts(), self._found_form()
        if not facts.keys() & set(WEIGHTS):
            self._note(
                f"{self._server.url} does not report which weights it serves as {self._server.model}; make the index "
                "again whenever they change under that name"
            )
        return fingerprint(
            {
                "kind": "embeddings",
                "model": self._server.model,
                "facts": dict(facts),
                "dim": self._dim,
                "images": IMAGES.name,
                "messages": form.messages,
                "instruction": self._recipe.instruction,
                "padding": self._recipe.padding,
            }
        )

    def _found_form(self) -> Form:
        with self._finding:
            if self._form is None:
                self._recipe = recipe_of(self._server.model, self._server.facts().get("root", ""))
                self._form, self._dim = self._find_form()
                if not self._form.messages:
                    self._note(f"{self._named} encodes texts only: the server refuses `messages` ({self._refused})")
            return self._form

    def _find_form(self) -> tuple[Form, int]:
        """The first form that the server takes, and the length of its vectors. Raises the refusal of a plain text where
        it takes none, and `LMMResponseError` where two texts have the same vector."""
        refusal: LMMError | None = None
        for form in FORMS:
            try:
                first, second = (self._ask(form, words) for words in _WORDS)
            except (LMMRequestError, LMMServerError) as error:
                if isinstance(error, ContextLengthError) or status_of(error) not in _ABOUT_FORM:
                    raise
                refusal = error
                self._refused = self._refused or one_line(error, 160)
                continue
            self._require_length(second, first.size)
            if _same(first, second):
                raise LMMResponseError(
                    f"{self._named} gives different texts the same vector; check the model and its chat template"
                )
            return form, first.size
        assert refusal is not None
        raise refusal

    def _find_uses(self) -> frozenset[QueryPart]:
        try:
            self._require_sight()
        except ConfigError:
            return frozenset({"text"})
        words, picture = _WORDS[0], _pictures()[0]
        both = self._try(words, picture)
        if both is None or _same(both, self._embed(words)) or _same(both, self._embed("", picture)):
            return frozenset({"text"})  # a model without conversations, to which an instruction would be a caption
        first, second = (self._try(words, None, instruction) for instruction in _INSTRUCTIONS)
        if first is None or second is None or _same(first, second):
            return frozenset({"text", "image"})
        return frozenset({"text", "image", "instruction"})

    def _try(self, text: str, image: PILImage.Image | None, instruction: str | None = None) -> Vectors | None:
        """The vector of an input that not every model takes; None where this one takes a plain text and not that."""
        try:
            return self._embed(text, image, instruction)
        except (LMMRequestError, LMMServerError):
            self._embed(text)  # the server is there
            return None

    def _require_sight(self) -> None:
        """Raise `ConfigError`, once and for all pictures, where the model does not take them or does not see them."""
        if self._sees:
            return
        with self._finding:
            if not self._found_form().messages:
                raise ConfigError(
                    f"{self._named} takes no pictures: the server refuses `messages` ({self._refused}); name a "
                    "multimodal embedder with --encoder"
                )
            try:
                grey, noise = (self._embed("", picture) for picture in _pictures())
                again = self._embed_url("", _in_other_letters(_pictures()[0]))
            except LMMRequestError as error:
                if status_of(error) not in _ABOUT_FORM:
                    raise
                raise ConfigError(
                    f"{self._named} takes no pictures ({one_line(error, 160)}); name a multimodal embedder with "
                    "--encoder"
                ) from error
            if _same(grey, noise):
                raise ConfigError(
                    f"{self._named} gives different pictures the same vector; check that its chat template has a place "
                    "for pictures"
                )
            if _distance(grey, again) > _BY_LETTERS * _distance(grey, noise):
                raise ConfigError(
                    f"{self._named} reads the letters of a picture's data URL as text: it gives the same pixels in "
                    "another PNG file another vector; check its chat template"
                )
            self._sees = True


def _distance(first: Vectors, second: Vectors) -> float:
    return float(np.linalg.norm(first - second))


def _same(first: Vectors, second: Vectors) -> bool:
    return _distance(first, second) < _SAME


@cache
def _pictures() -> tuple[PILImage.Image, PILImage.Image]:
    """A grey picture and one of noise."""
    noise = np.random.default_rng(0).integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8)
    return PILImage.new("RGB", (_SIDE, _SIDE), (128, 128, 128)), PILImage.fromarray(noise)


def _in_other_letters(image: PILImage.Image) -> str:
    """The same pixels as `IMAGES` sends of a small image, in a PNG file that is compressed more."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=9)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
