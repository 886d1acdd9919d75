"""An LMM whose server refuses everything, and one that only fails: what a call and a job of calls make of it."""

from __future__ import annotations

from pathlib import Path

import pytest

import fieldscope.service.server.api.outcome
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.core.errors import ContextLengthError, LMMError, LMMRequestError, LMMServerError
from fieldscope.service.server.api.jobwork import LMM_ATTEMPTS
from tests.service.api.facts import open_service
from tests.service.api.test_jobs import CRAB, SNOW, submit, until

OVER = ("done", "failed", "cancelled")


def refusing(error: LMMError) -> ScriptedLMM:
    return ScriptedLMM(lambda request: error)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (LMMRequestError("http://gpu/v1 answered 401: wrong key"), 502, "lmm_refused"),
        (LMMRequestError("http://gpu/v1 answered 404: no such model"), 502, "lmm_refused"),
        (ContextLengthError("http://gpu/v1 answered 400: maximum context length is 10"), 422, "prompt_too_long"),
    ],
)
async def test_what_can_t_pass_is_no_503_and_asks_nobody_to_come_back(
    tmp_path: Path, error: LMMError, status: int, code: str
) -> None:
    async with open_service(tmp_path, refusing(error)) as service:
        reply = await service.client.post(CRAB["url"], json=CRAB["body"])
        assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
        assert str(error) in reply.json()["message"]
        assert "retry-after" not in reply.headers


async def test_a_job_over_an_lmm_that_refuses_everything_ends_as_failed(tmp_path: Path) -> None:
    words = "http://gpu/v1 answered 401: wrong key"
    lmm = refusing(LMMRequestError(words))
    async with open_service(tmp_path, lmm) as service:
        job = await submit(service, CRAB, SNOW)
        events = await until(service, job["id"], lambda event: event.kind in OVER and '"call"' not in event.data)
        view = (await service.client.get(f"/v1/jobs/{job['id']}")).json()
    assert events[-1].kind == "failed"
    assert (view["state"], view["calls"]) == ("failed", {"total": 2, "done": 0, "failed": 2})
    assert all(words in call["reply"]["error"]["message"] for call in view["results"])
    assert len(lmm.requests) == 16  # each question once


async def test_an_lmm_that_only_fails_is_tried_a_few_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fieldscope.service.server.api.outcome, "_RETRY_AFTER", 0)
    lmm = refusing(LMMServerError("http://gpu/v1 answered 500: on fire"))
    async with open_service(tmp_path, lmm) as opened:
        job = await submit(opened, CRAB)
        await until(opened, job["id"], lambda event: event.kind in OVER and '"call"' not in event.data)
        view = (await opened.client.get(f"/v1/jobs/{job['id']}")).json()
    assert view["state"] == "failed"
    assert "on fire" in view["results"][0]["reply"]["error"]["message"]
    assert len(lmm.requests) == LMM_ATTEMPTS * 8


async def test_a_job_with_one_reply_is_done(tmp_path: Path) -> None:
    lmm = ScriptedLMM(lambda request: LMMRequestError("no") if "snow" in request.text else 0.5)
    async with open_service(tmp_path, lmm) as service:
        job = await submit(service, CRAB, SNOW)
        await until(service, job["id"], lambda event: event.kind in OVER and '"call"' not in event.data)
        view = (await service.client.get(f"/v1/jobs/{job['id']}")).json()
    assert (view["state"], view["calls"]["failed"]) == ("done", 1)
