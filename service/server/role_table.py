"""`[roles.verifier]` of the service's TOML file: the LMM of one role."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from fieldscope.agent.lmm.server_profile import ServerProfile
from fieldscope.core.image_encoding import ImageFormat
from fieldscope.service.wiring.settings import RoleModel


class RoleTable(BaseModel):
    """The settings of `RoleModel`, as a file gives them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lmm: str | None = None
    model_name: str | None = Field(default=None, alias="model")
    revision: str | None = None
    api_key: SecretStr | None = None
    max_side: int | None = Field(default=None, ge=1)
    max_pixels: int | None = Field(default=None, ge=1)
    image_format: ImageFormat | None = None
    request_timeout: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    attempts: int | None = Field(default=None, ge=1)
    profile: ServerProfile | None = None

    @property
    def model(self) -> RoleModel:
        """The same, as all commands have it."""
        own = {name: getattr(self, name) for name in type(self).model_fields if name not in ("model_name", "api_key")}
        key = self.api_key.get_secret_value() if self.api_key else None
        return RoleModel(model=self.model_name, api_key=key, **own)


def role_tables(value: Any) -> Any:
    """Tables from a mapping of roles; those that flags gave are settings already."""
    if not isinstance(value, Mapping):
        return value
    return {role: _table(own) if isinstance(own, RoleModel) else own for role, own in value.items()}


def _table(own: RoleModel) -> dict[str, Any]:
    return {name: value for name, value in vars(own).items() if value is not None}
