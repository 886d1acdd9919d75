"""The doctor on servers without log-probabilities: which ways to P(yes) they have, and which one to use."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fieldscope.agent.lmm.base import LMMRequest, LMMResponse
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.core.errors import LMMRequestError
from fieldscope.prompts.prompt_set import shipped_set
from fieldscope.service.doctor.asker import Asker
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.images import Drawn
from fieldscope.service.doctor.modes import NAME, check_modes
from fieldscope.service.doctor.probes import shapes

Says = Callable[[LMMRequest], str | Exception]


async def examined(says: Says, logprobs: int = 0) -> Finding:
    def answer(request: LMMRequest) -> LMMResponse | Exception:
        said = says(request)
        return LMMResponse(text=said) if isinstance(said, str) else said

    probe = shapes()
    images = Drawn(probe.images)
    asker = Asker(ScriptedLMM(answer), images, shipped_set("instruct"))
    asker.top_logprobs = logprobs
    finding = await check_modes(asker, probe, next(iter(probe.images)))
    assert finding.name == NAME and asker.calls == 8
    return finding


def both(request: LMMRequest) -> str:
    return '{"probability": 0.8}' if request.json_schema is not None else "Yes."


def refuses_draws(request: LMMRequest) -> str | Exception:
    return both(request) if request.json_schema is not None else LMMRequestError("temperature must be 0; leave it out")


@pytest.mark.parametrize(
    ("says", "logprobs", "state", "seen", "change"),
    [
        (both, 20, "ok", "log-probabilities: yes, plain answers (samples): yes, stated probabilities: yes", ""),
        (both, 0, "warn", "log-probabilities: no, plain answers (samples): yes", "verify.samples: 8"),
        (lambda request: "No", 0, "warn", "stated probabilities: no", "verify.samples: 8"),
        (refuses_draws, 0, "warn", "plain answers (samples): no, stated probabilities: yes", "state_predicate"),
        (lambda request: "It depends.", 0, "fail", "neither yes nor no", "another model"),
    ],
)
async def test_the_ways_that_a_server_has_and_the_one_to_use(
    says: Says, logprobs: int, state: str, seen: str, change: str
) -> None:
    finding = await examined(says, logprobs)
    assert (finding.state, bool(finding.change)) == (state, bool(change))
    assert seen in finding.seen and change in finding.change and finding.meaning
