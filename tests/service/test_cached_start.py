"""What was asked before is answered again without loading a model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image as PILImage

from fieldscope.core.errors import ConfigError
from fieldscope.fieldnotes.vocabulary import MODELS
from fieldscope.retrieval.clip import ClipEncoder
from fieldscope.retrieval.encoder import QueryInputs
from fieldscope.service.cli.main import cli
from fieldscope.service.wiring.kept_encoders import FILE, kept_encoder
from fieldscope.service.wiring.settings import Settings

RED, BLUE = (PILImage.new("RGB", (40, 30), colour) for colour in ("#e01010", "#1010e0"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDSCOPE_CACHE", str(tmp_path / "cache"))


def test_a_cached_search_and_a_cached_rerank_load_no_model(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, image in (("red", RED), ("blue", BLUE)):
        image.save(photos / f"{name}.png")
    index = str(tmp_path / "index")
    asked = ["--query", "a red fox", "--strategy", "yes-no", "--json"]
    commands = [["search", "--index", index, "--rerank", *asked], ["rerank", "--images", str(photos), *asked]]
    first = [
        CliRunner().invoke(cli, ["index", str(photos), "-o", index]),
        *(CliRunner().invoke(cli, c) for c in commands),
    ]
    assert [done.exit_code for done in first] == [0, 0, 0], [done.output for done in first]

    code = (
        "import json, sys\n"
        "from fieldscope.service.cli.main import cli\n"
        "for command in json.loads(sys.argv[1]):\n"
        "    cli(command, standalone_mode=False)\n"
        "print(json.dumps(sorted({'torch', 'open_clip', 'transformers', 'torchvision'} & set(sys.modules))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(commands)], capture_output=True, text=True, check=True
    )
    decoder, said, values = json.JSONDecoder(), done.stdout.strip(), []
    while said:
        value, end = decoder.raw_decode(said)
        values.append(value)
        said = said[end:].strip()
    assert values[2] == []
    for before, again in zip(first[1:], values[:2], strict=True):
        assert again["ranking"] == json.loads(before.stdout)["ranking"]
        assert again["cost"]["cache_hits"] == again["cost"]["calls"] > 0


def test_an_encoder_is_loaded_for_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    fox = kept_encoder(Settings()).encode_query(QueryInputs("a fox"))
    pictures = kept_encoder(Settings(), images=True).encode_images([RED, BLUE])
    real = ClipEncoder.load(str(MODELS / "clip"))
    loaded: list[str] = []
    monkeypatch.setattr(ClipEncoder, "load", staticmethod(lambda name: loaded.append(name) or real))
    again = kept_encoder(Settings(), images=True)
    assert (again.fingerprint, again.dim, again.uses) == (real.fingerprint, real.dim, real.uses)
    assert (again.encode_query(QueryInputs("a fox")) == fox).all()
    assert (again.encode_images([BLUE, RED, BLUE]) == pictures[[1, 0, 1]]).all()
    assert not loaded
    assert (again.encode_query(QueryInputs("an owl")) == real.encode_query(QueryInputs("an owl"))).all()
    assert len(loaded) == 1
    kept_encoder(Settings(cache_mode="off")).encode_query(QueryInputs("a fox"))
    assert len(loaded) == 2, "without the cache nothing is kept"


def test_an_encoder_that_is_not_the_known_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept_encoder(Settings())
    real = ClipEncoder.load(str(MODELS / "clip"))
    monkeypatch.setattr(ClipEncoder, "fingerprint", property(lambda self: "0" * 64))
    monkeypatch.setattr(ClipEncoder, "load", staticmethod(lambda name: real))
    with pytest.raises(ConfigError, match=r"the encoder changed.*Remove"):
        kept_encoder(Settings()).encode_query(QueryInputs("a fox"))


def test_a_damaged_file_of_vectors_is_no_obstacle(tmp_path: Path) -> None:
    fox = kept_encoder(Settings()).encode_query(QueryInputs("a fox"))
    (tmp_path / "cache" / FILE).write_bytes(b"no database")
    assert (kept_encoder(Settings()).encode_query(QueryInputs("a fox")) == fox).all()
