"""A model for each role: on the command line, in TOML and in Python, in runs, costs and calibrations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fieldscope import ConfigError, Reranker, RoleModel
from fieldscope.agent.calibration import Calibration, calibration_key
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.agent.roles import ROLES
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.service.server.settings import read_settings
from fieldscope.service.wiring.calibrations import find_calibration, save_calibration
from fieldscope.service.wiring.settings import NO_KEY, Settings
from tests.service.conftest import Answer, Run, Server, World, completion, redness, serving

BIG, SMALL = "openai:big#jpeg95<=1024", "openai:small#jpeg95<=1024"
SYNTHESIS = {
    "thought": "something red", "core": "red", "detailed": "something red", "comprehensive": "something red",
    "instructions": [{"text": "something red", "words": "red", "type": "addition"}],
}  # fmt: skip
YES = {"token": "yes", "logprob": -0.1, "top_logprobs": [{"token": "yes", "logprob": -0.1}]}
PRICES = """
big: {input_per_million: 10, output_per_million: 0}
small: {input_per_million: 1, output_per_million: 0}
"""
PREDICATES = {"predicates": [{"question": "is it red?", "expected": "yes", "words": "red", "type": "colour"}]}


def thinking(body: dict[str, Any]) -> Answer:
    """A reasoner, which is never shown an image; and a judge, which says that the first is best."""
    content = body["messages"][-1]["content"]
    shown = [part for part in content if part["type"] == "image_url"] if isinstance(content, list) else []
    if "response_format" in body:
        return 200, completion(json.dumps(PREDICATES if "predicates" in json.dumps(body) else SYNTHESIS))
    if len(shown) > 1:
        top = [{"token": token, "logprob": logprob} for token, logprob in (("a", -0.3), ("b", -1.4))]
        return 200, completion("a", {"content": [{**top[0], "top_logprobs": top}]})
    return 200, completion("yes, it is red")


def seeing(body: dict[str, Any]) -> Answer:
    return redness({"messages": body["messages"][-1:]})


def listing(name: str) -> Answer:
    return 200, json.dumps({"data": [{"id": name}]})


@pytest.fixture
def big() -> Iterator[Server]:
    with serving(Server(answer=thinking, models=listing("big"))) as made:
        yield made


@pytest.fixture
def small() -> Iterator[Server]:
    with serving(Server(answer=seeing, models=listing("small"))) as made:
        yield made


@pytest.fixture
def red(photos: Path, tmp_path: Path) -> Path:
    from tests.service.test_evaluate import parquet

    images = {name: (photos / name).read_bytes() for name in ("blue.png", "red.png", "below/red.png")}
    return parquet(tmp_path / "mine", images, {"a red crab": ["red.png", "below/red.png"], "a red fish": ["red.png"]})


def names(server: Server) -> set[str]:
    return {body["model"] for body in server.bodies}


def manifest(folder: Path) -> Any:
    return json.loads((folder / "manifest.json").read_bytes())["configuration"]["lmm"]


@pytest.mark.usefixtures("world")
def test_one_server_reasons_and_judges_and_another_verifies(
    run: Run, red: Path, big: Server, small: Server, tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    models = ("--lmm", big.url, "--model", "big", "--lmm", f"verifier={small.url}#small")
    told = run("eval", red, "--strategy", "agent", "yes-no", *models, "--out", out, "--json")
    assert told.exit_code == 0, told.output
    assert names(big) == {"big"} and names(small) == {"small"}
    assert not any("response_format" in body and "image_url" in json.dumps(body) for body in big.bodies)
    agent, yes_no = json.loads(told.stdout)["runs"]
    assert manifest(out / "agent") == {"reasoner": BIG, "verifier": SMALL, "judge": BIG} == agent["lmm"]
    assert manifest(out / "yes-no") == SMALL and "by_role" not in yes_no
    calls = {role: cost["calls"] for role, cost in agent["by_role"].items()}
    assert calls["reasoner"] == 4 and set(calls) == {"reasoner", "verifier", "judge"}
    assert sum(calls.values()) == agent["cost"]["calls"]
    hits = agent["by_role"]["verifier"]["cache_hits"] + yes_no["cost"]["cache_hits"]
    assert len(small.bodies) == calls["verifier"] + yes_no["cost"]["calls"] - hits

    asked = len(big.bodies) + len(small.bodies)
    again = run("eval", red, "--strategy", "agent", "yes-no", *models, "--out", out)
    assert again.exit_code == 0 and len(big.bodies) + len(small.bodies) == asked
    table = again.output[again.output.index("cost by role") :]
    assert [line.split()[:3] for line in table.splitlines() if "agent " in line and "small" in line] == [
        ["agent", "verifier", "small"]
    ]
    replayed = run("eval", "--replay", out, "--out", tmp_path / "replayed", "--json")
    assert replayed.exit_code == 0, replayed.output
    assert manifest(tmp_path / "replayed" / "agent") == manifest(out / "agent")
    assert (tmp_path / "replayed" / "agent" / "run.trec").read_bytes() == (out / "agent" / "run.trec").read_bytes()

    prices = tmp_path / "prices.yaml"
    prices.write_text(PRICES)
    compared = run("compare", out / "agent", out / "yes-no", "--prices", prices, "--json")
    assert compared.exit_code == 0, compared.output
    costs = {told["strategy"]: told["cost"] for told in json.loads(compared.stdout)["runs"]}
    large = calls["reasoner"] + calls["judge"]
    assert costs["agent"]["money"] == pytest.approx((large * 10 + calls["verifier"]) * 70 / 1e6)

    other = run("eval", red, "--strategy", "agent", "--lmm", big.url, "--model", "big", "--out", out)
    assert other.exit_code == 1 and "small" in other.output and "other lmm" in other.output


@pytest.mark.usefixtures("world")
def test_a_role_whose_server_is_dead_ends_the_work_before_it_begins(
    run: Run, red: Path, big: Server, nobody: str
) -> None:
    told = run("eval", red, "--lmm", f"{big.url}#big", "--lmm", f"verifier={nobody}#small")
    assert told.exit_code == 1 and nobody in told.output and not big.bodies


def test_a_role_that_no_strategy_asks_is_not_needed(run: Run, world: World, nobody: str) -> None:
    told = run("eval", "fieldnotes-rerank", "--strategy", "yes-no", "--lmm", f"judge={nobody}#big")
    assert told.exit_code == 0, told.output
    assert world.asked


@pytest.mark.usefixtures("world")
def test_a_server_that_dies_is_noticed_though_the_other_one_answers(
    run: Run, red: Path, big: Server, small: Server
) -> None:
    big.answer = lambda body: (400, '{"error": {"message": "out of order"}}')
    roles = ("--lmm", f"{small.url}#small", "--lmm", f"reasoner={big.url}#big", "--lmm", f"judge={big.url}#big")
    told = run("eval", red, "--strategy", "agent", "--attempts", 1, *roles)
    assert told.exit_code == 1 and "agent, reasoner and judge" in told.output and "out of order" in told.output


@pytest.mark.usefixtures("world")
def test_a_dry_run_knows_the_price_of_each_model(run: Run, red: Path, tmp_path: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text(PRICES)
    told = run(
        *("eval", red, "--strategy", "agent", "--dry-run", "--no-probe", "--prices", prices, "--json"),
        *("--lmm", "http://a#big", "--lmm", "verifier=http://b#small"),
    )
    assert told.exit_code == 0, told.output
    (agent,) = json.loads(told.stdout)["runs"]
    stages = agent["stages"]
    assert (stages["verify"]["model"], stages["decompose"]["model"]) == ("small", "big")
    price = sum(stage["prompt_tokens"] * (1 if stage["model"] == "small" else 10) for stage in stages.values()) / 1e6
    assert agent["amount"] == pytest.approx(price)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--lmm verifer=http://a#b", "unknown role 'verifer'"),
        ("--lmm verifier=http://a", "does not name a model"),
        ("--lmm verifier=http://a#b --lmm verifier=http://a#c", "gives the verifier two LMMs"),
        ("--lmm http://a --lmm http://b --model m", "names 2 LMMs for all roles"),
        ("--lmm http://a#b --model m", "names the model already"),
    ],
)
def test_what_can_not_be_meant_is_refused(run: Run, options: str, said: str) -> None:
    told = run("eval", "fieldnotes", *options.split())
    assert told.exit_code == 2 and said in told.output


def test_a_file_gives_a_role_its_model_and_a_flag_replaces_it(tmp_path: Path) -> None:
    file = tmp_path / "fieldscope.toml"
    file.write_text(
        'lmm = "http://a"\nmodel = "big"\nmax_side = 800\n[roles.verifier]\nlmm = "http://b"\nmodel = "small"\n'
        'revision = "r2"\nmax_side = 400\nrequest_timeout = 9\napi_key = "k"\n'
    )
    verifier = read_settings({}, file, {}).settings.models.of("verifier")
    assert (verifier.lmm_url, verifier.model, verifier.revision) == ("http://b", "small", "r2")
    assert (verifier.max_side, verifier.request_timeout, verifier.attempts) == (400, 9.0, 6)
    flagged = read_settings({"roles.verifier": RoleModel("http://c", "tiny")}, file, {})
    assert flagged.settings.models.of("verifier").model == "tiny"
    assert flagged.origins["roles.verifier"] == "--lmm"
    for wrong, said in (
        ("[roles.painter]\nlmm = 'x'", "'reasoner', 'captioner', 'verifier' or 'judge'"),
        ("[roles.judge]\nlmn = 'x'", "lmn"),
        ("[roles.judge]\nlmm = 'http://b'", "its model has no name"),
        ("[roles.judge]\nmodel = 'b'", "no server"),
        ("[roles.judge]\nmax_side = 0", "max_side: Input should be greater"),
    ):
        file.write_text(wrong)
        with pytest.raises(ConfigError, match=said):
            read_settings({}, file, {})


def test_the_keys_of_roles_are_never_printed(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[roles.verifier]\nlmm = "http://me:secret@b"\nmodel = "small"\napi_key = "secret"\n')
    told = run("config", "--config", file)
    assert told.exit_code == 0 and "small" in told.output and "secret" not in told.output


def test_no_key_goes_to_a_host_that_it_was_not_given_for(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere, there = RoleModel("http://b:1", "small"), RoleModel("http://a:1", "small")
    settings = Settings(lmm_url="http://a:1", model="big", api_key="k", roles={"verifier": elsewhere, "judge": there})
    keys = {role: settings.of(role).api_key for role in ROLES}
    assert keys == {"reasoner": "k", "captioner": "k", "verifier": NO_KEY, "judge": "k"}
    monkeypatch.setenv("FIELDSCOPE_API_KEY_VERIFIER", "v")
    assert settings.of("verifier").api_key == "v"
    alone = Settings(api_key="k", roles={"judge": there})
    assert alone.of("judge").api_key == "k"
    two = Settings(api_key="k", roles={"judge": there, "reasoner": elsewhere})
    assert {two.of("judge").api_key, two.of("reasoner").api_key} == {NO_KEY}


@pytest.mark.usefixtures("world")
def test_the_environment_s_key_stays_with_its_server(
    run: Run, red: Path, big: Server, small: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIELDSCOPE_API_KEY", "for-the-big-one")
    roles = ("--lmm", f"{big.url}#big", "--lmm", f"verifier={small.url}#small")
    assert run("eval", red, "--strategy", "agent", "--limit", 1, *roles).exit_code == 0
    sent = [{headers.get("authorization", "") for headers in server.headers} for server in (big, small)]
    assert sent[0] == {"Bearer for-the-big-one"} and "for-the-big-one" not in str(sent[1])


@pytest.mark.usefixtures("world")
def test_in_python(photos: Path, big: Server, small: Server) -> None:
    with Reranker("agent", lmm=big.url, model="big", roles={"verifier": f"{small.url}#small"}) as reranker:
        ranking = reranker.rerank("a red crab", photos)
    assert ranking.models["lmm"] == "big (reasoner, captioner, judge); small (verifier)"
    assert names(small) == {"small"} and ranking[-1].image_id == "blue.png"
    own = ScriptedLMM(lambda request: 0.5, identity="mine")
    with Reranker("agent", lmm=big.url, model="big", roles={"verifier": own}) as reranker:
        ranking = reranker.rerank("a red crab", photos)
    assert ranking.models["lmm"] == "big (reasoner, captioner, judge); mine (verifier)"
    with pytest.raises(ConfigError, match="painter"):
        Reranker(roles={"painter": own})  # type: ignore[dict-item]


def test_a_calibration_belongs_to_the_verifier_and_the_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDSCOPE_CACHE", str(tmp_path))
    agent = load_strategy("agent")
    models = {"reasoner": "r", "verifier": "v", "judge": "j"}
    save_calibration(fitted := Calibration(key=calibration_key(models, agent, None), bias=1.0))
    assert find_calibration(models, agent, None) == fitted
    assert find_calibration(models | {"reasoner": "another"}, agent, None) == fitted
    assert find_calibration(models | {"verifier": "another"}, agent, None) is None
    assert find_calibration(models | {"judge": "another"}, agent, None) is None
    assert find_calibration("v", agent, None) is None
    assert find_calibration("v", load_strategy("predicates"), None) == fitted, "it compares nothing"
    assert "judge" not in calibration_key("v", agent, None).model_dump()


def test_a_stage_may_ask_another_role() -> None:
    strategy = load_strategy("agent", {"verify.role": "judge", "explain.role": "verifier"})
    assert strategy.roles_by_call["verify"] == "judge" and strategy.roles_by_call["explain"] == "verifier"
    assert strategy.fingerprint != load_strategy("agent").fingerprint
    assert load_strategy("agent").roles(composed=False) == ("reasoner", "verifier", "judge")
    assert load_strategy("agent").roles() == ROLES


@pytest.mark.usefixtures("world")
def test_the_doctor_examines_each_model_and_shows_a_reasoner_no_image(run: Run, big: Server, small: Server) -> None:
    small.answer = lambda body: (200, completion("yes", {"content": [YES]}))
    roles = [option for role in ("captioner", "verifier", "judge") for option in ("--lmm", f"{role}={small.url}#small")]
    told = json.loads(run("doctor", "--lmm", f"{big.url}#big", *roles, "--json").stdout)
    assert [(model["model"], model["roles"]) for model in told["models"]] == [
        ("big", ["reasoner"]),
        ("small", ["captioner", "verifier", "judge"]),
    ]
    checked = [{finding["name"] for finding in model["findings"]} for model in told["models"]]
    assert "image seen" in checked[1] - checked[0] and checked[0] < checked[1]


@pytest.mark.usefixtures("world")
def test_the_viewer_says_which_model_did_what(run: Run, red: Path, big: Server, small: Server, tmp_path: Path) -> None:
    models = ("--lmm", f"{big.url}#big", "--lmm", f"verifier={small.url}#small")
    assert run("eval", red, "--strategy", "agent", "--out", tmp_path / "runs", *models).exit_code == 0
    exported = run("view", tmp_path / "runs", "--export", tmp_path / "site", "--image-pages")
    assert exported.exit_code == 0, exported.output
    pages = {path: path.read_text() for path in (tmp_path / "site").rglob("*.html")}
    whole = next(text for text in pages.values() if "Cost by role" in text)
    assert f"{BIG} (reasoner, judge); {SMALL} (verifier)".replace("<", "&lt;") in whole
    asked = "".join(pages.values()).replace("&lt;", "<")
    for model, role in ((BIG, "reasoner"), (SMALL, "verifier"), (BIG, "judge")):
        assert f"<code>{model} ({role})</code>" in asked
