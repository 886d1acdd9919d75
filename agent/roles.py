"""Which LMM answers what: stages name a role, and each role has an LMM.

ImageScope (arXiv 2503.10166) is set up like that: a small verifier answers most questions, a larger LMM judges.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from fieldscope.agent.lmm.identity import may_be

if TYPE_CHECKING:
    from fieldscope.agent.lmm.base import LMM

Role = Literal["reasoner", "captioner", "verifier", "judge"]
"""`reasoner` reads text only, `captioner` describes images, `verifier` answers questions about one image, and `judge`
compares images and gives reasons."""

ROLES: tuple[Role, ...] = get_args(Role)

ModelIdentity = str | Mapping[str, str]
"""The identity of one LMM that has all roles, or of the LMM of each role."""


@dataclass(frozen=True)
class LMMs:
    """The LMM of each role. `shared` has every role that `own` does not name; None where those have none."""

    shared: LMM | None = None
    own: Mapping[Role, LMM] = field(default_factory=dict)

    @classmethod
    def of(cls, models: LMM | LMMs | None) -> LMMs:
        """The LMMs of all roles, where one LMM may stand for all of them."""
        return models if isinstance(models, LMMs) else cls(models)

    def get(self, role: Role) -> LMM | None:
        """The LMM of a role; None where it has none."""
        return self.own.get(role, self.shared)

    def distinct(self) -> list[LMM]:
        """Each LMM once, however many roles it has."""
        return list({id(lmm): lmm for lmm in (self.shared, *self.own.values()) if lmm is not None}.values())

    def missing(self, roles: Collection[Role]) -> list[Role]:
        """Which of the roles have no LMM."""
        return [role for role in ROLES if role in roles and self.get(role) is None]

    def wrapped(self, wrap: Callable[[LMM], LMM]) -> LMMs:
        """The same with each LMM wrapped once, however many roles it has."""
        wraps = {id(lmm): wrap(lmm) for lmm in self.distinct()}
        own = {role: wraps[id(lmm)] for role, lmm in self.own.items()}
        return LMMs(None if self.shared is None else wraps[id(self.shared)], own)

    def identity(self, roles: Collection[Role] = ROLES) -> ModelIdentity | None:
        """Who answers in these roles: one identity where it is the same for all, else each role's own; None where none
        of the roles has an LMM."""
        return joined({role: lmm.identity for role in ROLES if role in roles and (lmm := self.get(role))})


def joined(by_role: Mapping[Role, str]) -> ModelIdentity | None:
    """The identities of LMMs by role, as one where they are the same; None where there are none."""
    different = dict.fromkeys(by_role.values())
    if len(different) > 1:
        return {str(role): identity for role, identity in by_role.items()}
    return next(iter(different), None)


def read_identity(value: object) -> ModelIdentity | None:
    """Who answered, as a trace or a manifest records it; None for anything else."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, Mapping) and all(isinstance(identity, str) for identity in value.values()):
        return {str(role): identity for role, identity in value.items()} or None
    return None


def role_identity(model: ModelIdentity | None, role: Role) -> str | None:
    """The identity of the LMM that has a role; None where no LMM is known to have it."""
    return model if model is None or isinstance(model, str) else model.get(role)


def roles_by_model(model: ModelIdentity | None) -> dict[str, tuple[str, ...]]:
    """Identity -> the roles of that LMM, in the order of `ROLES`; without roles for one that has all of them."""
    if not model:
        return {}
    if isinstance(model, str):
        return {model: ()}
    roles: dict[str, tuple[str, ...]] = {}
    for role in sorted(model, key=lambda name: ROLES.index(name) if name in ROLES else len(ROLES)):
        roles[model[role]] = (*roles.get(model[role], ()), role)
    return roles


def model_text(model: ModelIdentity | None, shorten: Callable[[str], str] = str) -> str | None:
    """Who answered, for people: one identity, or each with its roles; None for no LMM. `shorten` shortens an
    identity."""
    parts = [
        shorten(identity) + (f" ({', '.join(roles)})" if roles else "")
        for identity, roles in roles_by_model(model).items()
    ]
    return "; ".join(parts) or None


def models_may_be(recorded: ModelIdentity | None, wanted: ModelIdentity | None) -> bool:
    """`may_be` for LMMs by role: in each role, what was recorded may be of the LMM that is wanted."""
    if isinstance(recorded, Mapping) and isinstance(wanted, Mapping):
        return recorded.keys() == wanted.keys() and all(may_be(recorded[role], wanted[role]) for role in wanted)
    if isinstance(recorded, Mapping) or isinstance(wanted, Mapping):
        return False
    return may_be(recorded, wanted)
