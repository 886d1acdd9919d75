"""A precision that the service promises from its labelled run, and the calls for which it can't."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.service.api.conftest import Opened, Service, ids
from tests.service.conftest import CRABS, Run, World

PROMISE = {"precision": 0.5, "confidence": 0.6, "strategy": "yes-no-fused"}
"""What four labelled queries carry."""


@pytest.fixture
def labelled(run: Run, world: World, tmp_path: Path) -> Path:
    out = tmp_path / "runs"
    evaluated = run("eval", "fieldnotes", "--split", "validation", "--strategy", "yes-no-fused", "--out", out)
    assert evaluated.exit_code == 0, evaluated.output
    return out / "yes-no-fused"


async def searched(service: Service, **body: object) -> dict[str, object]:
    reply = await service.client.post("/v1/search", json={"query": CRABS, "top_n": 12, **body})
    return {"status": reply.status_code, **reply.json()}


async def test_replies_say_what_is_kept_and_what_is_promised(opened: Opened, labelled: Path) -> None:
    async with opened(precision_from=labelled) as service:
        found = await searched(service, **PROMISE)
        assert found["status"] == 200, found
        cutoff, results = found["cutoff"], found["results"]
        assert isinstance(cutoff, dict) and isinstance(results, list)
        assert (cutoff["kept"], cutoff["queries"], cutoff["precision"]) == (2, 4, 0.5)
        assert "on average over queries like the 4 labelled ones (fieldnotes, validation)" in cutoff["promise"]
        assert {image["image"]: image["kept"] for image in results if image["kept"]} == {"1": True, "2": True}

        documents = ids(1, 3, 2)
        reply = (await service.rerank(query=CRABS, documents=[*documents, "two red crabs"], **PROMISE)).json()
        kept = {one["index"]: one.get("kept") for one in reply["results"]}
        assert kept == {0: True, 1: False, 2: True, 3: None}  # nothing is promised of a text
        assert reply["cutoff"]["threshold"] == cutoff["threshold"]

        plain = await searched(service, strategy="yes-no-fused")
        assert "cutoff" not in plain and "kept" not in plain["results"][0]  # type: ignore[index]


async def test_what_the_service_can_not_promise(opened: Opened, labelled: Path, world: World) -> None:
    before = len(world.asked)
    async with opened(precision_from=labelled) as service:
        for body, said in (
            (PROMISE | {"precision": 0.9, "confidence": 0.95}, "29 are needed even where every kept image matches"),
            (PROMISE | {"strategy": "yes-no"}, "used the strategy 'yes-no-fused', not 'yes-no'"),
        ):
            refused = await searched(service, **body)
            error = refused["error"]
            assert isinstance(error, dict)
            assert (refused["status"], error["code"]) == (409, "not_promised")
            assert said in error["message"] and str(labelled) not in error["message"]
        assert (await searched(service, **PROMISE | {"precision": 1.0}))["status"] == 422
    async with opened() as service:
        refused = await searched(service, **PROMISE)
        assert refused["status"] == 409 and "--precision-from" in str(refused["error"])
    assert len(world.asked) == before
