"""From the model's answers to a verdict: each answer read for itself, then all of them together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fieldscope.agent.call import Answer, one_line
from fieldscope.agent.lmm.base import LMMResponse
from fieldscope.agent.lmm.json_text import read_json
from fieldscope.agent.lmm.plain_answer import believed, plain_yes_no, smoothed
from fieldscope.agent.lmm.thinking import marked_line
from fieldscope.agent.lmm.yes_no import p_yes
from fieldscope.agent.schemas import StatedAnswer
from fieldscope.agent.strategies.verification import Mode
from fieldscope.agent.types import Draw, Predicate, Verdict
from fieldscope.agent.usage import Usage

_UNREADABLE = "the answer begins with neither yes nor no: {said!r}; reword the prompt, or allow more max_tokens"
_UNMARKED = (
    "no line of the answer begins with {marker!r}; allow more max_tokens in the strategy's `verify.reason`, or use "
    "another prompt"
)
_SHOWN = 60  # characters of an answer in a message


def read_draw(
    answer: Answer, mode: Mode, *, sample: int = 0, reasoned: bool = False, answer_after: str | None = None
) -> Draw:
    """What one answer says. `answer_after` is how the line with the answer begins, where the model was to say something
    before it; a model that thought by itself may leave the line out."""
    known: dict[str, Any] = {"sample": sample, "reasoned": reasoned, **answer.asked}
    if answer.response is None:
        return Draw(**known)
    thought, said = _apart(answer.response, answer_after)
    known |= {"thought": thought, "answer": said or ""}
    fault: str | None = None
    if said is None:
        fault = _UNMARKED.format(marker=answer_after)
        known["answer"] = answer.response.text
    elif mode == "logprobs":
        read = p_yes(answer.response.answer_logprobs)
        known["p_yes"], fault = read.p_yes, read.reason
    elif mode == "samples":
        known["says"] = plain_yes_no(said)
        fault = None if known["says"] else _UNREADABLE.format(said=one_line_of(said))
    else:
        try:
            known["p_yes"] = believed(read_json(said, StatedAnswer).probability)
        except ValueError as error:
            fault = one_line(error)
    return Draw(**known | ({"state": "unknown", "error": fault} if fault else {}))


def verdict_of(draws: Sequence[Draw], predicate: Predicate, image_id: str, mode: Mode) -> Verdict:
    """The verdict that answers to one question come to: at least one, in the order in which they were drawn.

    Those that followed a thought count, where any of them can be read, else the others. Probabilities are averaged;
    plain answers are counted, and their share is smoothed. Answers that can't be read, or that a budget forbade, leave
    those that can; without any the verdict is unknown, or not asked.
    """
    read = [draw for draw in draws if draw.state == "answered"]
    counting = [draw for draw in read if draw.reasoned] or read
    known: dict[str, Any] = {"predicate": predicate.id, "image_id": image_id, "mode": mode, **_together(draws)}
    if not counting:
        unknown = next((draw for draw in draws if draw.state == "unknown"), draws[-1])
        return Verdict(
            **known, state=unknown.state, error=unknown.error, answer=unknown.answer, thought=unknown.thought
        )
    p = _mean(counting)
    return Verdict(
        **known,
        state="answered",
        p_yes=p,
        p_expected=p if predicate.expected == "yes" else 1.0 - p,
        answer=_most_frequent([draw.answer.strip() for draw in counting]) if len(counting) > 1 else counting[0].answer,
        thought=next((draw.thought for draw in counting if draw.thought), ""),
        reasoned=counting[0].reasoned,
    )


def latest(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """One verdict per image and predicate, on the picture as it is: closer looks are further evidence beside it
    (`agent/closer_looks.py`). A question of its own outweighs a share in a joint answer, and an answer one that failed;
    else the later one counts."""
    best: dict[tuple[str, str], Verdict] = {}
    for verdict in verdicts:
        if verdict.look is not None:
            continue
        key = verdict.image_id, verdict.predicate
        if key not in best or _weight(verdict) >= _weight(best[key]):
            best[key] = verdict
    return list(best.values())


def _weight(verdict: Verdict) -> tuple[bool, bool, bool]:
    return verdict.state == "answered", verdict.state != "not_asked", not verdict.joint


def one_line_of(text: str) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."


def _apart(response: LMMResponse, answer_after: str | None) -> tuple[str, str | None]:
    """The thought and the answer in a response; no answer where its line is missing."""
    if answer_after is None:
        return response.thought, response.text
    if line := marked_line(response.text, answer_after):
        before = response.text[: line[0]].strip()
        return "\n\n".join(filter(None, (response.thought, before))), response.text[line[1] :].strip()
    return (response.thought, response.text) if response.thought else (response.text, None)


def _mean(draws: Sequence[Draw]) -> float:
    if all(draw.says for draw in draws):
        yes = sum(draw.says == "yes" for draw in draws)
        return smoothed((yes, len(draws) - yes))[0]
    given = [draw.p_yes for draw in draws if draw.p_yes is not None]
    return sum(given) / len(given)


def _most_frequent(answers: Sequence[str]) -> str:
    return max(dict.fromkeys(answers), key=answers.count)


def _together(draws: Sequence[Draw]) -> dict[str, Any]:
    """The fields of an `Asked` record, and the draws, where there are several or a reasoned one."""
    several = len(draws) > 1 or any(draw.reasoned for draw in draws)
    if not several and draws[0].state != "not_asked":
        (draw,) = draws
        return {
            "refused": draw.refused,
            "request_key": draw.request_key,
            "prompt_tokens": draw.prompt_tokens,
            "completion_tokens": draw.completion_tokens,
            "latency": draw.latency,
            "cached": draw.cached,
        }
    usage = Usage.of(draws)
    return {
        "refused": any(draw.refused for draw in draws),
        "request_key": next((draw.request_key for draw in reversed(draws) if draw.request_key), None),
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "latency": usage.seconds,
        "cached": usage.calls > 0 and usage.cached == usage.calls,
        "draws": tuple(draws) if several else (),
    }
