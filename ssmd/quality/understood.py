"""What share of a day's frames was understood, by type; and whether every trade among them is a normalized trade, once.

A message whose fields an exchange renames gives no event, and its frames are in the archive all the same: nothing is
missing there. Only who counts both sides sees that the trades are gone.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ssmd.archive.handover import Part
from ssmd.errors import DataError
from ssmd.feeds.interface import Decoded
from ssmd.market.events import Trade
from ssmd.market.identity import trade_identity
from ssmd.market.subjects import encode_ticker
from ssmd.wire.normalized import encode

OTHER = "control and unknown"
"""The type of answers to our commands, of frames that say no type, and of types that nobody knows."""


class Understood:
    """Counts frames as a scan reads them. 8 bytes of memory per trade."""

    def __init__(self, parts: Mapping[str, Part]) -> None:
        self._parts = parts
        self._frames: Counter[str] = Counter()
        self._problems: Counter[str] = Counter()
        self._kinds: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._trades: defaultdict[str, bytearray] = defaultdict(bytearray)

    def frame(self, decoded: Decoded) -> None:
        """A frame was read."""
        self._frames[_type(decoded)] += 1

    def published(self, connection: str, n: int) -> bool:
        """Is the connection the day's from this frame on, or from an earlier one? Else it stood by."""
        part = self._parts.get(connection)
        return part is None or (part.first_n is not None and n >= part.first_n)

    def problem(self, decoded: Decoded, kind: str) -> None:
        """It could not be used."""
        self._problems[_type(decoded)] += 1
        self._kinds[_type(decoded)][kind] += 1

    def trade(self, event: Trade, n: int) -> str:
        """The trade of frame `n` of its connection; why no normalized trade can be made of it, "" when one can."""
        part = self._parts.get(event.connection)
        if part is not None and not part.takes(n):
            return ""  # of a connector that stood by
        try:
            encode_ticker(event.ticker)
            message = encode(event)
        except DataError:
            return "bad_ticker"
        identity = trade_identity(event.trade_id) or message
        self._trades[event.ticker] += hashlib.blake2b(identity, digest_size=8).digest()
        return ""

    def type_rows(self) -> list[dict[str, Any]]:
        """The batch `raw_types`: frames of each type, and the share of those that could not be understood or used.

        Of frames without a type that is known, the share is of all frames of the day.
        """
        everything = sum(self._frames.values())
        rows = []
        for name, frames in sorted(self._frames.items()):
            bad, of = self._problems[name], everything if name == OTHER else frames
            kinds = ", ".join(f"{kind}: {count}" for kind, count in sorted(self._kinds[name].items()))
            rows.append({"type": name, "frames": frames, "problems": bad, "share": bad / of, "kinds": kinds})
        return rows

    def trades(self) -> dict[str, int]:
        """How many different trades each market has in the frames that were published."""
        return {
            ticker: len(np.unique(np.frombuffer(bytes(hashes), np.uint64))) for ticker, hashes in self._trades.items()
        }


def _type(decoded: Decoded) -> str:
    return decoded.type if decoded.group != "control" else OTHER


def trade_rows(raw: Mapping[str, int], normalized: Mapping[str, int]) -> list[dict[str, Any]]:
    """The batch `raw_trades`: each market's trades in raw beside the normalized ones; `lost` and `surplus` of these."""
    return [_beside(ticker, raw.get(ticker, 0), normalized.get(ticker, 0)) for ticker in _names(raw, normalized)]


def _names(*counted: Iterable[str]) -> list[str]:
    return sorted({name for names in counted for name in names})


def _beside(ticker: str, raw: int, normalized: int) -> dict[str, Any]:
    return {
        "ticker": ticker, "raw_trades": raw, "normalized_trades": normalized,
        "lost": max(0, raw - normalized), "surplus": max(0, normalized - raw),
    }  # fmt: skip
