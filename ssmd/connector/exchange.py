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


def fingerprint(key_id: str, secret: str) -> str:
    """A short name for a key id and its secret that cannot be turned back; a change of either changes it."""
    return hashlib.sha256(f"{len(key_id)}:{key_id}{secret}".encode()).hexdigest()[:16]


class MarketSource(Protocol):
    """Where listed markets come from."""

    def open_markets(self) -> AsyncIterator[Market]:
        """All markets that trade now; an SsmdError when the exchange does not answer as it should."""
        ...


class Exchange(NamedTuple):
    """`mapper(connection)` and `session(mapper, wants)` make the state of one connection.

    `credentials` reads files and decrypts: it is called in a thread. `environment` and `key_name` are for errors;
    `option` ends printed commands that name the environment.
    `volatile` names the fields of a market that change with trading and are no history.
    """

    url: str
    environment: str
    key_name: str
    credentials: Callable[[], Credentials]
    decoder: Decoder
    mapper: Callable[[str], Mapper]
    session: Callable[[Mapper, Callable[[str], bool]], Session]
    markets: MarketSource | None
    volatile: frozenset[str] = frozenset()
    option: str = ""

    def key_hint(self, verb: str) -> str:
        """How to give the exchange's key another value: `verb` is set or rotate."""
        prefix = f"SSMD_KEY_{self.key_name.upper().replace('-', '_')}"
        return (
            f"Run: ssmd key {verb} {self.environment} {self.key_name}{self.option}"
            f" (or set {prefix}_API_KEY and {prefix}_API_SECRET_FILE)"
        )


class Settings(NamedTuple):
    """From `spec.connector` and `spec.symbols`; `tickers` are captured whatever the exchange lists.

    `name` tells apart two connectors of a feed on one machine; "" is the usual one's.
    """

    feed: str
    raw_bucket: str
    spool_folder: Path
    spool_max_bytes: int
    seal_s: float
    seal_bytes: int
    publish_raw: bool
    selects: Callable[[str], bool]
    tickers: tuple[str, ...]
    name: str = ""
