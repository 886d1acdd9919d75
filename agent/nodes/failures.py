"""What goes wrong in one task of a wave."""

from __future__ import annotations

import copy

from langgraph.errors import NodeCancelledError, NodeError

from fieldscope.agent.call import one_line
from fieldscope.core.errors import FieldscopeError


def require_foreseen(error: NodeError) -> str:
    """One line about what nobody foresaw in a task: its questions are unknown, and the others go on.

    Errors that are raised on purpose (a replay's missing call, words outside a vocabulary) and cancellation do end the
    run. They are raised as copies: LangGraph takes an exception that it has handed over for settled, and would go on.
    """
    if isinstance(error.error, FieldscopeError | NodeCancelledError) or not isinstance(error.error, Exception):
        raise copy.copy(error.error) from error.error
    return f"unforeseen {type(error.error).__name__}: {one_line(error.error)}"
