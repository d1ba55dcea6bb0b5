"""Kalshi's fixed-point strings and timestamps, as integers and back."""

from datetime import UTC, datetime
from functools import lru_cache

MICRO = 1_000_000
_SCALE = (1_000_000, 100_000, 10_000, 1_000, 100, 10, 1)


@lru_cache(maxsize=65_536)  # prices and sizes repeat
def parse_fixed(text: str) -> int:
    """Millionths of a dollar or contract; ValueError when `text` is not a decimal number of at most 6 places."""
    whole, dot, fraction = text.partition(".")
    digits = whole.removeprefix("-")
    places = len(fraction)
    if digits.isdigit() and text.isascii() and places <= 6 and (fraction.isdigit() if dot else True):
        return int(whole + fraction) * _SCALE[places]
    raise ValueError(f"{text[:40]!r} is not a fixed-point number of at most six places")


def dollars(value: int) -> str:
    """Four decimal places, more only where they are needed: 480000 → "0.4800"."""
    return _fixed(value, 4)


def contracts(value: int) -> str:
    """Two decimal places, more only where they are needed: 9850000 → "9.85"."""
    return _fixed(value, 2)


def _fixed(value: int, places: int) -> str:
    sign = "-" if value < 0 else ""
    whole, fraction = divmod(abs(value), MICRO)
    digits = f"{fraction:06d}"
    keep = max(places, len(digits.rstrip("0")))
    return f"{sign}{whole}.{digits[:keep]}"


def rfc3339(ns: int) -> str:
    """Microseconds with trailing zeros stripped, as the exchange writes them."""
    seconds, rest = divmod(ns, 1_000_000_000)
    fraction = f"{rest // 1000:06d}".rstrip("0")
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{fraction}Z" if fraction else f"{text}Z"
