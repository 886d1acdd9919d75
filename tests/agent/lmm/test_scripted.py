import pytest

from fieldscope.agent.lmm.base import LMMResponse
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.agent.lmm.yes_no import p_yes
from fieldscope.core.errors import LMMRequestError, LMMServerError


@pytest.mark.parametrize("p", [0.001, 0.3, 0.5, 0.97])
async def test_a_number_is_p_yes(ask, p: float) -> None:
    response = await ScriptedLMM(lambda request: p).generate(ask("is it red ?", "p0", top_logprobs=20))
    assert p_yes(response.answer_logprobs).p_yes == pytest.approx(p)
    assert response.text == ("Yes" if p >= 0.5 else "No")


@pytest.mark.parametrize("p", [0, 1, 0.0, 1.0])
async def test_a_certain_number_stays_readable(ask, p: float) -> None:
    reading = p_yes((await ScriptedLMM(lambda request: p).generate(ask("?"))).answer_logprobs)
    assert reading.p_yes == pytest.approx(p, abs=1e-5) and 0 < reading.p_yes < 1


async def test_a_mapping_answers_by_the_first_key_in_the_text(ask) -> None:
    whole = LMMResponse(text="whole")
    lmm = ScriptedLMM({"red": "a red one", "fox": whole, "snow": LMMServerError("down")}, identity="mine")
    assert lmm.identity == "mine"
    assert (await lmm.generate(ask("is the fox red ?"))).text == "a red one"
    assert await lmm.generate(ask("a fox ?")) is whole
    with pytest.raises(LMMServerError, match="down"):
        await lmm.generate(ask("on snow ?"))
    with pytest.raises(LMMRequestError, match=r"no answer to 'a crab \?'"):
        await lmm.generate(ask("a crab ?"))
    assert [request.text for request in lmm.requests] == ["is the fox red ?", "a fox ?", "on snow ?", "a crab ?"]
    await lmm.aclose()
