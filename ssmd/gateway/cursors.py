"""Cursors: where a page ended, as text that clients hand back unread; checked against the question it belongs to."""

import base64
import binascii
import hashlib
from typing import TypeVar

import msgspec

from ssmd.gateway.problems import ApiProblem

MAX_CURSOR_CHARS = 1_200
_CHECK_BYTES = 6

T = TypeVar("T")


def encode_cursor(question: object, place: object) -> str:
    """`place` in the answer to `question` (anything msgspec encodes)."""
    body = msgspec.json.encode(place)
    return base64.urlsafe_b64encode(_check(question, body) + body).rstrip(b"=").decode()


def decode_cursor(cursor: str, question: object, kind: type[T]) -> T:
    """The place in `cursor`; ApiProblem 400 when it is none, or of another question."""
    try:
        data = base64.b64decode(cursor.encode() + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        check, body = data[:_CHECK_BYTES], data[_CHECK_BYTES:]
        if check != _check(question, body):
            raise ValueError("it belongs to another question")
        return msgspec.json.decode(body, type=kind)
    except (binascii.Error, ValueError) as error:  # msgspec's errors and UnicodeError are ValueErrors
        raise ApiProblem(
            400,
            "bad_parameter",
            f"parameter 'cursor' {cursor[:40]!r} is not from an answer to these same parameters",
            "Begin again without it, or keep the other parameters as they were.",
            parameter="cursor",
        ) from error


def _check(question: object, body: bytes) -> bytes:
    return hashlib.blake2b(msgspec.json.encode(question) + b"\n" + body, digest_size=_CHECK_BYTES).digest()
