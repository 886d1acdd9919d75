"""Documents in words: P(yes) from log-probabilities, and what has no answer stays unknown."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.agent.budget import Account, Budget, BudgetedLMM
from fieldscope.agent.lmm.base import ImagePart, LMMRequest, LMMResponse
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.agent.types import State, Verdict
from fieldscope.core.errors import LMMServerError
from fieldscope.prompts.prompt_set import shipped_set
from fieldscope.service.server.api.texts import Judged, judge_texts
from tests.waiting import Crowd

PROMPTS = shipped_set("fieldnotes")
TEXTS = {"d0": "two red crabs", "d1": "an owl", "d2": "the server fails here"}


def answer(request: LMMRequest) -> float | Exception:
    if "fails" in request.text:
        return LMMServerError("down")
    return 0.9 if '"two red crabs".' in request.text else 0.2


async def test_each_text_gets_a_verdict_in_order() -> None:
    lmm = ScriptedLMM(answer)
    verdicts = await judge_texts(lmm, "crabs on a beach", TEXTS, PROMPTS)
    assert [verdict.image_id for verdict in verdicts] == list(TEXTS)
    assert [verdict.state for verdict in verdicts] == ["answered", "answered", "unknown"]
    assert verdicts[0].p_yes == pytest.approx(0.9)
    assert verdicts[1].p_expected == pytest.approx(0.2)
    assert (verdicts[2].p_yes, verdicts[2].error) == (None, "down")
    assert verdicts[0].prompt_tokens > 0
    judged = Judged(tuple(TEXTS), verdicts)
    assert list(judged.scores().values()) == pytest.approx([0.9, 0.2])
    assert judged.unplaced == [list(TEXTS)[2]]
    assert judged.flags() == [
        "the model gave no answers about 1 of 3 texts; they rank last",
        f"ranked last, because neither the model nor CLIP could judge the text: {list(TEXTS)[2]}",
    ]
    assert judged.failed and not judged.nothing
    first = lmm.requests[0]
    assert (first.max_tokens, first.top_logprobs, first.images) == (1, 20, ())
    assert '"two red crabs". does this text match the description: "crabs on a beach"?' in first.text


async def test_text_that_says_neither_is_unknown_and_no_probability() -> None:
    (verdict,) = await judge_texts(ScriptedLMM(lambda request: LMMResponse(text="perhaps")), "q", {"d": "t"}, PROMPTS)
    assert (verdict.state, verdict.p_yes) == ("unknown", None)
    judged = Judged(("d",), (verdict,))
    assert judged.nothing and not judged.failed
    assert judged.scores() == {} and judged.unplaced == ["d"]


async def test_a_picture_is_asked_whether_the_text_describes_it() -> None:
    image = ImagePart(image_id="a.png", sha256="0" * 64)
    lmm = ScriptedLMM(lambda request: 0.7)
    await judge_texts(lmm, "", {"d": "two red crabs"}, PROMPTS, image=image)
    await judge_texts(lmm, "at night", {"d": "two red crabs"}, PROMPTS, image=image)
    alone, beside = lmm.requests
    assert alone.images == beside.images == (image,)
    assert alone.text.endswith('does this image match the description: "two red crabs"? answer yes or no.')
    assert beside.text.endswith('does this text match the description: "at night"? answer yes or no.')


async def test_what_the_budget_forbids_is_not_asked_and_no_more_than_allowed_are_in_flight() -> None:
    crowd = Crowd(2)

    class Slow(ScriptedLMM):
        async def generate(self, request: LMMRequest) -> LMMResponse:
            async with crowd.join():
                return await super().generate(request)

    lmm = Slow(lambda request: 0.7)
    texts = {str(n): f"text {n}" for n in range(9)}
    verdicts = await judge_texts(BudgetedLMM(lmm, Account(Budget(max_calls=5))), "q", texts, PROMPTS, at_once=2)
    assert [verdict.state for verdict in verdicts].count("not_asked") == 4
    assert len(lmm.requests) == 5
    assert crowd.most == 2


async def test_braces_and_quotes_in_a_text_are_words() -> None:
    lmm = ScriptedLMM(lambda request: 0.7)
    await judge_texts(lmm, "{{ text }}", {"d": '{{ query }} "'}, PROMPTS)
    assert lmm.requests[0].text.endswith(
        'text: "{{ query }} "". does this text match the description: "{{ text }}"? answer yes or no.'
    )


def verdict(document: str, p_yes: float | None = None, answer: str = "", state: State = "unknown") -> Verdict:
    state = state if p_yes is None else "answered"
    return Verdict(predicate="match", image_id=document, state=state, p_yes=p_yes, answer=answer)


def test_an_answer_decides_and_without_one_the_prior_does() -> None:
    said = (verdict("a", 0.4), verdict("b", answer="?"), verdict("c", answer="?"), verdict("d", answer="?"))
    judged = Judged(("a", "b", "c", "d", "e"), said, {"a": 0.9, "b": 0.2, "c": 0.4})
    scores = judged.scores()
    assert scores["a"] == 0.4
    assert scores["b"] < scores["c"]  # `a` has the best prior, and an answer
    assert judged.unplaced == ["d", "e"] and set(scores) == {"a", "b", "c"}
    assert judged.flags() == [
        "the model gave no answers about 3 of 4 texts; they are ranked by CLIP's similarity to the query",
        "ranked last, because neither the model nor CLIP could judge the text: d, e",
    ]
    assert not judged.nothing and not judged.failed


def test_what_was_not_asked_stands_on_its_prior_without_a_warning_of_its_own() -> None:
    judged = Judged(
        ("a", "b"), (verdict("a", state="not_asked"), verdict("b", state="not_asked")), {"a": 0.1, "b": 0.2}
    )
    assert judged.scores()["a"] < 0.5 < judged.scores()["b"]
    assert judged.flags() == [] and not judged.nothing


documents = st.dictionaries(st.text(max_size=3), st.tuples(st.floats(-1, 1), st.sampled_from([None, 0.01, 0.6])))


@given(documents)
def test_scores_lie_between_0_and_1_and_keep_the_priors_order(told: dict[str, tuple[float, float | None]]) -> None:
    priors = {document: prior for document, (prior, _) in told.items()}
    said = tuple(verdict(document, p_yes, answer="?") for document, (_, p_yes) in told.items())
    scores = Judged((*told, "none at all"), said, priors).scores()
    assert all(0 < score < 1 for score in scores.values())
    silent = sorted((document for document, (_, p_yes) in told.items() if p_yes is None), key=priors.__getitem__)
    assert all(scores[before] <= scores[after] for before, after in itertools.pairwise(silent))
    assert all(scores[document] == p_yes for document, (_, p_yes) in told.items() if p_yes is not None)
