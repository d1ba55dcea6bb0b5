"""Names on the wire: tickers as one token (for subjects, keys and files alike), subjects, JetStream stream names."""

import re
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from ssmd.errors import DataError
from ssmd.market.events import EVENT_TYPES

MAX_TICKER_BYTES = 128
_SHOWN = 80  # characters of a bad name that stand in an error
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
        raise DataError(f"ticker {ticker[:_SHOWN]!r} is not valid Unicode") from error
    if not raw or len(raw) > MAX_TICKER_BYTES or raw[0] == 0x2D:
        raise DataError(
            f"ticker {ticker[:_SHOWN]!r} ({len(raw)} bytes) is empty, longer than {MAX_TICKER_BYTES} bytes "
            "or begins with '-'"
        )
    return "".join(chr(b) if b in _SAFE else f"%{b:02X}" for b in raw)


def decode_ticker(token: str) -> str:
    """The ticker that `encode_ticker` turned into `token`; DataError when `token` is no such thing."""
    if not _TOKEN.fullmatch(token):
        raise DataError(f"{token[:_SHOWN]!r} is not an encoded ticker")
    try:
        ticker = unquote_to_bytes(token).decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{token[:_SHOWN]!r} is not an encoded ticker") from error
    if encode_ticker(ticker) != token:
        raise DataError(f"{token[:_SHOWN]!r} is not the canonical form of a ticker")
    return ticker


def check_feed(name: str) -> str:
    """`name` if it is a valid feed name (`[a-z][a-z0-9-]{0,31}`), else DataError."""
    if not _FEED.fullmatch(name):
        raise DataError(f"feed name {name[:_SHOWN]!r} must match [a-z][a-z0-9-]{{0,31}}")
    return name


def stream_name(feed: str) -> str:
    """The JetStream stream of a feed."""
    return f"ssmd-{check_feed(feed)}"


@lru_cache(maxsize=262_144)
def subject(feed: str, event_type: str, ticker: str) -> str:
    """`{feed}.{event_type}.{token}`; `event_type` is a key of `market.events.EVENT_TYPES`.

    For `gap` the last token is the connection instead of a ticker. DataError when one of the three cannot stand there.
    """
    if event_type not in EVENT_TYPES:
        raise DataError(f"{event_type[:_SHOWN]!r} is not an event type: {', '.join(EVENT_TYPES)}")
    return f"{check_feed(feed)}.{event_type}.{encode_ticker(ticker)}"


def parse_subject(text: str) -> tuple[str, str, str]:
    """(feed, event type, ticker) of a subject made by `subject`; DataError for any other text."""
    parts = text.split(".")
    if len(parts) != 3 or parts[1] not in EVENT_TYPES:
        raise DataError(f"{text[:_SHOWN]!r} is not a subject {{feed}}.{{event type}}.{{ticker}}")
    return check_feed(parts[0]), parts[1], decode_ticker(parts[2])
