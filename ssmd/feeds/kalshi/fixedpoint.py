"""Kalshi's fixed-point strings (`"0.4500"`, `"-9.12"`) to integers in millionths, exactly or not at all."""

import re

from ssmd.errors import DataError
from ssmd.market.events import SCALE

INT64_MAX = 2**63 - 1
INT64_MIN = -(2**63)
_FIXED_POINT = re.compile(r"(-?)([0-9]{1,19})(?:\.([0-9]{1,6}))?", re.ASCII)
_SAFE_DIGITS = 12
_POWERS = {2: 10_000, 4: 100}
"""Factor to a million by number of decimals; with at most `_SAFE_DIGITS` before the point it stays within Int64."""


class BadValue(DataError):
    """A price or size that cannot be taken exactly; `problem` is its kind, as counted."""

    def __init__(self, problem: str, text: str) -> None:
        super().__init__(f"{text[:40]!r}: {problem}")
        self.problem = problem


def parse_fixed(text: str, problem: str = "bad_value") -> int:
    """`text` times a million; at most six decimals, no exponent, no plus sign, within Int64.

    Raises BadValue(`problem`) for anything else: what would have to be rounded or guessed is refused.
    """
    # Sizes have two decimals and prices four: nearly every string is read here, in a third of the pattern's time.
    number = text.removeprefix("-")
    whole, _, decimals = number.partition(".")
    power = _POWERS.get(len(decimals))
    digits = whole + decimals
    if power is not None and 0 < len(whole) <= _SAFE_DIGITS and digits.isascii() and digits.isdecimal():
        value = int(digits) * power
        return value if len(number) == len(text) else -value
    return _parse_any(text, problem)


def _parse_any(text: str, problem: str) -> int:
    match = _FIXED_POINT.fullmatch(text)
    if match is None:
        raise BadValue(problem, text)
    sign, whole, decimals = match.groups()
    value = int(whole) * SCALE + int((decimals or "").ljust(6, "0"))
    if sign:
        value = -value
    if not INT64_MIN <= value <= INT64_MAX:
        raise BadValue(problem, text)
    return value


class FixedPointCache(dict[str, int]):
    """`cache[text]` is `parse_fixed(text)`, remembered; raises BadValue like it.

    The same few thousand strings make up nearly all of a day's prices and sizes. The cache starts anew when it is
    full, so that a hostile feed cannot make it grow.
    """

    def __init__(self, problem: str, limit: int = 65_536) -> None:
        super().__init__()
        self.problem = problem
        self._limit = limit

    def parse(self, text: str) -> int:
        """The value of a string not seen before."""
        return parse_fixed(text, self.problem)

    def __missing__(self, text: str) -> int:
        value = self.parse(text)
        if len(self) >= self._limit:
            self.clear()
        self[text] = value
        return value


class PriceCache(FixedPointCache):
    """Prices of a contract that pays one dollar: BadValue(`price_out_of_range`) outside 0..1."""

    def __init__(self, limit: int = 65_536) -> None:
        super().__init__("bad_price", limit)

    def parse(self, text: str) -> int:
        """The price in millionths of a dollar."""
        value = parse_fixed(text, self.problem)
        if not 0 <= value <= SCALE:
            raise BadValue("price_out_of_range", text)
        return value


class SizeCache(FixedPointCache):
    """Sizes, which are never negative; a signed change is a plain `FixedPointCache("bad_size")`."""

    def __init__(self, limit: int = 65_536) -> None:
        super().__init__("bad_size", limit)

    def parse(self, text: str) -> int:
        """The size in millionths of a contract."""
        value = parse_fixed(text, self.problem)
        if value < 0:
            raise BadValue(self.problem, text)
        return value
