from typing import Any

import pytest

from fieldscope.agent.lmm.base import ImagePart, LMMRequest, Message, TextPart

PLAIN = LMMRequest(messages=(Message(content=(ImagePart(image_id="a.png", sha256="1"), TextPart(text="is it red ?"))),))


@pytest.mark.parametrize(
    "change",
    [
        {"max_tokens": 2},
        {"temperature": 0.5},
        {"seed": 1},
        {"sample": 1},
        {"top_logprobs": 20},
        {"json_schema": {"type": "object"}},
        {"answer_after": "</think>"},
        {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}},
        {"messages": (Message(role="system", content=PLAIN.messages[0].content),)},
        {"messages": (Message(content=tuple(reversed(PLAIN.messages[0].content))),)},
        {"messages": (Message(content=(ImagePart(image_id="a.png", sha256="2"), TextPart(text="is it red ?"))),)},
    ],
)
def test_all_that_decides_the_answer_is_in_the_key(change: dict[str, Any]) -> None:
    assert PLAIN.model_copy(update=change).key("model") != PLAIN.key("model")


def test_the_model_is_in_the_key_and_the_images_id_is_not() -> None:
    renamed = Message(content=(ImagePart(image_id="b.png", sha256="1"), TextPart(text="is it red ?")))
    assert PLAIN.key("model") != PLAIN.key("other")
    assert PLAIN.model_copy(update={"messages": (renamed,)}).key("model") == PLAIN.key("model")


def test_a_key_survives_json() -> None:
    assert LMMRequest.model_validate_json(PLAIN.model_dump_json()).key("model") == PLAIN.key("model")


def test_text_and_images_are_found_in_order() -> None:
    request = PLAIN.model_copy(
        update={"messages": (Message(role="system", content=(TextPart(text="look"),)), *PLAIN.messages)}
    )
    assert request.text == "look\nis it red ?"
    assert [part.image_id for part in request.images] == ["a.png"]


def test_each_seed_and_sample_draws_from_its_own_number() -> None:
    draws = [PLAIN.model_copy(update={"seed": s, "sample": n}).draw for s in (0, 1, 2, 2**46) for n in (0, 1, 65_535)]
    assert len(set(draws)) == len(draws)
    assert all(0 <= draw < 2**63 for draw in draws)
