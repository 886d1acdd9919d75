"""What the pages about service and viewer and the files in `deploy/` name is there, and nothing is left out."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from fieldscope.service.cli.main import cli
from fieldscope.service.server.api.metrics import Metrics
from fieldscope.service.server.app import create_app
from fieldscope.service.server.limits import Limits
from fieldscope.service.server.settings import ServerSettings, read_settings, variable_of

ROOT = Path(__file__).resolve().parents[2]
SERVICE, VIEWER = (ROOT / "docs" / name for name in ("service.md", "viewer.md"))
DEPLOY = ROOT / "deploy"
OTHERS = {"FIELDSCOPE_CACHE", "FIELDSCOPE_CONFIG"}
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.S | re.M)


def blocks(page: Path, kind: str) -> Iterator[str]:
    """Fenced code, with continued lines as one."""
    for language, code in FENCED.findall(page.read_text(encoding="utf-8")):
        if language == kind:
            yield code.replace("\\\n", " ")


def inline(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", FENCED.sub("", page.read_text(encoding="utf-8")))


def commands(page: Path) -> Iterator[list[str]]:
    """Every `fieldscope ...` that a page names, as its words behind the program's name."""
    lines = [line for code in blocks(page, "") for line in code.splitlines() if line and "docker " not in line]
    for line in (*lines, *inline(page)):
        called = re.search(r"(?:^|=\S+ |/bin/)fieldscope (.*)", line)
        if called:
            yield shlex.split(called[1], comments=True)


def command(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that these words call, and the words that are left."""
    found: click.Command = cli
    while words and isinstance(found, click.Group):
        inner = found.commands.get(words[0])
        assert inner is not None, f"there is no command {words[0]!r} in {found.name}"
        found, words = inner, words[1:]
    return found, words


def flags_of(found: click.Command) -> set[str]:
    return {flag for option in found.params for flag in option.opts if flag.startswith("--")}


@pytest.mark.parametrize("page", [SERVICE, VIEWER], ids=lambda page: page.name)
def test_every_command_and_flag_is_there(page: Path) -> None:
    named = list(commands(page))
    assert len(named) > 4
    for words in named:
        found, rest = command(words)
        assert {word for word in rest if word.startswith("--")} <= flags_of(found), words


@pytest.mark.parametrize(("page", "name"), [(SERVICE, "serve"), (VIEWER, "view")])
def test_every_flag_of_the_command_is_told_and_no_other(page: Path, name: str) -> None:
    told = {word for code in inline(page) for word in code.replace("\\", " ").split() if word.startswith("--")}
    known = flags_of(cli.commands[name])
    assert told - known <= {"--json"}
    assert known - told == set()


def test_links_lead_somewhere() -> None:
    for page in (SERVICE, VIEWER):
        text = page.read_text(encoding="utf-8")
        headings = {
            re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")
            for heading in re.findall(r"^#+ (.*)", text, re.M)
        }
        for target in re.findall(r"\]\(([^)]+)\)", text):
            path, _, anchor = target.partition("#")
            assert (page.parent / path).exists(), target
            assert path or anchor in headings, target


def test_every_endpoint_metric_and_limit_is_told(tmp_path: Path) -> None:
    text = SERVICE.read_text(encoding="utf-8")
    paths = create_app(ServerSettings(data=tmp_path)).openapi()["paths"]
    for path in paths:
        for part in path.split("/"):
            assert part.startswith("{") or part in text, path
    told = set(re.findall(r"`(fieldscope_[a-z_]+)`", text))
    metrics = Metrics("1")
    families = {family.name + ("_total" if family.type == "counter" else "") for family in metrics.registry.collect()}
    moment = {"fieldscope_calls_at_work", "fieldscope_queue_depth", "fieldscope_jobs"}
    ours = {name for name in families if name.startswith("fieldscope_")} - {"fieldscope_build"}
    assert told == ours | moment | {"fieldscope_build_info"}
    assert all(f"`{limit}`" in text for limit in Limits.model_fields)


def test_every_error_code_that_is_told_is_used() -> None:
    section = SERVICE.read_text(encoding="utf-8").partition("## Errors")[2].partition("\n## ")[0]
    codes = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", section)) | {"deadline"}
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "service").rglob("*.py"))
    assert len(codes) > 20
    assert {code for code in codes if f'"{code}"' not in sources} == set()


def test_examples_of_bodies_are_json() -> None:
    bodies = [body for code in blocks(SERVICE, "") for body in re.findall(r"-d '(.*?)'", code, re.S)]
    assert len(bodies) == 4
    assert all(isinstance(json.loads(body), dict) for body in bodies)
    for code in blocks(SERVICE, "python"):
        compile(code, "docs/service.md", "exec")


def test_the_settings_file_parses_and_changes_nothing() -> None:
    assert read_settings(file=DEPLOY / "fieldscope.toml", environ={}).settings == ServerSettings()


def test_the_settings_file_names_every_setting_with_its_default() -> None:
    lines = (DEPLOY / "fieldscope.toml").read_text(encoding="utf-8").splitlines()
    shown = tomllib.loads("\n".join(line[1:] for line in lines if re.match(r"#[\[a-z]", line)))
    assert shown.keys() == ServerSettings.model_fields.keys()
    assert shown["limits"] == Limits().model_dump()
    read = ServerSettings.model_validate(shown)
    defaults = ServerSettings()
    plain = {
        name for name, field in ServerSettings.model_fields.items() if getattr(defaults, name) not in (None, (), {})
    }
    numbers = {"concurrency", "max_side", "max_pixels", "request_timeout", "attempts"}
    assert {"host", "port", "grace", "strategy", "image_format", "cache_mode", "limits", "profile"} | numbers == plain
    assert all(getattr(read, name) == getattr(defaults, name) for name in plain)


def test_the_unit_waits_longer_than_the_service() -> None:
    unit = (DEPLOY / "fieldscope.service").read_text(encoding="utf-8")
    settings = dict(line.split("=", 1) for line in unit.splitlines() if re.match(r"[A-Z]\w+=", line))
    assert ServerSettings().grace + 10 <= float(settings["TimeoutStopSec"]) <= 90
    program, *words = settings["ExecStart"].split()
    assert program.endswith("/.venv/bin/fieldscope")
    found, rest = command(words)
    assert {word for word in rest if word.startswith("--")} <= flags_of(found)
    assert settings["StateDirectory"] == "fieldscope"
    assert set(re.findall(r"(FIELDSCOPE_\w+)=", settings["Environment"])) == {"FIELDSCOPE_CACHE"}


def test_variables_that_are_named_are_known() -> None:
    known = {variable_of(key) for key in read_settings(environ={}).origins} | OTHERS
    for path in (SERVICE, VIEWER, *DEPLOY.iterdir()):
        named = set(re.findall(r"\bFIELDSCOPE_[A-Z_]*[A-Z]", path.read_text(encoding="utf-8")))
        assert named <= known, path


def test_the_image_checks_its_health_where_it_listens() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    check = json.loads(re.search(r"HEALTHCHECK.*?CMD (\[.*?\])$", text, re.S | re.M)[1])  # type: ignore[index]
    assert check[:2] == ["python", "-c"]
    compile(check[2], "HEALTHCHECK", "exec")
    assert "/healthz" in check[2]
    assert re.search(r"^USER fieldscope$", text, re.M)
    for name in re.findall(r"^!(\S+)$", (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8"), re.M):
        assert (ROOT / name).exists(), name
