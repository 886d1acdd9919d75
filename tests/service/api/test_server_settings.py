from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import pytest
from click.testing import Result

from fieldscope.core.errors import ConfigError
from fieldscope.service.server.settings import FILE, GROUPS, ServerSettings, is_loopback, read_settings


class Run(Protocol):
    def __call__(self, *args: object) -> Result: ...


@pytest.fixture(autouse=True)
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working folder, no configuration of the user's, and none of our variables."""
    import os

    for name in list(os.environ):
        if name.startswith("FIELDSCOPE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_nothing_but_the_defaults_is_needed() -> None:
    told = read_settings({}, environ={})
    assert told.settings == ServerSettings()
    assert set(told.origins.values()) == {"default"}
    assert told.settings.loopback


def test_a_flag_comes_before_a_variable_before_a_file_before_the_default(tmp_path: Path) -> None:
    file = written(
        tmp_path / "any.toml", "port = 1\nstrategy = 'clip'\nmax_side = 5\n[limits]\nat_work = 3\nwaiting = 4"
    )
    environ = {"FIELDSCOPE_PORT": "2", "FIELDSCOPE_STRATEGY": "yes-no", "FIELDSCOPE_LIMITS_AT_WORK": "7"}
    told = read_settings({"port": 3}, file, environ)
    settings, origins = told.settings, told.origins
    assert (settings.port, settings.strategy, settings.max_side, settings.concurrency) == (3, "yes-no", 5, 128)
    assert (settings.limits.at_work, settings.limits.waiting, settings.limits.max_documents) == (7, 4, 1000)
    assert [origins[name] for name in ("port", "strategy", "max_side", "concurrency")] == [
        "--port", "FIELDSCOPE_STRATEGY", str(file), "default",
    ]  # fmt: skip
    assert origins["limits.at_work"] == "FIELDSCOPE_LIMITS_AT_WORK"
    assert origins["limits.waiting"] == str(file)


def test_the_encoder_may_be_set_by_its_old_name(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name in ("encoder", "clip"):
        for model in ("mine", "path:mine"):
            sourced = read_settings({}, written(tmp_path / "any.toml", f"{name} = '{model}'"), {})
            assert sourced.settings.encoder == model.replace("mine", str(tmp_path / "mine"))
            assert sourced.origins["encoder"] == str(tmp_path / "any.toml")
    sourced = read_settings({}, environ={"FIELDSCOPE_CLIP": "ViT-L-14:openai"})
    assert (sourced.settings.encoder, sourced.origins["encoder"]) == ("ViT-L-14:openai", "FIELDSCOPE_CLIP")
    with pytest.raises(ConfigError, match="clip and encoder are one setting; remove clip"):
        read_settings({}, written(tmp_path / "any.toml", "clip = 'a'\nencoder = 'b'"), {})
    with pytest.raises(ConfigError, match="FIELDSCOPE_CLIP and FIELDSCOPE_ENCODER are one setting"):
        read_settings({}, environ={"FIELDSCOPE_CLIP": "a", "FIELDSCOPE_ENCODER": "b"})


def test_a_file_is_found_here_or_in_the_users_folder_or_where_the_variable_says(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    written(tmp_path / "config" / "fieldscope" / FILE, "port = 1")
    assert read_settings({}, environ=environ).settings.port == 1
    written(Path(FILE), "port = 2")
    assert read_settings({}, environ=environ).settings.port == 2
    named = written(tmp_path / "named.toml", "port = 3")
    assert read_settings({}, environ=environ | {"FIELDSCOPE_CONFIG": str(named)}).settings.port == 3


def test_paths_in_a_file_count_from_its_folder(tmp_path: Path) -> None:
    text = "data = 'd'\nkeys = '/k.json'\nstrategies = ['s.yaml']\n[collections]\nbirds = 'pictures'"
    settings = read_settings({}, written(tmp_path / "etc" / "f.toml", text), {}).settings
    folder = tmp_path / "etc"
    assert (settings.data, settings.keys_file) == (folder / "d", Path("/k.json"))
    assert settings.strategies == (folder / "s.yaml",)
    assert settings.collections == {"birds": folder / "pictures"}


def test_collections_and_lists_in_one_variable() -> None:
    environ = {"FIELDSCOPE_COLLECTIONS": "a=/x, b=/y=z", "FIELDSCOPE_IMAGE_HOSTS": "one.example, two.example"}
    settings = read_settings({}, environ=environ).settings
    assert settings.collections == {"a": Path("/x"), "b": Path("/y=z")}
    assert settings.image_hosts == ("one.example", "two.example")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot = 1", r"unknown key 'prot' \(did you mean 'port'\?\)"),
        ("[limits]\nmax_dokuments = 1", r"unknown key 'limits.max_dokuments' \(did you mean 'max_documents'\?\)"),
        ("port = 'many'", "port: Input should be a valid integer"),
        ("port = 70000", "port: Input should be less than or equal to 65535"),
        ("[limits]\nat_work = 0", "limits.at_work: Input should be greater than or equal to 1"),
        ("[collections]\n'a/b' = 'x'", "'a/b' can't be a collection's name"),
        ("cache_mode = 'maybe'", "cache_mode"),
        ("port = ", "not valid TOML"),
    ],
)
def test_a_files_fault_names_the_file_and_the_key(tmp_path: Path, text: str, message: str) -> None:
    file = written(tmp_path / "f.toml", text)
    with pytest.raises(ConfigError, match=message) as error:
        read_settings({}, file, {})
    assert str(file) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"FIELDSCOPE_PROT": "1"}, r"unknown variable FIELDSCOPE_PROT \(did you mean FIELDSCOPE_PORT\?\)"),
        ({"FIELDSCOPE_PORT": "many"}, "FIELDSCOPE_PORT: port: Input should be a valid integer"),
        ({"FIELDSCOPE_COLLECTIONS": "birds"}, "'birds' is not NAME=FOLDER"),
        ({"FIELDSCOPE_MODEL": "vl"}, "model goes with lmm"),
        ({"FIELDSCOPE_LMM": "http://x"}, "lmm needs model"),
    ],
)
def test_a_variables_fault_names_the_variable(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_settings({}, environ=environ)


def test_variables_of_other_parts_are_left_alone() -> None:
    environ = {"FIELDSCOPE_CACHE": "/x", "FIELDSCOPE_DEBUG": "1", "FIELDSCOPE_PORT": "", "OTHER": "y"}
    assert read_settings({}, environ=environ).settings == ServerSettings()


def test_a_missing_file_that_was_named_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml: can't be read"):
        read_settings({}, tmp_path / "gone.toml", {})


@pytest.mark.parametrize(
    ("host", "own"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False), ("10.0.0.1", False)],
)
def test_what_only_this_machine_reaches(host: str, own: bool) -> None:
    assert is_loopback(host) == own
    assert ServerSettings(host=host).loopback == own


