"""`fieldscope doctor` against a small server that sees shapes, and that can be broken in one place at a time."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image as PILImage
from PIL import ImageOps
from scipy import ndimage

import fieldscope.service.wiring.models
from fieldscope.agent.lmm.base import LMM, LMMRequest, LMMResponse, TokenLogprob
from fieldscope.agent.lmm.openai import OpenAILMM
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.core.fingerprint import fingerprint_pixels
from fieldscope.core.types import ImageSource
from fieldscope.service.doctor import steadiness, throughput
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.probes import fieldnotes, shapes
from fieldscope.service.doctor.steadiness import check_company
from fieldscope.service.wiring.bundled import unknown_words
from tests.service.conftest import Answer, Run, Server

CHECKS = [
    "server",
    "log-probabilities",
    "top log-probabilities",
    "answer format",
    "yes/no spellings",
    "image seen",
    "edges seen",
    "several images",
    "JSON schema",
    "ways to P(yes)",
    "joint answers",
    "parameters",
    "same on repeat",
    "same in a batch",
    "prefix caching",
    "throughput",
]
COLOURS = {(255, 0, 0): "red", (0, 0, 255): "blue", (0, 128, 0): "green", (255, 255, 0): "yellow", (0, 0, 0): "black"}
ANIMALS = fieldnotes()
RIGHT = {known.question: known.right for known in ANIMALS.known}
NUMBERS = {2: "two", 3: "three"}


@dataclass
class Fake:
    """A model that sees, unless something is broken.

    `cap` is how many log-probabilities it gives, and `refuses` more, or gives as many as it can; `blind` is the P(yes)
    of everything; `most` is how many pictures it takes; `turned` means that it takes them in the wrong order; it
    `crops` them to their middle square; `drawn` texts say the other thing every other time, whatever their
    log-probabilities. Where there is `company`, calls meet there before they are answered, and get each other's answers
    if `in_company` is not 0.
    """

    cap: int = 20
    refuses: bool = False
    blind: float | None = None
    most: int = 4
    turned: bool = False
    crops: bool = False
    schema: bool = True
    prose: bool = False
    on_repeat: float = 0.0
    drawn: bool = False
    in_company: float = 0.0
    knows_shapes: bool = True
    counts: bool = True
    words: tuple[str, str] = ("Yes", "No")
    _asked: Counter[str] = field(default_factory=Counter)
    _seen: dict[str, str] = field(default_factory=dict)
    company: threading.Barrier | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, body: dict[str, Any]) -> Answer:
        with self._lock:
            again = self._asked[key_of(body)]
            self._asked[key_of(body)] += 1
        text, urls = split(body)
        wanted = body.get("top_logprobs", 0)
        if len(urls) > self.most:
            return refusal(f"At most {self.most} image(s) may be provided in one prompt.")
        if wanted > self.cap and self.refuses:
            return refusal(f"Requested sample logprobs of {wanted}, which is greater than max allowed: {self.cap}")
        if "response_format" in body and self.schema:
            pieces = ['{"answers": ["', "yes", '", "', "yes", '", "', "yes", '"]}']
            tops = [{"yes": 0.9, "no": 0.1} if piece == "yes" else {piece: 1.0} for piece in pieces]
            content = [
                {
                    "token": piece,
                    "logprob": math.log(top[piece]),
                    "top_logprobs": [{"token": token, "logprob": math.log(p)} for token, p in top.items()],
                }
                for piece, top in zip(pieces, tops, strict=True)
            ]
            logprobs = {"content": content} if wanted else None
            return 200, written("".join(pieces), body, again, self.counts, logprobs)
        seen = [self.look(url) for url in urls]
        if self.turned:
            seen.reverse()
        if len(seen) > 1:
            shown = next((place for place, thing in enumerate(seen) if thing in text), 0)
            return 200, self.said([("abcd"[shown], 0.9), ("abcd"[shown - 1], 0.05)], body, again)
        p = self.p_yes(text, seen)
        if self.company:
            self.company.wait(60)
            p += self.in_company
        p += self.on_repeat * (again % 2)
        p = min(max(p if p < 1 else 2 - p, 0.01), 0.99)
        spoken = sorted(zip(self.words, (p, 1 - p), strict=True), key=lambda each: -each[1])
        return 200, self.said([(word, share * 0.98) for word, share in spoken], body, again)

    def asked(self, body: dict[str, Any]) -> int:
        """How often it was asked this."""
        return self._asked[key_of(body)]

    def look(self, url: str) -> str:
        if url not in self._seen:
            with PILImage.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
                side = min(image.size)
                shown = ImageOps.fit(image.convert("RGB"), (side, side)) if self.crops else image
                self._seen[url] = name_of(shown) if self.knows_shapes else animal(shown)
        return self._seen[url]

    def p_yes(self, text: str, seen: list[str]) -> float:
        if self.blind is not None:
            return self.blind
        if not self.knows_shapes:
            return 0.95 if any(question in text and RIGHT[question] in seen for question in RIGHT) else 0.05
        asked = re.search(r"is there an? (\w+ \w+)\?|exactly (?:(\w+) black (\w+))\?", text)
        thing = (asked[1] or f"{asked[2]} {asked[3]}") if asked else "an animal"
        return 0.96 if thing in seen else 0.03

    def said(self, spoken: list[tuple[str, float]], body: dict[str, Any], again: int) -> str:
        if self.prose:
            spoken = [("Sure", 0.97), *((word, share * 0.02) for word, share in spoken)]
        filler = [(f"word{n}", 1e-6) for n in range(20)]
        top = [{"token": t, "logprob": math.log(p)} for t, p in [*spoken, *filler]]
        top = top[: min(body.get("top_logprobs", 0), self.cap)]
        token, share = spoken[self.drawn and again % 2]
        logprobs = {"content": [{"token": token, "logprob": math.log(share), "top_logprobs": top}]} if top else None
        return written(token, body, again, self.counts, logprobs)


def key_of(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body).encode()).hexdigest()


def split(body: dict[str, Any]) -> tuple[str, list[str]]:
    parts = [p for m in body["messages"] for p in (m["content"] if isinstance(m["content"], list) else [])]
    texts = [m["content"] for m in body["messages"] if isinstance(m["content"], str)]
    texts += [part["text"] for part in parts if part["type"] == "text"]
    return " ".join(texts), [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]


def name_of(image: PILImage.Image) -> str:
    """What is drawn there, by how many pieces it has, its colour, and how much of its box it fills; JPEG's blur is
    looked past."""
    pixels = np.asarray(image.convert("RGB"), dtype=int)[::8, ::8]
    drawn = (pixels < 128).any(-1)
    pieces = ndimage.label(drawn)[1]
    if pieces != 1:
        return f"{NUMBERS.get(pieces, pieces)} dots" if pieces else "nothing"
    rows, columns = (np.flatnonzero(drawn.any(axis)) for axis in (1, 0))
    filled = drawn.sum() / ((rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1))
    middle = np.median(pixels[drawn], axis=0)
    uniform = (abs(pixels[drawn] - middle).max(-1) < 60).mean() > 0.8
    shape = "square" if filled > 0.95 else "circle" if filled > 0.7 else "triangle"
    named = next((name for colour, name in COLOURS.items() if abs(middle - colour).max() < 20), "?")
    return f"{named} {shape}" if uniform else "something"


def animal(image: PILImage.Image) -> str:
    """Which of the doctor's own animals it is."""
    seen = small(image)
    return next((name for name, picture in animals().items() if abs(picture - seen).mean() < 4), "nothing")


