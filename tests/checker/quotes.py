"""Normalized quotes against the raw ones where two connections overlap: none lost, none there twice."""

import json
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import capnp

from tests.checker.merged import Published, in_gap
from tests.checker.model import Archive, Finding, Record
from tests.checker.reading import Unreadable, decompress

Content = tuple[str, int, tuple[Decimal, ...]]
"""(ticker, exchange time in ms, everything else that a quote says)"""

_PRICES = {"yes_bid_dollars": "bid", "yes_ask_dollars": "ask", "price_dollars": "last"}
_SIZES = {
    "yes_bid_size_fp": "bidSize", "yes_ask_size_fp": "askSize", "last_trade_size_fp": "lastSize",
    "volume_fp": "volume", "open_interest_fp": "openInterest",
}  # fmt: skip


def check_quotes(
    archive: Archive, storage: Path, feed: str, schemas: Path, bucket: str = "ssmd-normalized"
) -> list[Finding]:
    """M: each quote that some connection brought is there, and from one connection only."""
    findings: list[Finding] = []
    published = Published(archive.handovers)
    sent: dict[Content, list[Record]] = {}
    for record, frame in archive.raw_quotes:
        content = _raw(frame)
        if content is not None:
            sent.setdefault(content, []).append(record)
    stored: dict[Content, set[str]] = {}
    places: Counter[tuple[str, int, int, str]] = Counter()
    for content, place in _normalized(findings, storage / bucket / feed / "v1" / "ticker", schemas):
        stored.setdefault(content, set()).add(place[0])
        places[place] += 1
        if content not in sent:
            findings.append(Finding("M", content[0], f"quote of {content[1]} is in no raw frame"))
    raw_places = Counter(
        (record.connection, record.recv_ns, json.loads(frame)["sid"], json.loads(frame)["msg"]["market_ticker"])
        for record, frame in archive.raw_quotes
        if _raw(frame) is not None
    )
    for place, count in places.items():
        if count > raw_places[place]:
            findings.append(Finding("M", place[3], f"a quote of {place[0]} is there {count} times"))
    for content, records in sent.items():
        if content not in stored:
            if not any(in_gap(archive.gaps, record.recv_ns, content[0]) for record in records):
                findings.append(Finding("M", content[0], f"quote of {content[1]} is not in the normalized archive"))
        elif len(stored[content]) > 1 and sum(published.has(record) for record in records) > 1:
            findings.append(Finding("M", content[0], f"quote of {content[1]} is there from {sorted(stored[content])}"))
    return findings


def _raw(frame: bytes) -> Content | None:
    try:
        msg = json.loads(frame)["msg"]
        return msg["market_ticker"], msg["ts_ms"], tuple(Decimal(msg[name]) for name in (*_PRICES, *_SIZES))
    except (ValueError, KeyError, TypeError, ArithmeticError):
        return None


def _normalized(findings: list[Finding], root: Path, schemas: Path) -> Any:
    """(content, (connection, receive time, sid, ticker)) of every quote; compacted days hide their segments."""
    capnp.remove_import_hook()
    schema = capnp.load(str(schemas / "ticker.capnp"))
    files = sorted(root.rglob("*.capnp.zst"))
    compacted = [file for file in files if file.parent.name != "_segments"]
    days = {file.parent.parent for file in compacted}
    for file in [*compacted, *(f for f in files if f.parent.name == "_segments" and f.parent.parent not in days)]:
        try:
            content = b"".join(decompress(file.read_bytes()))
            for quote in schema.Quote.read_multiple_bytes(content):
                price, size = quote.priceExponent, quote.sizeExponent
                numbers = [Decimal(getattr(quote, name)).scaleb(price) for name in _PRICES.values()]
                numbers += [Decimal(getattr(quote, name)).scaleb(size) for name in _SIZES.values()]
                its = (quote.ticker, quote.exchangeTime // 1_000_000, tuple(numbers))
                yield its, (quote.connection, quote.receivedTime, quote.sid, quote.ticker)
        except (Unreadable, capnp.KjException) as error:
            findings.append(Finding("M", str(file.relative_to(root)), f"cannot be read ({str(error)[:200]})"))
