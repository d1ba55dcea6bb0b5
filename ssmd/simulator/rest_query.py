"""Query parameters as the exchange reads them, pages behind a cursor, and its flat error body."""

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping

from ssmd.simulator.listing import Key, Listed
from ssmd.simulator.source import Row

_MAX_S = 1 << 40


class Refused(Exception):
    """Answered with the flat error body."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def bad_request(message: str) -> Refused:
    """The exchange does not understand the question."""
    return Refused(400, "bad_request", message)


def integer(query: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    """A number between two bounds; `default` when it is not given."""
    text = query.get(name) or str(default)
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20 and low <= int(text) <= high):
        raise bad_request(f"{name}: {text[:40]!r} is not a number from {low} to {high}")
    return int(text)


def seconds(query: Mapping[str, str], name: str) -> int | None:
    """A Unix time in seconds, None when it is not given."""
    return integer(query, name, 0, -_MAX_S, _MAX_S) if query.get(name) else None


def flag(query: Mapping[str, str], name: str) -> bool:
    """`true` or `false`."""
    text = query.get(name) or "false"
    if text not in ("true", "false"):
        raise bad_request(f"{name}: {text[:40]!r} is neither true nor false")
    return text == "true"


def word(query: Mapping[str, str], name: str, allowed: Iterable[str]) -> str | None:
    """One of the allowed words, None when it is not given."""
    text = query.get(name) or None
    if text is not None and text not in allowed:
        raise bad_request(f"{name}: {text[:40]!r} is none of {', '.join(allowed)}")
    return text


def names(query: Mapping[str, str], name: str) -> frozenset[str]:
    """A comma-separated list; empty when it is not given."""
    return frozenset(each for each in (query.get(name) or "").split(",") if each)


def limit(query: Mapping[str, str], *, default: int, low: int, high: int) -> int:
    """The page's size; 0, where it is allowed, is the default."""
    return integer(query, "limit", default, low, high) or default


def page(rows: Callable[[Key | None], Iterable[Listed]], query: Mapping[str, str], size: int) -> tuple[list[Row], str]:
    """`size` rows behind the cursor, and the next cursor: "" at the end. Rows that come and go move no other one."""
    found: list[Listed] = []
    for listed in rows(_key(query.get("cursor"))):
        if len(found) == size:
            return [each.row for each in found], _cursor(found[-1].key)
        found.append(listed)
    return [each.row for each in found], ""


def _cursor(key: Key) -> str:
    return base64.urlsafe_b64encode(f"{key[0]}|{key[1]}".encode()).decode().rstrip("=")


def _key(cursor: str | None) -> Key | None:
    if not cursor:
        return None
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
        number, bar, name = text.partition("|")
        if bar and number.isascii() and number.isdigit():
            return int(number), name
    except (binascii.Error, ValueError):
        pass
    raise bad_request("invalid cursor")
