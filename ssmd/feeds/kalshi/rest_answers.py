"""Answers of Kalshi's REST API: bodies as JSON says them, what is wrong with an object, the error of a status."""

import contextlib
import json
from typing import Any

import msgspec

from ssmd.errors import ConfigError, DataError, RateLimited, SsmdError, Unavailable
from ssmd.registry.values import printable

MAX_TEXT = 300
NOT_JSON = "something that is not the JSON expected"
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])
_VALUE = msgspec.json.Decoder()


class QueryRefused(DataError):
    """The exchange does not take this query (400)."""


class NotListed(DataError):
    """The exchange has no such page or object (404)."""


class NoJson(ValueError):
    """A text that is not JSON."""


def parse_body(raw: bytes) -> object:
    """A body as JSON says it; None when it is not JSON.

    Lists are read object by object: a page of a thousand markets in one call would keep all other threads waiting for
    10 to 30 ms, wherever it was made.
    """
    try:
        try:
            fields = _FIELDS.decode(raw)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return _value(raw)
        return {name: _list(value) for name, value in fields.items()}
    except NoJson:
        return None


def _list(raw: msgspec.Raw) -> object:
    try:
        items = _ITEMS.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return _value(raw)
    return [_value(item) for item in items]


def _value(raw: bytes | msgspec.Raw) -> object:
    try:
        return _VALUE.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass
    # One text that is not quite JSON (a lone surrogate) must not cost a page of a thousand markets.
    text = bytes(raw)
    if b"\\ud" in text or b"\\uD" in text:
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(text)
    raise NoJson


def error_of(status: int, message: str, retry_after: str, signed_hint: str) -> SsmdError:
    """The error that a status means; `signed_hint` is what to do about one that asks for a login."""
    if status in (401, 403):
        return ConfigError(message, signed_hint)
    if status == 429:
        return RateLimited(message, retry_after_s=float(retry_after) if retry_after.isdecimal() else None)
    if status >= 500 or 300 <= status < 400 or status == 408:
        return Unavailable(message)
    return {400: QueryRefused, 404: NotListed}.get(status, DataError)(message)


def error_text(body: object, raw: bytes = b"") -> str:
    """What an error body says: flat `{"code","message"}`, nested in `error`, `{"error":"..."}`, HTML, nothing."""
    if isinstance(body, dict):
        inner = body.get("error", body)
        if isinstance(inner, str):
            return inner[:MAX_TEXT]
        if isinstance(inner, dict):
            parts = [str(inner[key]) for key in ("code", "message", "details") if inner.get(key)]
            if parts:
                return ": ".join(parts)[:MAX_TEXT]
    text = " ".join(raw[:MAX_TEXT].decode("utf-8", "replace").split())
    if not text:
        return "an empty body"
    return repr(text) if isinstance(body, dict) else f"answered with {NOT_JSON}: {text!r}"


def fault_of(item: object, name: str) -> dict[str, str]:
    """Why one of the exchange's objects is left out, as fields of a log line; `name` is the key of its ticker."""
    if not isinstance(item, dict):
        return {"ticker": "", "reason": f"{_kind(item)} where an object was expected"}
    found = item.get(name)
    said = {"ticker": "" if found is None else printable(str(found), 80)}
    title = item.get("title")
    if isinstance(title, str):
        said["title"] = printable(title, 80)
    if found is None or found == "":
        return {**said, "reason": f"it has no {name}"}
    return {**said, "reason": f"its {name} is {_kind(found)}, not a text"}


def _kind(value: Any) -> str:
    kinds = {type(None): "null", bool: "true or false", str: "a text", list: "a list", dict: "an object"}
    return kinds.get(type(value), "a number")
