"""A package installed beside the product adds a part of each kind, for Python and for the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

Environment = dict[str, str]
CommandLine = Callable[..., "Printed"]
EXAMPLE = Path(__file__).parent / "example"
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}

ALL_SIX = """
import asyncio, json, sys
from pathlib import Path
from fieldscope.agent.lmm.backends import LMMS, LMMOptions
from fieldscope.agent.lmm.base import ImagePart, LMMRequest, Message, TextPart
from fieldscope.agent.lmm.cached import CachedLMM
from fieldscope.cache.store import STORES
from fieldscope.core.errors import ConfigError
from fieldscope.core.types import Query, Search
from fieldscope.retrieval.collection import FolderCollection
from fieldscope.retrieval.encoder import ENCODERS, QueryInputs, load_encoder
from fieldscope.retrieval.index import INDEXES
from fieldscope.retrieval.library import build_index, open_library
from fieldscope.retrieval.scorer import SCORERS
from fieldscope.service.wiring.benchmarks import open_workload
from fieldscope.service.wiring.settings import Settings

images, work = Path(sys.argv[1]), Path(sys.argv[2])
encoder = load_encoder("colour-encoder")
build_index(FolderCollection(images), encoder, work / "index", index_kind="list-index")
library = open_library(work / "index", encoder)
benchmark = open_workload("colours:one", None, Settings()).benchmark
red = benchmark.images.load("red")

async def answers():
    store = STORES.load("json-store")(str(work / "python.json"))
    lmm = CachedLMM(LMMS.load("colour-lmm")("x", LMMOptions(benchmark.images)), store)
    image = ImagePart(image_id="red", sha256=benchmark.images.pixel_hash("red"))
    request = LMMRequest(messages=(Message(content=(image, TextPart(text="Is it red?"))),), top_logprobs=2)
    responses = [await lmm.generate(request) for _ in range(2)]
    await lmm.aclose()
    return [(response.text, response.cached) for response in responses]

try:
    ENCODERS.load("broken-encoder")
except ConfigError as error:
    broken = str(error)
print(json.dumps({
    "index": type(library.index).__name__,
    "text": library.search(Search(Query(id="q", text="green"), 1))[0].image_id,
    "reference": library.search(Search(Query(id="q", text="green", reference_image="blue.png"), 2))[0].image_id,
    "similarity": SCORERS.load("similarity")("", lambda: encoder).score(QueryInputs("red"), [red]),
    "score": SCORERS.load("colour-scorer")("3", lambda: encoder).score(QueryInputs("red"), [red]),
    "numpy": len(INDEXES.load("numpy")(["a"], encoder.encode_images([red]))),
    "query": benchmark.queries[0].text,
    "answers": asyncio.run(answers()),
    "broken": broken,
}))
"""

COMMANDS = """
import json, sys
from click.testing import CliRunner
from fieldscope.service.cli.main import cli
for line in sys.stdin:
    arguments, variables = json.loads(line)
    done = CliRunner(env=variables).invoke(cli, arguments)
    print(json.dumps([done.exit_code, done.stdout, done.stderr]), flush=True)
