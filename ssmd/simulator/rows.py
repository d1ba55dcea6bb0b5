"""REST objects in today's shape, from the few facts the simulated exchange knows."""

from collections.abc import Mapping
from typing import Any

from ssmd.simulator.book import Book
from ssmd.simulator.fixed import MICRO, contracts, dollars, rfc3339

NS_PER_S = 1_000_000_000
NEVER = "0001-01-01T00:00:00Z"
LINEAR_CENT = [{"start": "0.0000", "end": "1.0000", "step": "0.0100"}]
_WEEK_NS = 7 * 86_400 * NS_PER_S


def quotes(book: Book | None) -> dict[str, str]:
    """Best prices and sizes; "0.0000"/"1.0000" with size "0.00" where a side is empty."""
    yes = None if book is None else book.best("yes")
    no = None if book is None else book.best("no")
    ask = MICRO if no is None else MICRO - no
    return {
        "yes_bid_dollars": dollars(yes or 0),
        "yes_ask_dollars": dollars(ask),
        "yes_bid_size_fp": contracts(0 if book is None or yes is None else book.yes[yes]),
        "yes_ask_size_fp": contracts(0 if book is None or no is None else book.no[no]),
    }


def market_object(facts: Mapping[str, Any], book: Book | None) -> dict[str, Any]:
    """A Market with every required field. `facts`: ticker, event_ticker, title, status, *_ns times, and overrides."""
    prices = quotes(book)
    row: dict[str, Any] = {
        "ticker": facts["ticker"],
        "event_ticker": facts["event_ticker"],
        "market_type": "binary",
        "title": facts["title"],
        "yes_sub_title": facts.get("yes_sub_title", facts["title"]),
        "no_sub_title": facts.get("no_sub_title", facts["title"]),
        "created_time": rfc3339(facts["created_ns"]),
        "updated_time": rfc3339(facts["updated_ns"]),
        "open_time": rfc3339(facts["open_ns"]),
        "close_time": rfc3339(facts["close_ns"]),
        "expected_expiration_time": rfc3339(facts["close_ns"] + 300 * NS_PER_S),
        "expiration_time": rfc3339(facts["close_ns"] + _WEEK_NS),
        "latest_expiration_time": rfc3339(facts["close_ns"] + _WEEK_NS),
        "settlement_timer_seconds": 1,
        "settlement_bounds_type": "default",
        "status": facts["status"],
        "result": facts.get("result", ""),
        "expiration_value": facts.get("expiration_value", ""),
        "can_close_early": True,
        "notional_value_dollars": "1.0000",
        "no_bid_dollars": dollars(MICRO - _micro(prices["yes_ask_dollars"])),
        "no_ask_dollars": dollars(MICRO - _micro(prices["yes_bid_dollars"])),
        "last_price_dollars": dollars(facts.get("last_price", 0)),
        "previous_price_dollars": "0.0000",
        "previous_yes_bid_dollars": "0.0000",
        "previous_yes_ask_dollars": "0.0000",
        "volume_fp": contracts(facts.get("volume", 0)),
        "volume_24h_fp": contracts(facts.get("volume", 0)),
        "open_interest_fp": contracts(facts.get("open_interest", 0)),
        "price_level_structure": "linear_cent",
        "price_ranges": LINEAR_CENT,
        "exchange_index": 0,
        "rules_primary": facts.get("rules_primary", ""),
        "rules_secondary": "",
        **prices,
    }
    if "strike" in facts:
        row |= {"strike_type": "greater_or_equal", "floor_strike": facts["strike"]}
    if facts.get("settled_ns"):
        row |= {"settlement_ts": rfc3339(facts["settled_ns"])}
    if facts.get("settlement_value") is not None:
        row |= {"settlement_value_dollars": facts["settlement_value"]}
    return row


def event_object(ticker: str, series: str, title: str, strike_ns: int, updated_ns: int) -> dict[str, Any]:
    """An EventData with every required field."""
    return {
        "event_ticker": ticker,
        "series_ticker": series,
        "title": title,
        "sub_title": "",
        "collateral_return_type": "",
        "mutually_exclusive": False,
        "category": "Test",
        "strike_date": rfc3339(strike_ns),
        "strike_period": "",
        "product_metadata": None,
        "settlement_sources": [{"name": "Simulated exchange", "url": "https://example.invalid/"}],
        "last_updated_ts": rfc3339(updated_ns),
        "fee_type_override": None,
        "fee_multiplier_override": None,
        "exchange_index": 0,
    }


def series_object(ticker: str, title: str, updated_ns: int) -> dict[str, Any]:
    """A Series with every required field."""
    return {
        "ticker": ticker,
        "title": title,
        "frequency": "fifteen_min",
        "category": "Test",
        "categories": ["Test"],
        "tags": ["simulated"],
        "settlement_sources": [{"name": "Simulated exchange", "url": "https://example.invalid/"}],
        "contract_url": "https://example.invalid/contract",
        "contract_terms_url": "https://example.invalid/terms",
        "fee_type": "quadratic",
        "fee_multiplier": 1,
        "additional_prohibitions": [],
        "product_metadata": None,
        "last_updated_ts": rfc3339(updated_ns),
        "exchange_index": 0,
    }


def _micro(text: str) -> int:
    whole, _, fraction = text.partition(".")
    return int(whole) * MICRO + int(fraction.ljust(6, "0"))