@cache
def animals() -> dict[str, Any]:
    return {name: small(picture) for name, picture in ANIMALS.images.items()}


def small(image: PILImage.Image) -> Any:
    return np.asarray(image.convert("RGB").resize((32, 32)), dtype=float)


def written(text: str, body: dict[str, Any], again: int, counts: bool, logprobs: Any = None) -> str:
    message = {"role": "assistant", "content": text}
    usage: dict[str, Any] = {"prompt_tokens": 700, "completion_tokens": 1}
    if counts:
        usage["prompt_tokens_details"] = {"cached_tokens": 640 if "blue" in str(body["messages"])[-200:] else 0}
    return json.dumps(
        {"choices": [{"message": message, "finish_reason": "stop", "logprobs": logprobs}], "usage": usage}
    )


def refusal(message: str) -> Answer:
    return 400, json.dumps({"error": {"message": message, "type": "BadRequestError", "code": 400}})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "CALLS", {1: 1, 8: 4, 32: 8})
    monkeypatch.setattr(steadiness, "REPEATS", 2)
    monkeypatch.setattr(steadiness, "COMPANY", 8)


def examined(run: Run, server: Server, fake: Fake) -> tuple[Result, dict[str, dict[str, str]]]:
    server.answer = fake
    result = run("doctor", "--lmm", server.url, "--model", "vl", "--json")
    return result, {finding["name"]: finding for finding in json.loads(result.stdout)["findings"]}


