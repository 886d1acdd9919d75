"""The one error tree.

FieldscopeError                 anything that Fieldscope raises on purpose: one line that says what to do
├── ConfigError                 a setting, strategy, prompt or file that can't be used as it is
│   ├── PromptError             a missing, undeclared or unknown prompt or variable
│   ├── StrategyError           an unknown or invalid strategy
│   └── VocabularyError         words that a bundled model has never seen
├── ImageError                  one image that can't be read; the others go on
│   ├── BrokenImageError        missing, truncated, or no image at all
│   └── ImageTooLargeError      over the size or the pixel limit
├── IndexMismatchError          an index of another encoder, or a damaged one
├── BenchmarkError              a benchmark file of the wrong shape
├── CacheError                  the response cache can't be read or written
│   └── CacheMissError          replay asked for a call that was never recorded
├── BudgetError                 a call that the budget did not allow; it was never made
└── LMMError                    a model call that gave no usable answer
    ├── LMMConnectionError      the server can't be reached, or timed out (can pass)
    ├── LMMRateLimitError       the server asks to slow down (can pass)
    ├── LMMServerError          the server failed, status 5xx (can pass)
    ├── LMMRequestError         the server refuses this request, other status 4xx (can't pass)
    │   └── ContextLengthError  the prompt is longer than the model's context
    └── LMMResponseError        an unusable answer: garbled, empty, or without the requested parts
"""

from __future__ import annotations


def first_line(error: BaseException, longest: int = 200) -> str:
    """The beginning of an error's text, or its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:longest]


def one_line(words: object, longest: int = 240) -> str:
    """Anything as one line of text for an error message; an exception without words by its class."""
    line = " ".join(str(words).split()) or type(words).__name__
    return line if len(line) <= longest else line[: longest - 3] + "..."


class FieldscopeError(Exception):
    """Base of every error that Fieldscope raises on purpose. `str(error)` is one line that says what to do."""


class ConfigError(FieldscopeError):
    """A setting, strategy, prompt or file that can't be used as it is."""


class PromptError(ConfigError):
    """A missing, undeclared or unknown prompt or prompt variable."""


class StrategyError(ConfigError):
    """An unknown or invalid strategy."""


class VocabularyError(ConfigError):
    """Words that a bundled model has never seen, so that its answers would be invented."""


class ImageError(FieldscopeError):
    """One image that can't be read; the others go on."""


class BrokenImageError(ImageError):
    """The file is missing, truncated, or no image."""


class ImageTooLargeError(ImageError):
    """The file is over the size limit, or the picture over the pixel limit."""


class IndexMismatchError(FieldscopeError):
    """An index that belongs to another encoder, or whose files do not agree with its manifest."""


class BenchmarkError(FieldscopeError):
    """A benchmark file of the wrong shape."""


class CacheError(FieldscopeError):
    """The response cache can't be read or written."""


class CacheMissError(CacheError):
    """Replay asked for a call that was never recorded."""


class BudgetError(FieldscopeError):
    """A call that the budget of calls, tokens or time did not allow. The agent turns it into "not asked"."""


class LMMError(FieldscopeError):
    """A model call that gave no usable answer. The agent turns it into an unknown verdict. `retry_after` is the pause
    in seconds that the server asks for, where it said so."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class LMMConnectionError(LMMError):
    """The server can't be reached, or did not answer in time."""


class LMMRateLimitError(LMMError):
    """The server asks to slow down."""


class LMMServerError(LMMError):
    """The server failed (status 5xx)."""


class LMMRequestError(LMMError):
    """The server refuses this request (a status 4xx that does not pass); `words` are its own, `body` all that it wrote,
    both empty where the refusal is not the server's."""

    def __init__(self, message: str, words: str = "", body: str = "") -> None:
        super().__init__(message)
        self.words = words
        self.body = body


class ContextLengthError(LMMRequestError):
    """The prompt and its answer are longer than the model's context. Repeating the call does not help."""


class LMMResponseError(LMMError):
    """An unusable answer: garbled, empty, or without the requested parts."""


class FieldscopeWarning(UserWarning):
    """Something that makes a result worth less than it looks, for callers in Python. The text is one line."""
