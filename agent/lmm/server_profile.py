"""What a server takes of a chat completion's parameters, found out from what it refuses.

OpenAI's protocol has as many dialects as servers. A profile is found out once for a server and a model, by the server's
own words in a refusal, one parameter at a time, and remembered for the process. A server that refuses nothing costs
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fieldscope.agent.lmm.base import LMMRequest
from fieldscope.agent.lmm.refusal import Refusal, lower_bound, upper_bound

MOST_LOGPROBS = 20

Parameter = Literal["token_limit", "min_tokens", "top_logprobs", "temperature", "seed", "response_format"]
"""A field of a profile."""

_FEWER = (10, 5, 1, 0)  # alternatives to try where a refusal does not say how many there may be
_LEFT_OUT: tuple[Parameter, ...] = ("temperature", "seed", "response_format")


class ServerProfile(BaseModel):
    """How to put a request to a server; the defaults are the protocol.

    `token_limit` is the name under which the limit of an answer's length is sent, and `min_tokens` the least that may
    be sent (the answer is read where it starts, so a longer one does no harm). `top_logprobs` is the most alternatives
    for a token, 0 where the server gives no log-probabilities. `temperature`, `seed` and `response_format` say whether
    these are sent at all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    min_tokens: int = Field(default=1, ge=1)
    top_logprobs: int = Field(default=MOST_LOGPROBS, ge=0, le=MOST_LOGPROBS)
    temperature: bool = True
    seed: bool = True
    response_format: bool = True

    def fit(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """A chat completion's parameters as this server takes them."""
        fitted = dict(parameters)
        fitted[self.token_limit] = max(fitted.pop("max_tokens"), self.min_tokens)
        if "top_logprobs" in fitted:
            fitted["top_logprobs"] = min(fitted["top_logprobs"], self.top_logprobs)
            if not self.top_logprobs:
                del fitted["logprobs"], fitted["top_logprobs"]
        return {name: value for name, value in fitted.items() if name not in _LEFT_OUT or getattr(self, name)}

    def fit_request(self, request: LMMRequest) -> LMMRequest:
        """The request with as many alternatives as can be expected in the answer."""
        return request.model_copy(update={"top_logprobs": min(request.top_logprobs, self.top_logprobs)})

    def adapted(self, request: LMMRequest) -> tuple[str, ...]:
        """What of the request the server is not asked for, as far as it decides the answer: fewer alternatives, no
        temperature, no schema, and no seed where the answer is drawn. It belongs to the answer, not to the model."""
        drawn = request.temperature > 0 or not self.temperature
        changes = {
            f"top_logprobs={self.top_logprobs}": request.top_logprobs > self.top_logprobs,
            "no temperature": not self.temperature,
            "no seed": not self.seed and drawn,
            "no response_format": not self.response_format and request.json_schema is not None,
        }
        return tuple(change for change, made in changes.items() if made)


@dataclass(frozen=True)
class KnownProfile:
    """A profile; for each field that a refusal has changed the server's `words`; and the fields that a user has set,
    which are `fixed`."""

    profile: ServerProfile = field(default_factory=ServerProfile)
    words: Mapping[Parameter, str] = field(default_factory=dict)
    fixed: frozenset[str] = frozenset()

    def after(self, refusal: Refusal, sent: Mapping[str, Any]) -> KnownProfile | None:
        """What is known once the server has refused the parameters that were `sent`: one more of them. None where the
        refusal names none that can be sent otherwise."""
        for parameter, value in _changes(self.profile, refusal, sent):
            if parameter not in self.fixed:
                profile = self.profile.model_copy(update={parameter: value})
                return replace(self, profile=profile, words={**self.words, parameter: refusal.words})
        return None

    def fix(self, chosen: ServerProfile | None) -> KnownProfile:
        """The same with the fields that are set in `chosen`, whatever the server says."""
        if chosen is None:
            return self
        values = {name: getattr(chosen, name) for name in chosen.model_fields_set}
        words = {name: said for name, said in self.words.items() if name not in values}
        return KnownProfile(self.profile.model_copy(update=values), words, frozenset(values))

    @property
    def found_out(self) -> KnownProfile:
        """The same without what a user has set."""
        values = {name: getattr(self.profile, name) for name in self.words}
        return KnownProfile(ServerProfile(**values), self.words)


def _changes(profile: ServerProfile, refusal: Refusal, sent: Mapping[str, Any]) -> list[tuple[Parameter, Any]]:
    """The fields that a refusal may speak of, the likeliest first, each with the value that it then has."""
    changes: list[tuple[int, Parameter, Any]] = []
    if (tokens := sent.get(profile.token_limit)) and (place := refusal.place("tokens")) is not None:
        if (least := lower_bound(refusal.words, tokens)) is not None:
            changes.append((place, "min_tokens", least))
        elif refusal.denies and profile.token_limit == "max_tokens":
            changes.append((place, "token_limit", "max_completion_tokens"))
    if (asked := sent.get("top_logprobs")) and (place := refusal.place("logprobs")) is not None:
        most = upper_bound(refusal.words, asked)
        if most is not None or refusal.limits:
            fewer = most if most is not None else next(number for number in _FEWER if number < asked)
            changes.append((place, "top_logprobs", fewer))
        elif refusal.denies:
            changes.append((place, "top_logprobs", 0))
    for name in _LEFT_OUT:
        # The temperature is the strategy's: it is left out only where the server takes none at all.
        refused = refusal.denies or (refusal.corrects and name != "temperature")
        if name in sent and refused and (place := refusal.place(name)) is not None:
            changes.append((place, name, False))
    return [(parameter, value) for _, parameter, value in sorted(changes, key=lambda change: change[0])]


_KNOWN: dict[tuple[str, str], KnownProfile] = {}


def known_profile(url: str, model: str) -> KnownProfile:
    """What this process knows of a model behind a server."""
    return _KNOWN.get((url, model), KnownProfile())


def remember_profile(url: str, model: str, known: KnownProfile) -> None:
    """Keep what was found out for all clients of this process."""
    _KNOWN[url, model] = known.found_out


def forget_profiles() -> None:
    """Find everything out again."""
    _KNOWN.clear()
