"""Names on the wire: tickers as one token, subjects, JetStream stream names (one encoder for subjects, keys and files)."""

import re
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from ssmd.errors import DataError

MAX_TICKER_BYTES = 128
_FEED = re.compile(r"[a-z][a-z0-9-]{0,31}")
_TOKEN = re.compile(r"(?:[A-Za-z0-9_-]|%[0-9A-F]{2})+")
_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")


@lru_cache(maxsize=65_536)
def encode_ticker(ticker: str) -> str:
    """`ticker` as one subject token: bytes outside `[A-Za-z0-9_-]` become `%XX`; injective and reversible.

    Raises DataError when the ticker is empty, longer than 128 bytes, begins with `-` or is not valid Unicode.
    """
    try:
        raw = ticker.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"ticker {ticker!r} is not valid Unicode") from error
    if not raw or len(raw) > MAX_TICKER_BYTES or raw[0] == 0x2D:
        raise DataError(f"ticker {ticker[:MAX_TICKER_BYTES]!r} is empty, longer than {MAX_TICKER_BYTES} bytes or begins with '-'")
    return "".join(chr(b) if b in _SAFE else f"%{b:02X}" for b in raw)


def decode_ticker(token: str) -> str:
    """The ticker that `encode_ticker` turned into `token`; DataError when `token` is no such thing."""
    if not _TOKEN.fullmatch(token):
        raise DataError(f"{token!r} is not an encoded ticker")
    try:
        ticker = unquote_to_bytes(token).decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{token!r} is not an encoded ticker") from error
    if encode_ticker(ticker) != token:
        raise DataError(f"{token!r} is not the canonical form of a ticker")
    return ticker


def check_feed(name: str) -> str:
    """`name` if it is a valid feed name (`[a-z][a-z0-9-]{0,31}`), else DataError."""
    if not _FEED.fullmatch(name):
        raise DataError(f"feed name {name!r} must match [a-z][a-z0-9-]{{0,31}}")
    return name


def stream_name(feed: str) -> str:
    """The JetStream stream of a feed."""
    return f"ssmd-{check_feed(feed)}"


def subject(feed: str, event_type: str, ticker: str) -> str:
    """`{feed}.{event_type}.{token}`; `event_type` is a key of `market.events.EVENT_TYPES`."""
    return f"{feed}.{event_type}.{encode_ticker(ticker)}"


def parse_subject(text: str) -> tuple[str, str, str]:
    """(feed, event type, ticker) of a subject made by `subject`; DataError otherwise."""
    parts = text.split(".")
    if len(parts) != 3:
        raise DataError(f"subject {text!r} does not have three tokens")
    return check_feed(parts[0]), parts[1], decode_ticker(parts[2])
