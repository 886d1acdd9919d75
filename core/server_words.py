"""What a server said when it refused, and what to do about a connection that can't be made, on one line each."""

from __future__ import annotations

import json
import os
import re
import ssl
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any
from urllib.request import getproxies

from fieldscope.core.errors import ConfigError, one_line

_WORDS = ("message", "detail", "error", "errors", "msg", "reason", "title", "description", "error_description")
"""The fields that servers put their sentence in, the likeliest first: OpenAI's, FastAPI's, RFC 9457's, OAuth's."""

_CONTEXT = ("max_model_len", "context_length", "context_window")
_MOST = 3  # sentences of a list
_UNSEEN = re.compile(r"<(script|style|head)\b.*?</\1\s*>|<!--.*?-->", re.IGNORECASE | re.DOTALL)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^>]*>")
_HTML = re.compile(r"\s*<(!doctype|html|head|body|\?xml)\b", re.IGNORECASE)

_HIDDEN = "[the API key]"


def usable_key(*keys: str | None) -> str | None:
    """The first key that is one, without the blanks around it, which a copied key may have.

    Raises `ConfigError`, which does not show the key, where it could not stand in an HTTP header.
    """
    key = next((stripped for key in keys if (stripped := (key or "").strip())), None)
    if key is not None and not (key.isascii() and key.isprintable()):
        place = next(n for n, c in enumerate(key, start=1) if not (c.isascii() and c.isprintable()))
        raise ConfigError(
            f"the API key has a character that can't be sent, at place {place} of {len(key)}: copy it again into "
            "FIELDSCOPE_API_KEY"
        )
    return key


def without_key(words: str, key: str | None) -> str:
    """The words with the key blotted out, where they hold it."""
    return re.sub(rf"(?<![A-Za-z0-9]){re.escape(key)}(?![A-Za-z0-9])", _HIDDEN, words) if key else words


def server_words(body: object, key: str | None = None) -> str:
    """What the body of an error says, whatever its shape, on one line; empty where it says nothing."""
    said = "; ".join(dict.fromkeys(list(_sentences(body))[:_MOST]))
    if not said and body and not isinstance(body, str):
        said = json.dumps(body, ensure_ascii=False, default=str)
    said = without_key(said, key)
    return one_line(said) if said.strip() else ""


def context_length(body: str, model: str) -> int | None:
    """The tokens of a model's context by a model list: vLLM's and SGLang's `max_model_len`, others' `context_length`.

    None where the list does not say.
    """
    try:
        models = json.loads(body)["data"]
        named = next(entry for entry in models if entry["id"] == model)
        limit = next(named[name] for name in _CONTEXT if named.get(name) is not None)
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration):
        return None
    return limit if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0 else None


def connection_advice(
    error: BaseException, url: str, option: str = "--lmm", start: str = "start the server (fieldscope lmm serve MODEL)"
) -> tuple[str, bool]:
    """Why no connection came about and what to do, and whether another attempt may get one. The user gave the address
    with `option`, and does `start` where no server is there."""
    faults = list(_chain(error))
    words = one_line(next((fault for fault in faults if str(fault)), faults[0]))
    all_words = " ".join(map(str, faults))
    if "CERTIFICATE_VERIFY_FAILED" in all_words:
        reason = words.partition("certificate verify failed: ")[2].partition(" (_ssl")[0] or words
        return (
            f"the certificate of {url} is not trusted ({reason}): name its authority's file in SSL_CERT_FILE",
            False,
        )
    if "WRONG_VERSION_NUMBER" in all_words or "record layer failure" in all_words:
        return f"{url} does not speak TLS ({words}): write http:// in {option}", False
    if "SSL" in all_words or "TLS" in all_words:
        return f"no secure connection to {url} ({words}): check its certificate, and whether it is http://", False
    plain = url.startswith("http://")
    if plain and re.search(r"(illegal status line|Expected HTTP/).*\\x15\\x03", all_words, re.DOTALL):
        return f"{url} speaks TLS: write https:// in {option}", False
    hint = ", or write https:// where it speaks TLS" if plain and _closed_unanswered(faults) else ""
    return f"can't reach {url} ({words}): {start} or check {option}{hint}", True


def require_usable_environment() -> None:
    """Raise `ConfigError` where a variable that every client of HTTP reads names no proxy or no certificates."""
    for kind, address in getproxies().items():
        scheme = address.partition("://")[0].lower()
        if kind not in ("http", "https", "all"):
            continue
        name = f"{kind.upper()}_PROXY"
        if scheme.startswith("socks") and find_spec("socksio") is None:
            raise ConfigError(f"{name} names a SOCKS proxy: run pip install socksio, or unset {name}")
        if "://" in address and scheme not in ("http", "https", "socks5", "socks5h"):
            raise ConfigError(f"{name} is no proxy's address: write it like http://host:3128, or unset it")
    if certificates := os.environ.get("SSL_CERT_FILE"):
        try:
            ssl.create_default_context(cafile=certificates)
        except OSError as error:
            raise ConfigError(
                f"the certificates in SSL_CERT_FILE={certificates} can't be read ({one_line(error)}): name a PEM "
                "file, or unset it"
            ) from error


def _sentences(body: object) -> Iterator[str]:
    if isinstance(body, str):
        yield from filter(None, [_text(body)])
    elif isinstance(body, Mapping):
        for name in _WORDS:
            if found := list(_sentences(body.get(name))):
                place = _place(body.get("loc"))
                yield from (f"{place}: {sentence}" if place else sentence for sentence in found)
                return
    elif isinstance(body, Sequence):
        for item in body:
            yield from _sentences(item)


def _place(location: Any) -> str:
    """FastAPI says which field: `["body", "messages", 0]`."""
    return ".".join(map(str, location)) if isinstance(location, list | tuple) else ""


def _text(words: str) -> str:
    """Words as they are, of a page its title and its text."""
    if not _HTML.match(words):
        return " ".join(words.split())
    title = _TITLE.search(words)
    parts = (_TAG.sub(" ", title[1]) if title else "", _TAG.sub(" ", _UNSEEN.sub(" ", words)))
    return " ".join(dict.fromkeys(filter(None, (" ".join(part.split()) for part in parts)))) or "an empty page"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _closed_unanswered(faults: Sequence[BaseException]) -> bool:
    names = {type(fault).__name__ for fault in faults}
    return bool(names & {"RemoteProtocolError", "ReadError", "ConnectionResetError", "ServerDisconnectedError"})
