"""The feed as the connector needs it: where it is, how it speaks, and what is asked of it."""

import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from ssmd.feeds.interface import Decoder, Mapper, Session
from ssmd.registry.interface import Market


class Credentials(NamedTuple):
    """What signs in: `headers` are made anew for each connection; `fingerprint` names the key without revealing it."""

    headers: Callable[[], dict[str, str]]
    fingerprint: str


def fingerprint(key_id: str) -> str:
    """A short name for a key id that cannot be turned back."""
    return hashlib.sha256(key_id.encode()).hexdigest()[:16]


class MarketSource(Protocol):
    """Where listed markets come from."""

    def open_markets(self) -> AsyncIterator[Market]:
        """All markets that trade now; an SsmdError when the exchange does not answer as it should."""
        ...


class Exchange(NamedTuple):
    """`mapper(connection)` and `session(mapper, wants)` make the state of one connection; `key_name` is for errors."""

    url: str
    key_name: str
    credentials: Callable[[], Credentials]
    decoder: Decoder
    mapper: Callable[[str], Mapper]
    session: Callable[[Mapper, Callable[[str], bool]], Session]
    markets: MarketSource | None


class Settings(NamedTuple):
    """From `spec.connector` and `spec.symbols`; `tickers` are captured whatever the exchange lists."""

    feed: str
    raw_bucket: str
    spool_folder: Path
    spool_max_bytes: int
    seal_s: float
    seal_bytes: int
    publish_raw: bool
    selects: Callable[[str], bool]
    tickers: tuple[str, ...]
