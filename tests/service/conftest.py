"""FieldNotes with a dozen pictures, a model that knows the truth about them, and a small OpenAI-compatible server.

Modules that take functions from `service.wiring.models` are imported here: first imported in a test that puts something
else there, they would keep that for all tests that follow.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image as PILImage
from PIL import ImageStat

import fieldscope.fieldnotes.collection
import fieldscope.fieldnotes.vocabulary
import fieldscope.service.wiring.bundled
import fieldscope.service.wiring.datasets
import fieldscope.service.wiring.fieldnotes
import fieldscope.service.wiring.inquire
import fieldscope.service.wiring.models
import fieldscope.service.wiring.priors
import fieldscope.service.workflows.caption
import fieldscope.service.workflows.index
import fieldscope.service.workflows.models
from fieldscope.agent.lmm.base import LMM, LMMRequest
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.agent.lmm.server_profile import forget_profiles
from fieldscope.core.fingerprint import fingerprint_pixels
from fieldscope.core.types import ImageSource
from fieldscope.fieldnotes.collection import split_checksum
from fieldscope.fieldnotes.facts import Part, Spec
from fieldscope.fieldnotes.queries import BenchmarkQuery, Split
from fieldscope.fieldnotes.render import render
from fieldscope.fieldnotes.scene import Group, Scene
from fieldscope.retrieval.collection import FolderCollection
from fieldscope.retrieval.encoder import Encoder
from fieldscope.service.cli.console import Terminal
from fieldscope.service.cli.main import cli
from fieldscope.service.wiring.bundled import bundled_folder
from fieldscope.service.wiring.feedback import listening

MODELS = fieldscope.fieldnotes.vocabulary.MODELS
CLIP = MODELS / "clip"
BUNDLED_LMM = fieldscope.service.wiring.models.bundled_lmm
CRABS, OWL, FOX, TURTLE = (
    "two red crabs on a beach in the rain",
    "a sleeping white owl in the woods",
    "a black fox in the snow",
    "a green turtle tangled in a fishing net",
)
SCENES = {
    str(number): Scene(habitat, weather, (group,), seed=number)
    for number, (habitat, weather, group) in enumerate(
        (
            ("beach", "rain", Group("crab", "red", 2)),
            ("beach", "rain", Group("crab", "red", 2, item="litter")),
            ("beach", "rain", Group("crab", "blue", 2)),
            ("beach", "clear", Group("crab", "red", 2)),
            ("forest", "clear", Group("owl", "white", 1, pose="sleeping")),
            ("forest", "night", Group("owl", "white", 1, pose="sleeping")),
            ("forest", "clear", Group("owl", "white", 1)),
            ("snow", "clear", Group("fox", "black", 1)),
            ("snow", "clear", Group("fox", "orange", 1)),
            ("reef", "clear", Group("turtle", "green", 1, item="net")),
            ("reef", "clear", Group("turtle", "green", 1)),
            ("pond", "clear", Group("duck", "yellow", 3)),
        ),
        start=1,
    )
}
RELEVANT = {CRABS: {"1", "2"}, OWL: {"5", "6"}, FOX: {"8"}, TURTLE: {"10"}}
_QUERIES = (
    (CRABS, "Appearance", Part("crab", "red", 2)),
    (OWL, "Behavior", Part("owl", "white", pose="sleeping")),
    (FOX, "Species", Part("fox", "black")),
    (TURTLE, "Context", Part("turtle", "green", item="net")),
)
SPLIT = Split(
    "test",
    SCENES,
    tuple(
        BenchmarkQuery(f"t{n:03d}", text, Spec(part), group, "a category")
        for n, (text, group, part) in enumerate(_QUERIES)
    ),
    {f"t{n:03d}": frozenset(RELEVANT[text]) for n, (text, *_) in enumerate(_QUERIES)},
)

Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    """`run("eval", path, ...)` is the command line in this process; nothing of a traceback may be in what it prints."""

    def invoke(*args: object) -> Result:
        result = CliRunner().invoke(cli, [str(arg) for arg in args])
        assert "Traceback" not in result.output
        return result

    return invoke


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures as files, rendered once for all tests."""
    folder = tmp_path_factory.mktemp("fieldnotes") / "test"
    folder.mkdir()
    for image_id, scene in SCENES.items():
        render(scene).save(folder / f"{int(image_id):06d}.png")
    return folder


@cache
def bundled_clip() -> Encoder:
    """The bundled CLIP, loaded once for all tests, through which each picture and each text goes once."""
    import torch

    from fieldscope.retrieval.clip import ClipEncoder

    seen: dict[str, torch.Tensor] = {}

    def remembered(
        keys: Sequence[str], inputs: Sequence[Any], compute: Callable[[list[Any]], torch.Tensor]
    ) -> torch.Tensor:
        new = {key: each for key, each in zip(keys, inputs, strict=True) if key not in seen}
        if new:
            seen.update(zip(new, compute(list(new.values())), strict=True))
        return torch.stack([seen[key] for key in keys])

    class Remembering(ClipEncoder):
        def _image_features(self, images: Sequence[PILImage.Image]) -> torch.Tensor:
            return remembered([fingerprint_pixels(image) for image in images], images, super()._image_features)

        def _text_features(self, texts: Sequence[str]) -> torch.Tensor:
            return remembered([f"text: {text}" for text in texts], texts, super()._text_features)

    return Remembering.load(str(CLIP))


def open_clip(argument: str = "") -> Encoder:
    """What opens the bundled CLIP, where this test's installation has it."""
    bundled_folder("clip")
    return bundled_clip()


