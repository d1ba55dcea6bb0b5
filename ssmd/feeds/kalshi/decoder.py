"""Frame bytes to typed messages: a fast path for what is known, a patient one for everything else.

1. Strict typed decoding: every field is known, nothing is skipped unread. Nearly all frames.
2. Tolerant typed decoding: a frame with fields that came later. It is mapped like any other; whether it can stand
   verbatim in a raw line is asked of an untyped parser, because typed parsing does not check what it skips.
3. Untyped: the type, sid and seq of whatever has them, so that sequences stay whole; no message, hence no event.
"""

import json
import re
from typing import Any, NoReturn, cast

import msgspec

from ssmd.feeds.interface import Decoded
from ssmd.feeds.kalshi.messages import (
    GROUP_OF_TYPE,
    INT64_MAX,
    KIND_OF,
    UINT32_MAX,
    decode_strict,
    decode_tolerant,
)
from ssmd.feeds.kalshi.translate import is_ticker

MAX_TYPE_LENGTH = 64
MAX_DEPTH = 64
_MAX_INTEGER_DIGITS = 4000

_KINDS = {kind: (name, group, group in ("orderbook", "trades", "ticker")) for kind, (name, group) in KIND_OF.items()}
"""Name, group, and whether the body is flat: the others may hold anything, so their depth is bounded."""
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_decode_any = msgspec.json.Decoder().decode
_MISSING = "missing required field"  # msgspec's words
# What msgspec raises on hostile input: its own errors, UnicodeDecodeError for bad UTF-8, RecursionError for depth.
DECODE_ERRORS = (msgspec.MsgspecError, ValueError, RecursionError)


class KalshiDecoder:
    """Today's frames (since 2026-03-12). Stateless."""

    def decode(self, frame: bytes) -> Decoded:
        """What `frame` is; see `feeds.interface.Decoder`. Never raises."""
        try:
            message = decode_strict(frame)
        except DECODE_ERRORS:
            return _decode_drifted(frame)
        name, group, flat = _KINDS[message.__class__]
        if not flat and too_deep(frame):
            return Decoded("invalid", "control", False, None, None, None, "too_deep")
        return Decoded(name, group, 10 not in frame and 13 not in frame, message.sid, message.seq, message)


def _decode_drifted(frame: bytes) -> Decoded:
    """A frame with unknown fields if it is otherwise right, else whatever can be learned from it."""
    if too_deep(frame):
        return Decoded("invalid", "control", False, None, None, None, "too_deep")
    try:
        message = decode_tolerant(frame)
    except msgspec.ValidationError as error:
        return recover(frame, "missing_field" if _MISSING in str(error) else "shape_drift")
    except DECODE_ERRORS:
        return recover(frame)
    name, group = KIND_OF[type(message)]
    return Decoded(name, group, is_strict_json(frame), message.sid, message.seq, message)


def is_strict_json(frame: bytes) -> bool:
    """True when `frame` is one line of UTF-8 that also a strict JSON parser reads."""
    if 10 in frame or 13 in frame:
        return False
    try:
        _decode_any(frame)
    except DECODE_ERRORS:
        return False
    return True


def too_deep(frame: bytes) -> bool:
    """True when brackets are nested deeper than `MAX_DEPTH` (within a factor of two), whatever the parsers' limits.

    Parsers give up at a depth that depends on their caller's stack; here the answer depends on the frame only.
    """
    if frame.count(b"[") + frame.count(b"{") <= MAX_DEPTH:
        return False
    brackets = _STRINGS.sub(b"", frame).translate(None, _NOT_BRACKETS)
    for _ in range(MAX_DEPTH):
        inner_removed = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if len(inner_removed) == len(brackets):
            return len(brackets) > 2 * MAX_DEPTH  # unbalanced: not JSON at all, let the parser say so unless it is huge
        brackets = inner_removed
    return bool(brackets)


def recover(frame: bytes, drift: str = "shape_drift") -> Decoded:
    """Type, sid and seq of a frame that no typed message fits; type `invalid` where there is no type.

    `drift` is the problem of a frame whose type is known.
    """
    inline = is_strict_json(frame)
    try:
        # Read leniently: lone surrogates, huge numbers and broken UTF-8 must not hide the sequence number.
        value = json.loads(frame.decode("utf-8", "replace"), parse_constant=_refuse, parse_int=_integer)
    except (ValueError, RecursionError):
        return Decoded("invalid", "control", False, None, None, None, "invalid_json")
    if not isinstance(value, dict):
        return Decoded("invalid", "control", inline, None, None, None, "not_object")
    sid = _within(value.get("sid"), UINT32_MAX)
    seq = _within(value.get("seq"), INT64_MAX)
    name = value.get("type")
    if not isinstance(name, str) or not name:
        return Decoded("invalid", "control", inline, sid, seq, None, "no_type")
    name = name[:MAX_TYPE_LENGTH]
    if not is_ticker(name):  # a type becomes part of subjects as tickers do
        return Decoded("invalid", "control", inline, sid, seq, None, "bad_type")
    known = GROUP_OF_TYPE.get(name)
    problem = "unknown_type" if known is None else drift
    ticker = _ticker(value.get("msg"))
    return Decoded(name, known or "control", inline, sid, seq, ticker, problem)


def _ticker(body: object) -> str | None:
    """The market that a frame of unreadable shape is about, so that its book can be distrusted."""
    ticker = cast(dict[str, Any], body).get("market_ticker") if isinstance(body, dict) else None
    return ticker if isinstance(ticker, str) else None


def _within(value: object, limit: int) -> int | None:
    return value if type(value) is int and 0 <= value <= limit else None


def _integer(digits: str) -> int | None:
    return int(digits) if len(digits) <= _MAX_INTEGER_DIGITS else None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
