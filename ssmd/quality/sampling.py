"""A part of a day's tickers, chosen by the date alone: who looks again looks at the same ones, each day at others."""

import hashlib
import re
from collections.abc import Iterable
from datetime import date
from typing import Self

import msgspec

from ssmd.errors import ConfigError

_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%")
_NUMBER = re.compile(r"[0-9]{1,9}")
_RANKS = 1 << 64


class Sample(msgspec.Struct, frozen=True):
    """A share of all tickers (0 to 1), or a number of them; `text` is how it was asked for."""

    text: str
    share: float | None = None
    number: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """`5%` or `200`; ConfigError for anything else."""
        if (found := _SHARE.fullmatch(text)) and 0 < float(found[1]) <= 100:
            return cls(text, share=float(found[1]) / 100)
        if _NUMBER.fullmatch(text) and int(text):
            return cls(text, number=int(text))
        shown = "".join(letter if letter.isprintable() else "·" for letter in text[:40])
        raise ConfigError(f"--sample {shown!r} is no share and no number", "Write, for instance, 5% or 200 (tickers).")

    def choose(self, day: date, tickers: Iterable[str]) -> frozenset[str]:
        """Its tickers on a day; at least one when there are any."""
        ranked = sorted(set(tickers), key=lambda ticker: rank(day, ticker))
        if self.share is not None:
            return frozenset(ranked[: max(1, round(self.share * len(ranked)))])
        return frozenset(ranked[: self.number])


def rank(day: date, ticker: str) -> int:
    """Where a ticker stands on a day: as good as at random, and always the same."""
    text = f"{day.isoformat()}/{ticker}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") % _RANKS
