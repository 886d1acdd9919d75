"""A run repeated over HTTP with its prompts in other words: priced first, then a job, then a run beside the others."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import fieldscope.service.wiring.models
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.eval.runs.read import read_metrics
from tests.service.api.facts import events_of, open_service
from tests.service.viewer import shelves

PROMPT = "match_yes_no"
WORDS = {"prompts": {PROMPT: {"template": 'does this image show "{{ query }}"? answer yes or no.'}}, "name": "shows"}


async def test_a_run_in_other_words_is_priced_and_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await asyncio.to_thread(shelves.small, tmp_path / "small", 2, ("yes-no",))
    model = ScriptedLMM(lambda request: 0.9 if "snow" in request.text else 0.2, identity="words alone")
    monkeypatch.setattr(fieldscope.service.wiring.models, "bundled_lmm", lambda images: model)
    prices = tmp_path / "prices.yaml"
    prices.write_text("input_per_million: 1\noutput_per_million: 2\ncurrency: EUR\n")
    async with open_service(tmp_path, runs=made.root, prices=prices) as service:
        post = service.client.post
        assert (await post("/v1/runs/nowhere/reworded", json=WORDS)).status_code == 404
        wrong = await post("/v1/runs/yes-no/reworded/estimate", json={"prompts": {"match": {"template": "x"}}})
        assert (wrong.status_code, "unknown prompt" in wrong.json()["error"]["message"]) == (422, True)
        cost = (await post("/v1/runs/yes-no/reworded/estimate", json=WORDS)).json()
        assert (cost["calls"], cost["queries"], cost["currency"], cost["caveat"]) == (2 * 16, 2, "EUR", None)
        assert cost["amount"] > 0
        begun = await post("/v1/runs/yes-no/reworded", json=WORDS)
        assert begun.status_code == 202
        told = begun.json()
        events = events_of((await service.client.get(told["events"])).text)
        assert [kind for _, kind, _ in events][-1] == "done"
        assert [data for _, kind, data in events if kind == "advanced"][-1]["done"] == 2
        listed = (await service.client.get("/v1/runs")).json()["runs"]
        assert told["run"] in [each["key"] for each in listed]
    folder = made.root / "reworded" / "facts-test" / "shows"
    assert read_metrics(folder).per_query.keys() == read_metrics(made.run("yes-no")).per_query.keys()