"""


@dataclass(frozen=True)
class Printed:
    """How a command ended, and what it printed."""

    exit_code: int
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """What makes a Python process have the example package beside the product."""
    folder = tmp_path_factory.mktemp("plugins")
    source = shutil.copytree(EXAMPLE, folder / "source")  # a build writes beside its sources
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(folder / "site"), str(source)], check=True, capture_output=True)
    return os.environ | {"PYTHONPATH": str(folder / "site"), "FIELDSCOPE_CACHE": str(folder / "cache")}


@pytest.fixture(scope="module")
def program(environment: Environment) -> Iterator[CommandLine]:
    """The command line in such a process: one for all commands, since each would read torch and its like again."""
    with subprocess.Popen(
        [sys.executable, "-c", COMMANDS], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None

        def run(*arguments: object, **variables: str) -> Printed:
            print(json.dumps([[str(argument) for argument in arguments], variables]), file=process.stdin, flush=True)
            return Printed(*json.loads(process.stdout.readline()))

        yield run
        process.stdin.close()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for name, colour in COLOURS.items():
        Image.new("RGB", (16, 16), colour).save(folder / f"{name}.png")
    return folder


def told(done: Printed) -> Any:
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def test_all_six_in_python(environment: Environment, images: Path, tmp_path: Path) -> None:
    line = [sys.executable, "-c", ALL_SIX, images, tmp_path]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["index"] == "ListIndex" and seen["numpy"] == 1
    assert seen["text"] == "green.png"
    assert seen["reference"] == "green.png"  # the encoder saw the blue image itself
    assert seen["similarity"][0] == pytest.approx(1, abs=0.02)
    assert seen["score"][0] == pytest.approx(3, abs=0.06)
    assert seen["query"] == "one red card"
    assert seen["answers"] == [["Yes", False], ["Yes", True]]
    assert len(json.loads((tmp_path / "python.json").read_text())) == 1
    assert "can't load encoder 'broken-encoder' from the package fieldscope-example-plugins" in seen["broken"]


def test_an_encoder_and_an_index_on_the_command_line(program: CommandLine, images: Path, tmp_path: Path) -> None:
    options = ("--clip", "colour-encoder:card", "--json")
    built = told(program("index", images, "-o", tmp_path, "--index-type", "list-index", *options))
    assert built["indexed"] == 3
    found = told(program("search", "--index", tmp_path, "--query", "blue", *options))
    assert found["ranking"][0]["image"] == "blue.png"
    assert found["models"]["clip"] == "colour-encoder:card"


def test_a_scorer_on_the_command_line(program: CommandLine, images: Path) -> None:
    line = ("rerank", "--query", "green", "--images", images, "--strategy", "clip", "--scorer", "colour-scorer:2")
    seen = told(program(*line, "--json"))
    assert seen["ranking"][0]["image"].endswith("green.png")
    assert seen["models"] == {"clip": "colour-scorer:2", "lmm": None} and seen["flags"] == []


def test_a_benchmark_a_back_end_and_a_store_on_the_command_line(program: CommandLine, tmp_path: Path) -> None:
    store = tmp_path / "answers.json"

    def evaluate(out: str, *more: str) -> Any:
        line = ("eval", "colours:the", "--lmm", "colour-lmm:big", "--strategy", "yes-no", "--out", tmp_path / out)
        return told(program(*line, "--json", *more, FIELDSCOPE_STORE=f"json-store:{store}"))

    (first,) = evaluate("first")["runs"]
    assert first["metrics"]["mAP@50"] == 1.0  # the model put the wrong priors right
    entries = json.loads(store.read_text()).values()
    assert {json.loads(entry["provenance"])["model"] for entry in entries} == {"colours:big"} and len(entries) == 9
    (second,) = evaluate("second", "--replay")["runs"]
    assert second["metrics"] == first["metrics"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (("eval", "colors"), "unknown benchmark 'colors' (did you mean 'colours'?)"),
        (("rerank", "--query", "a", "--images", ".", "--scorer", "color-scorer"), "(did you mean 'colour-scorer'?)"),
    ],
)
def test_an_unknown_name_shows_the_known_ones(
    program: CommandLine, images: Path, line: tuple[str, ...], words: str
) -> None:
    done = program(*(images if each == "." else each for each in line))
    assert done.exit_code != 0
    assert words in " ".join(done.stderr.split()) and "Traceback" not in done.stderr


def test_an_encoder_scores_the_given_candidates_of_a_benchmark(program: CommandLine, tmp_path: Path) -> None:
    line = ("eval", "colours:the", "--strategy", "clip", "--json", "--out", tmp_path)
    (wrong,) = told(program(*line))["runs"]
    (right,) = told(program(*line, "--encoder", "colour-encoder"))["runs"]
    assert wrong["metrics"]["MRR"] < right["metrics"]["MRR"] == 1.0
    assert (right["strategy"], right["prior"]) == ("clip~encoder=colour-encoder", "colour-encoder")
    assert "prior" not in wrong  # the benchmark does not say
