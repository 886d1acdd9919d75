"""The limits of a request."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Limits(BaseModel):
    """Bytes of a body, documents of a call, pixels and bytes of an image, characters of a text, seconds of a call;
    calls at work at once, and calls that wait for them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_body: int = Field(default=64_000_000, ge=1)
    max_documents: int = Field(default=1_000, ge=1)
    max_pixels: int = Field(default=64_000_000, ge=1)
    max_image_bytes: int = Field(default=20_000_000, ge=1)
    max_text: int = Field(default=20_000, ge=1)
    max_seconds: float = Field(default=600.0, gt=0, allow_inf_nan=False)
    at_work: int = Field(default=8, ge=1)
    waiting: int = Field(default=128, ge=0)