@dataclass(frozen=True)
class World:
    """Where the pictures are, by whose file names they go; and what the model was asked."""

    pictures: Path
    cache: Path
    asked: list[LMMRequest] = field(default_factory=list)


@pytest.fixture(scope="session")
def pixel_hashes(rendered: Path) -> dict[str, str]:
    """The hash of each picture's pixels, by its id in FieldNotes."""
    pictures = FolderCollection(rendered)
    return {str(int(Path(name).stem)): pictures.pixel_hash(name) for name in pictures.ids()}


@pytest.fixture
def world(
    rendered: Path, pixel_hashes: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """A cache folder with FieldNotes in it, the real bundled CLIP, a truthful LMM, and an empty working folder.

    The LMM can't think: a request without an image gets an answer that nobody can read.
    """
    cache = tmp_path / "cache"
    shutil.copytree(rendered, cache / "fieldnotes" / "test")
    monkeypatch.setenv("FIELDSCOPE_CACHE", str(cache))
    monkeypatch.setattr(fieldscope.fieldnotes.collection, "load_split", lambda name: SPLIT)
    checksum = split_checksum(pixel_hashes)
    monkeypatch.setattr(fieldscope.fieldnotes.collection, "published_checksums", lambda: {"test": checksum})
    (cache / "fieldnotes" / "test" / "verified.sha256").write_text(checksum, encoding="utf-8")

    models = tmp_path / "models"
    (models / "lmm").mkdir(parents=True)
    (models / "clip").symlink_to(CLIP)
    words = (CLIP / "vocabulary.txt").read_text(encoding="utf-8")
    (models / "lmm" / "vocabulary.txt").write_text(words.replace("purple\n", ""), encoding="utf-8")
    monkeypatch.setattr(fieldscope.fieldnotes.vocabulary, "MODELS", models)
    fieldscope.fieldnotes.vocabulary.known_words.cache_clear()

    made = World(cache / "fieldnotes" / "test", cache)
    truth = {pixel_hashes[image_id]: {text for text, ids in RELEVANT.items() if image_id in ids} for image_id in SCENES}

    def truthful(images: ImageSource) -> LMM:
        def answer(request: LMMRequest) -> float | str:
            made.asked.append(request)
            if not request.images:
                return "?"
            matches = truth.get(request.images[0].sha256, set())
            return 0.9 if any(text in request.text for text in matches) else 0.1

        return ScriptedLMM(answer, identity="truthful")

    monkeypatch.setattr(fieldscope.service.wiring.models, "bundled_lmm", truthful)
    monkeypatch.setattr(fieldscope.service.wiring.bundled, "open_encoder", open_clip)
    monkeypatch.chdir(tmp_path)
    yield made
    fieldscope.fieldnotes.vocabulary.known_words.cache_clear()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Somebody's own pictures: `red.png`, `blue.png`, `below/red.png`, and one that is broken."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    PILImage.new("RGB", (40, 30), "#e01010").save(folder / "red.png")
    PILImage.new("RGB", (40, 30), "#1010e0").save(folder / "blue.png")
    PILImage.new("RGB", (40, 30), "#c02020").save(folder / "below" / "red.png")
    (folder / "broken.png").write_bytes(b"\x89PNG no more")
    return folder


Answer = tuple[int, str]


def redness(body: dict[str, Any]) -> Answer:
    """A chat completion that says yes to red pictures, with log-probabilities."""
    url = next(part["image_url"]["url"] for part in body["messages"][-1]["content"] if part["type"] == "image_url")
    with PILImage.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
        red, _, blue = ImageStat.Stat(image).mean
    likely, other = ("Yes", "No") if red > blue else ("No", "Yes")
    top = [{"token": likely, "logprob": -0.1 - blue / 1000}, {"token": other, "logprob": -2.4}]
    return 200, completion(likely, {"content": [{**top[0], "top_logprobs": top}]})


def completion(text: str, logprobs: Any = None) -> str:
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop", "logprobs": logprobs}
    usage = {"prompt_tokens": 70, "completion_tokens": 1}
    return json.dumps({"choices": [choice], "usage": usage})


@dataclass
class Server:
    """A server on loopback. `answer` makes the reply to a chat completion; `models` is the reply to a model list."""

    url: str = ""
    answer: Callable[[dict[str, Any]], Answer] = redness
    models: Answer = (200, json.dumps({"data": [{"id": "vl", "root": "org/vl"}]}))
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def serving(made: Server) -> Iterator[Server]:
    """The server, while it listens."""
    forget_profiles()  # a port may be used again

    class Handler(BaseHTTPRequestHandler):
        disable_nagle_algorithm = True  # else each answer waits 40 ms for the client's acknowledgement

        def do_GET(self) -> None:
            self._reply(made.models)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            made.bodies.append(body)
            self._reply(made.answer(body))

        def _reply(self, answer: Answer) -> None:
            made.headers.append({name.lower(): value for name, value in self.headers.items()})
            status, text = answer
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    class Http(ThreadingHTTPServer):
        request_queue_size = 64  # of calls that arrive at once, none waits for a second try

    http = Http(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{http.server_port}"
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    yield made
    http.shutdown()
    http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Server()) as made:
        yield made


@pytest.fixture
def nobody() -> str:
    """The address of a port where nothing listens."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as http:
        port = http.server_port
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def terminal() -> Iterator[None]:
    """A terminal that listens, as it does to commands: what a workflow says goes to standard error."""
    with listening(Terminal()):
        yield
