"""Normalized trades against the raw archive: every price, size, side and id exactly, in Decimal."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import capnp

from tests.checker.merged import Published, in_gap
from tests.checker.model import Archive, Finding, Record
from tests.checker.reading import Unreadable, decompress

_PLAIN = re.compile(r"\d{1,12}(\.\d{1,6})?")
_TICKER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class Trade:
    """What a trade says, whoever wrote it down."""

    ticker: str
    trade_id: str
    price: Decimal
    size: Decimal
    side: str
    sid: int
    seq: int
    received_ns: int
    connection: str


def check_trades(
    archive: Archive, storage: Path, feed: str, schemas: Path, bucket: str = "ssmd-normalized"
) -> tuple[list[Finding], int]:
    """Findings of rule T and the number of trades compared. A trade that arrived twice counts once."""
    findings: list[Finding] = []
    expected: dict[tuple[str, str], list[Trade]] = {}
    allowed: set[tuple[str, str]] = set()
    standing_by: dict[tuple[str, str], Trade] = {}
    published = Published(archive.handovers)
    for record, frame in archive.raw_trades:
        trade, strict = raw_trade(record, frame)
        if trade is None:
            continue
        identity = (trade.ticker, trade.trade_id)
        if not published.has(record):
            if strict:
                standing_by.setdefault(identity, trade)
            continue
        allowed.add(identity)
        if strict:
            expected.setdefault(identity, []).append(trade)
    stored: dict[tuple[str, str], Trade] = {}
    for key, trade, is_compacted in _normalized(findings, storage / bucket / feed / "v1" / "trade", schemas):
        identity = (trade.ticker, trade.trade_id)
        if is_compacted and identity in stored:
            findings.append(Finding("T", key, f"trade {trade.trade_id} is there twice"))
        stored[identity] = trade
    for identity, trades in expected.items():
        found = stored.get(identity)
        of_one = {trade.connection for trade in trades} == {trades[0].connection}
        if found is None:
            findings.append(Finding("T", identity[0], f"trade {identity[1]} is not in the normalized archive"))
        elif found not in (trades[:1] if of_one else trades):
            findings.append(Finding("T", identity[0], f"raw says {trades[0]}, normalized {found}"))
    for identity, trade in standing_by.items():
        if identity not in allowed and not in_gap(archive.gaps, trade.received_ns, trade.ticker):
            message = f"trade {trade.trade_id} came while its connection stood by, and no other one brought it"
            findings.append(Finding("T", trade.ticker, message))
    unknown = sorted(stored.keys() - allowed)
    findings += [Finding("T", ticker, f"trade {trade_id} is in no raw frame") for ticker, trade_id in unknown]
    return findings, len(expected)


def raw_trade(record: Record, frame: bytes) -> tuple[Trade | None, bool]:
    """The trade in a frame, and whether it must be in the normalized archive (an odd one may be, but need not)."""
    try:
        envelope = json.loads(frame)
        msg = envelope["msg"]
        side = msg.get("taker_outcome_side") or msg.get("taker_side")
        trade = Trade(
            msg["market_ticker"],
            msg["trade_id"],
            Decimal(msg["yes_price_dollars"]),
            Decimal(msg["count_fp"]),
            {"yes": "buy", "no": "sell"}.get(side, str(side)),
            envelope["sid"],
            envelope["seq"],
            record.recv_ns,
            record.connection,
        )
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError):
        return None, False
    texts = {name: msg[name] for name in ("yes_price_dollars", "count_fp", "market_ticker", "trade_id")}
    numbers = (envelope["sid"], envelope["seq"])
    if not all(type(text) is str for text in texts.values()) or not all(type(number) is int for number in numbers):
        return (None, False) if type(msg["trade_id"]) is not str else (trade, False)
    strict = (
        side in ("yes", "no")
        and _PLAIN.fullmatch(texts["yes_price_dollars"]) is not None
        and _PLAIN.fullmatch(texts["count_fp"]) is not None
        and _TICKER.fullmatch(texts["market_ticker"]) is not None
    )
    return trade, strict


def _normalized(findings: list[Finding], root: Path, schemas: Path) -> Iterator[tuple[str, Trade, bool]]:
    """(object, trade, compacted?) of every normalized trade object; compacted days hide their segments."""
    capnp.remove_import_hook()
    schema = capnp.load(str(schemas / "trade.capnp"))
    files = sorted(root.rglob("*.capnp.zst"))
    compacted = [file for file in files if file.parent.name != "_segments"]
    compacted_days = {file.parent.parent for file in compacted}
    segments = [file for file in files if file.parent.name == "_segments" and file.parent.parent not in compacted_days]
    for file in (*compacted, *segments):
        key = str(file.relative_to(root))
        try:
            content = b"".join(decompress(file.read_bytes()))
            for message in schema.Trade.read_multiple_bytes(content):
                yield key, _trade(message), file in compacted
        except (Unreadable, capnp.KjException) as error:
            findings.append(Finding("T", key, f"cannot be read ({str(error)[:200]})"))


def _trade(message: Any) -> Trade:
    return Trade(
        message.ticker,
        message.tradeId,
        Decimal(message.price).scaleb(message.priceExponent),
        Decimal(message.size).scaleb(message.sizeExponent),
        str(message.side),
        message.sid,
        message.seq,
        message.receivedTime,
        message.connection,
    )
