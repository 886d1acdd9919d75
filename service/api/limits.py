"""What a request may ask for at most."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bytes of a body, documents of a call, pixels and bytes of a picture, characters of a text, seconds of a call;
    calls at work at once, and calls that wait for them."""

    max_body: int = 64_000_000
    max_documents: int = 1_000
    max_pixels: int = 50_000_000
    max_image_bytes: int = 20_000_000
    max_text: int = 20_000
    max_seconds: float = 600.0
    at_work: int = 8
    waiting: int = 128