def configured(run: Run, *args: object) -> dict[str, Any]:
    printed = run("config", "--json", *args)
    assert printed.exit_code == 0, printed.output
    settings: dict[str, Any] = json.loads(printed.stdout)
    return settings


def test_every_setting_is_printed_with_where_it_came_from(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDSCOPE_API_KEY", "sk-very-secret")
    monkeypatch.setenv("FIELDSCOPE_GRACE", "7")
    written(Path(FILE), "strategy = 'clip'")
    settings = configured(
        run, "--port", 9, "--collection", "a=/x", "--collection", "b=/y", "--limit", "max_seconds=60", "--cache", "off"
    )
    assert settings["port"] == {"value": 9, "from": "--port"}
    assert settings["grace"] == {"value": 7.0, "from": "FIELDSCOPE_GRACE"}
    assert settings["strategy"] == {"value": "clip", "from": FILE}
    assert settings["collections"] == {"value": {"a": "/x", "b": "/y"}, "from": "--collection"}
    assert settings["limits.max_seconds"] == {"value": 60.0, "from": "--limit"}
    assert settings["cache_mode"] == {"value": "off", "from": "--cache"}
    assert settings["host"] == {"value": "127.0.0.1", "from": "default"}
    assert settings["api_key"] == {"value": "********", "from": "FIELDSCOPE_API_KEY"}
    names = {name for name in ServerSettings.model_fields if name not in (*GROUPS, "roles")}
    assert names <= set(settings) and settings["keys"]["value"].endswith("keys.json")


def test_the_table_has_no_secret_and_names_the_variables(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDSCOPE_API_KEY", "sk-very-secret")
    monkeypatch.setenv("COLUMNS", "200")
    printed = run("config")
    assert printed.exit_code == 0
    assert "sk-very" not in printed.output
    assert "FIELDSCOPE_LIMITS_MAX_BODY" in printed.output


def test_what_can_t_be_used_is_one_line(run: Run) -> None:
    for args, message in (
        (("--limit", "max_dokuments=3"), "did you mean 'max_documents'"),
        (("--limit", "max_documents=many"), "--limit: limits.max_documents"),
        (("--limit", "max_documents"), "NAME=NUMBER"),
        (("--collection", "birds"), "'birds' is not NAME=FOLDER"),
        (("--model", "vl"), "model goes with lmm"),
    ):
        failed = run("config", *args)
        assert failed.exit_code != 0
        assert message in failed.output


def test_keys_are_made_shown_once_listed_and_removed(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    made = run("keys", "add", "alice", "--keys", file)
    secret = made.stdout.strip()
    assert made.exit_code == 0 and secret.startswith("fs_") and len(secret) > 40
    listed = run("keys", "list", "--json", "--keys", file)
    assert [key["name"] for key in json.loads(listed.stdout)] == ["alice"]
    assert secret not in listed.output + file.read_text(encoding="utf-8")
    assert run("keys", "add", "alice", "--keys", file).exit_code == 1
    assert run("keys", "remove", "alise", "--keys", file).exit_code == 1
    assert run("keys", "remove", "alice", "--keys", file).exit_code == 0
    assert "no key yet" in run("keys", "list", "--keys", file).output