def failing(findings: dict[str, dict[str, str]]) -> list[str]:
    return [name for name, finding in findings.items() if finding["state"] == "fail"]


def test_a_healthy_server_passes(run: Run, server: Server) -> None:
    result, findings = examined(run, server, Fake())
    assert result.exit_code == 0, result.output
    assert list(findings) == CHECKS
    assert {finding["state"] for finding in findings.values()} == {"ok"}, findings
    told = json.loads(result.stdout)
    assert (told["healthy"], told["probe"], told["model"]) == (True, "shapes", "vl")
    assert told["calls"] == len(server.bodies)
    assert "'Yes'" in findings["yes/no spellings"]["seen"] and "'No'" in findings["yes/no spellings"]["seen"]
    assert "640" in findings["prefix caching"]["seen"]
    assert all(f"with {at_once} at once" in findings["throughput"]["seen"] for at_once in (1, 8, 32))
    assert all(finding["meaning"] and not finding["change"] for finding in findings.values())


FAULTS = {
    "no log-probabilities": (Fake(cap=0), "log-probabilities", "without|no log-prob"),
    "log-probabilities refused": (Fake(cap=0, refuses=True), "log-probabilities", "max allowed: 0"),
    "half for all": (Fake(blind=0.5), "image seen", "0.50 for the right image, 0.50 for a wrong one"),
    "yes to all": (Fake(blind=0.97), "image seen", "0.97 for a blank one"),
    "the best one alone": (Fake(cap=1), "top log-probabilities", "1 of 20"),
    "capped at three": (Fake(cap=3), "top log-probabilities", "3 of 20"),
    "more than two refused": (Fake(cap=2, refuses=True), "top log-probabilities", "2 of 20.*max allowed: 2"),
    "schema ignored": (Fake(schema=False), "JSON schema", "instead of an object with 3 answers"),
    "one picture at most": (Fake(most=1), "several images", "two images in one request are refused: .*At most 1"),
    "two pictures at most": (Fake(most=2), "several images", "accepted, four are refused: .*At most 2"),
    "order turned round": (Fake(turned=True), "several images", "in 0 of 4 requests"),
    "other answers on repeat": (Fake(on_repeat=0.3), "same on repeat", "by at most 0.2"),
    "a temperature of its own": (Fake(drawn=True), "same on repeat", "at most 1.000"),
    "other answers in company": (Fake(in_company=0.3), "same in a batch", "by at most 0.3"),
    "prose": (Fake(prose=True), "yes/no spellings", "other tokens: 'Sure'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_by_its_check_alone(
    fault: str, run: Run, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, check, seen = FAULTS[fault]

    async def in_pairs(*arguments: Any) -> Finding:
        fake.company = threading.Barrier(2)
        try:
            return await check_company(*arguments)
        finally:
            fake.company = None

    monkeypatch.setattr("fieldscope.service.doctor.examine.check_company", in_pairs)
    result, findings = examined(run, server, fake)
    assert result.exit_code == 1
    assert list(findings) == CHECKS
    assert failing(findings) == [check], findings
    assert re.search(seen, findings[check]["seen"])
    assert findings[check]["meaning"] and findings[check]["change"]


def test_a_model_that_is_shown_the_middle_of_pictures_is_told_of(run: Run, server: Server) -> None:
    result, findings = examined(run, server, Fake(crops=True))
    assert result.exit_code == 0, result.output
    assert [name for name, finding in findings.items() if finding["state"] != "ok"] == ["edges seen"]
    assert findings["edges seen"]["state"] == "warn"
    assert "the end of a wide or a tall picture" in findings["edges seen"]["seen"]
    assert "do_center_crop" in findings["edges seen"]["change"]


def test_words_that_agree_do_not_say_that_edges_are_cut_off(run: Run, server: Server) -> None:
    _, findings = examined(run, server, Fake(crops=True, cap=0))
    assert findings["edges seen"]["state"] == "unknown"
    _, findings = examined(run, server, Fake(cap=0))
    assert findings["edges seen"]["state"] == "ok"


def test_a_server_that_takes_no_pictures(run: Run, server: Server) -> None:
    result, findings = examined(run, server, Fake(most=0, blind=0.5))
    assert result.exit_code == 1
    assert failing(findings) == ["image seen"], findings
    assert "At most 0" in findings["image seen"]["seen"]
    assert findings["several images"]["state"] == "unknown"


@pytest.mark.parametrize("second", [0.1, 1.0])
def test_without_a_count_the_time_says_nothing_about_prefix_caching(
    second: float, run: Run, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange, shown = OpenAILMM.exchange, set()

    async def timed(self: OpenAILMM, request: LMMRequest) -> tuple[LMMResponse, str]:
        latency = second if request.images in shown else 1.0
        shown.add(request.images)
        response, body = await exchange(self, request)
        return response.model_copy(update={"latency": latency}), body

    monkeypatch.setattr(OpenAILMM, "exchange", timed)
    result, findings = examined(run, server, Fake(counts=False))
    assert result.exit_code == 0
    assert "does not count" in findings["prefix caching"]["seen"]
    assert f"{second:.0%} of the first" in findings["prefix caching"]["seen"]
    assert findings["prefix caching"]["state"] == "unknown"


@pytest.mark.parametrize("step", [0.001, 1.0, 1000.0])
def test_the_speed_decides_nothing(step: float, run: Run, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock is `step` seconds later than the one before, so many calls at once gain nothing."""
    clock = count(0.0, step)
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    result, findings = examined(run, server, Fake())
    assert result.exit_code == 0
    assert {finding["state"] for finding in findings.values()} == {"ok"}, findings
    assert re.search(r"32 at once are [\d.]+ times as fast", findings["throughput"]["meaning"])


@pytest.mark.parametrize(("failing", "state"), [(1, "warn"), (3, "fail")])
def test_a_repeat_that_fails_is_no_other_answer(
    failing: int, state: str, run: Run, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 24 calls that ask the same again `failing` are refused: the checks before them ask none as often."""
    monkeypatch.setattr(steadiness, "REPEATS", 6)
    fake, refused = Fake(), []

    def refuse_some(body: dict[str, Any]) -> Answer:
        answer = fake(body)
        if fake.asked(body) > 6 and len(refused) < failing:
            refused.append(body)
            return refusal("out of memory")
        return answer

    server.answer = refuse_some
    result = run("doctor", "--lmm", server.url, "--model", "vl", "--json")
    findings = {finding["name"]: finding for finding in json.loads(result.stdout)["findings"]}
    assert findings["same on repeat"]["state"] == state
    assert (
        f"at most 0.000 over 6 repeats of 4 questions; {failing} of these calls failed: "
        in (findings["same on repeat"]["seen"])
    )
    assert "out of memory" in findings["same on repeat"]["seen"]


def test_a_cache_that_finds_nothing_is_a_warning(run: Run, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake()
    monkeypatch.setattr(Fake, "__call__", lambda self, body, ask=Fake.__call__: uncached(ask(self, body)))
    result, findings = examined(run, server, fake)
    assert result.exit_code == 0
    assert findings["prefix caching"]["state"] == "warn"
    assert "--enable-prefix-caching" in findings["prefix caching"]["change"]


def uncached(answer: Answer) -> Answer:
    return answer[0], answer[1].replace('"cached_tokens": 640', '"cached_tokens": 0')


def test_a_model_that_knows_only_fieldnotes_is_asked_about_animals(run: Run, server: Server) -> None:
    server.answer = Fake(knows_shapes=False)
    result = run("doctor", "--lmm", server.url, "--model", "vl", "--json")
    told = json.loads(result.stdout)
    assert told["probe"] == "fieldnotes"
    states = {finding["name"]: finding["state"] for finding in told["findings"]}
    assert states["image seen"] == "ok"


def test_nobody_there_is_one_line(run: Run, nobody: str) -> None:
    result = run("doctor", "--lmm", nobody, "--model", "vl")
    assert result.exit_code == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert "can't reach" in line and nobody in line


def test_a_wrong_name_is_one_line(run: Run, server: Server) -> None:
    result = run("doctor", "--lmm", server.url, "--model", "another")
    assert result.exit_code == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert "serves vl, not another" in line
    assert server.bodies == []
    told = json.loads(run("doctor", "--lmm", server.url, "--model", "another", "--json").stdout)
    assert [(finding["name"], finding["state"]) for finding in told["findings"]] == [("server", "fail")]
    assert told["healthy"] is False


def test_a_server_that_fails_every_call_is_one_line(run: Run, server: Server) -> None:
    server.answer = lambda body: (401, json.dumps({"error": {"message": "no key"}}))
    result = run("doctor", "--lmm", server.url, "--model", "vl")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert "no key" in line


def test_no_list_of_models_is_no_fault(run: Run, server: Server) -> None:
    server.models = (404, "{}")
    result, _ = examined(run, server, Fake())
    assert result.exit_code == 0


def test_the_table_says_what_to_change(run: Run, server: Server) -> None:
    server.answer = Fake(cap=3)
    result = run("doctor", "--lmm", server.url, "--model", "vl")
    assert result.exit_code == 1
    assert all(check in result.stdout for check in CHECKS)
    assert "-> serve with --max-logprobs 20" in " ".join(result.stdout.split())
    assert "failed: top log-probabilities" in result.stdout


def test_nothing_comes_from_the_response_cache(run: Run, server: Server) -> None:
    examined(run, server, Fake())
    first = len(server.bodies)
    examined(run, server, Fake())
    assert len(server.bodies) == 2 * first


def test_the_bundled_model_is_examined_in_process(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def known(images: ImageSource) -> LMM:
        def answer(request: LMMRequest) -> LMMResponse:
            if request.json_schema is not None:
                return LMMResponse(text='{"answers": ["yes", "no", "no"]}' if "json" in request.text else "yes")
            shown = [part.image_id for part in request.images]
            if len(shown) > 1:
                wanted = next(picture for words, picture in ANIMALS.lineup if words in request.text)
                token, other = "abcd"[shown.index(wanted)], "?"
            else:
                yes = any(question in request.text and RIGHT[question] in shown for question in RIGHT)
                token, other = ("yes", "no") if yes else ("no", "yes")
            top = [(token, 0.9), (other, 0.05), *((f"w{n}", 1e-6) for n in range(18))]
            logprobs = tuple(TokenLogprob(token=t, logprob=math.log(p)) for t, p in top)
            return LMMResponse(text=token, answer_logprobs=logprobs, latency=0.01)

        return ScriptedLMM(answer, identity="local:known")

    monkeypatch.setattr(fieldscope.service.wiring.models, "bundled_lmm", known)
    result = run("doctor", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["identity"], told["probe"], told["lmm"]) == ("local:known", "fieldnotes", None)
    states = {finding["name"]: finding["state"] for finding in told["findings"]}
    assert list(states) == CHECKS
    assert states["JSON schema"] == "warn"  # nothing enforces it in process
    assert states["image seen"] == states["several images"] == "ok"


def test_the_animals_are_asked_about_in_words_that_the_bundled_model_knows() -> None:
    texts = [known.question for known in ANIMALS.known] + [description for description, _ in ANIMALS.lineup]
    assert unknown_words(texts, "lmm") == []


@pytest.mark.parametrize("probe", [shapes(), ANIMALS], ids=lambda probe: probe.name)
def test_a_model_that_always_says_the_same_can_not_pass(probe: Any) -> None:
    """Every question has a picture of either answer, and every description has a picture of its own."""
    ids = set(probe.images)
    assert all(known.right != known.wrong and {known.right, known.wrong} <= ids for known in probe.known)
    assert len({picture for _, picture in probe.lineup} & ids) == 4
    assert len({fingerprint_pixels(picture) for picture in probe.images.values()}) == len(ids)
