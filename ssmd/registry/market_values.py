"""Markets as every registry keeps them: storable values, what history follows, which settlement is believed.

History follows the exchange's own fields: the keys of the raw object that are not volatile (what trading changes),
and `status`, `result`, `category`, `series_ticker` as the Market names them. An empty category, series or updated
time means "not told", and what is known stays.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import structlog

from ssmd import telemetry as metrics
from ssmd.errors import DataError
from ssmd.registry.interface import Market
from ssmd.registry.values import MAX_DEPTH, json_value, moment, printable, storable, written

ACTIVE = "active"
"""The exchange's word for a market that trades."""
UNOPENED, CLOSED = "initialized", "closed"
DECIDED = ("determined", "disputed", "amended", "finalized", "settled")
ENDED = (CLOSED, *DECIDED)
"""Statuses of a market after its close; `DECIDED` ones after its result."""
MAX_TICKER = 128
MAX_FIELD = 64
"""Longer keys of a raw object are kept in it, but not followed."""
SETTLEMENT_FIELDS = ("result", "settlement_ts", "settlement_value", "settlement_value_dollars")
"""Fields that are recorded once and changed by better evidence only."""
EVIDENCE = {"determined": "determined", "amended": "amended", "finalized": "finalized", "settled": "finalized"}
"""How good a result is, by the market's status; other statuses are no evidence."""
EVIDENCE_RANK = {"determined": 1, "amended": 2, "finalized": 3}
LISTED = "listed"
"""The one field of history that is not the exchange's: 'false' from when a market is no longer listed."""
ZERO_TIME = "0001-01-01T00:00:00Z"
_TIMES = ("open_time", "close_time", "expiration_time", "settlement_time", "settled_at")
_SETTLEMENT = ("result", "settled_at", "settlement_value")
_log = structlog.get_logger()
_ODD = (UnicodeEncodeError, TypeError, ValueError, OverflowError, RecursionError)


def canonical_json(value: Any) -> str:
    """`value` as JSON that PostgreSQL can store, keys sorted; equal values give equal text."""
    try:
        encoded = msgspec.json.encode(value, order="deterministic")
    except _ODD:
        encoded = b"\\u0000"
    if b"\\u0000" in encoded or encoded.count(b"[") + encoded.count(b"{") > MAX_DEPTH:
        return json.dumps(json_value(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return encoded.decode()


def stored_ticker(ticker: str) -> str:
    """The ticker as it can be stored; DataError when it is empty or longer than 128 characters."""
    stored = storable(ticker)
    if not 1 <= len(stored) <= MAX_TICKER:
        raise DataError(f"ticker {printable(stored, 80)!r} is empty or longer than {MAX_TICKER} characters")
    return stored


def storable_markets(listed: Sequence[Market]) -> list[Market]:
    """Those of `listed` whose tickers can be stored: one that cannot costs itself, and is logged and counted."""
    found, left_out = [], []
    for market in listed:
        try:
            stored_ticker(market.ticker)
        except DataError:
            left_out.append(printable(market.ticker, 80))
        else:
            found.append(market)
    if left_out:
        metrics.REGISTRY_LEFT_OUT.labels("upsert_markets").inc(len(left_out))
        _log.warning("markets left out of the registry", count=len(left_out), first=left_out[:3])
    return found


def stored_columns(market: Market) -> Market:
    """The market as it can be stored, without its raw object; DataError for a ticker that cannot."""
    return Market(
        ticker=stored_ticker(market.ticker),
        event_ticker=storable(market.event_ticker, 128),
        title=printable(market.title),
        status=printable(market.status, 32),
        open_time=written(moment(market.open_time)),
        close_time=written(moment(market.close_time)),
        result=printable(market.result, 32),
        raw={},
        series_ticker=storable(market.series_ticker, 128),
        category=printable(market.category, 128),
        expiration_time=written(moment(market.expiration_time)),
        settlement_time=written(moment(market.settlement_time)),
        settled_at=written(moment(market.settled_at)),
        settlement_value=printable(market.settlement_value, 32),
        updated_time=written(moment(market.updated_time)),
    )


def lost_times(market: Market, stored: Market) -> bool:
    """Did the exchange tell a time that is none, or that cannot be stored? `stored` is the market as it can be."""
    told = any(getattr(market, name) and getattr(stored, name) is None for name in _TIMES)
    return told or is_lost(market.updated_time, stored.updated_time)


def is_lost(told: str | None, kept: str | None) -> bool:
    """Is a time of the exchange's own book-keeping lost? There, Go's zero time is the usual word for none."""
    return bool(told) and kept is None and told != ZERO_TIME


def stored_market(market: Market) -> Market:
    """The whole market as it can be stored; DataError for a ticker that cannot."""
    return msgspec.structs.replace(stored_columns(market), raw=json_value(market.raw))


def fingerprint(columns: Market, raw: Mapping[str, Any], volatile: frozenset[str]) -> str:
    """An md5 over everything about a market that is followed; two answers with equal ones differ in nothing."""
    followed = {name: value for name, value in raw.items() if name not in volatile and len(name) <= MAX_FIELD}
    told = (
        columns.event_ticker, columns.title, columns.status, columns.result, columns.open_time, columns.close_time,
        columns.expiration_time, columns.settlement_time, columns.settled_at, columns.settlement_value, followed,
    )  # fmt: skip
    return hashlib.md5(canonical_json(told).encode(), usedforsecurity=False).hexdigest()


def evidence_of(market: Market) -> str | None:
    """How good the market's result is; None without one, or while its status says nothing."""
    return EVIDENCE.get(market.status) if market.result else None


def updated_market(known: Market, evidence: str | None, new: Market) -> tuple[Market, str | None]:
    """`known` after the exchange described it as `new`, and how good the evidence for its result is then."""
    kept = {
        "series_ticker": new.series_ticker or known.series_ticker,
        "category": new.category or known.category,
        "updated_time": new.updated_time or known.updated_time,
    }
    rank, known_rank = EVIDENCE_RANK.get(evidence_of(new) or "", 0), EVIDENCE_RANK.get(evidence or "", 0)
    better = rank > known_rank
    if evidence == "finalized" and rank < known_rank:  # what is final does not open again
        kept["status"] = known.status
    evidence_now = evidence_of(new) if not known.result or (new.result and better) else evidence
    for name in _SETTLEMENT if known.result else ():
        if not _believed(name, known, new, better):
            kept[name] = getattr(known, name)
    return msgspec.structs.replace(new, **kept), evidence_now


def _believed(name: str, known: Market, new: Market, better: bool) -> bool:
    """Does a settled market take this settlement field from the new answer?"""
    if not new.result:
        return False
    before, told = getattr(known, name), getattr(new, name)
    if new.result == known.result and not before:
        return True
    return better and (bool(told) or new.result != known.result)
