"""Every error of the service: JSON with a code for programs and a sentence for people."""

from __future__ import annotations

from core.errors import FieldscopeError


class ApiError(FieldscopeError):
    """An answer that is no result. `code` is for programs; `retry_after` is in seconds, where trying again helps."""

    def __init__(self, status: int, code: str, sentence: str, retry_after: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.code = code
        self.retry_after = retry_after
