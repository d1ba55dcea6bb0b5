"""The markets of a tape as REST objects: a recording of frames says little more than their tickers."""

from ssmd.simulator.book import Book
from ssmd.simulator.rows import NS_PER_S, event_object, market_object, series_object
from ssmd.simulator.source import Row

_DAY_NS = 86_400 * NS_PER_S


def event_of(ticker: str) -> str:
    """`KXGOLD15M-26AUG102030-30` belongs to `KXGOLD15M-26AUG102030`."""
    return ticker.rpartition("-")[0] or ticker


def series_of(ticker: str) -> str:
    """`KXGOLD15M-26AUG102030` belongs to `KXGOLD15M`."""
    return ticker.partition("-")[0]


def market_row(ticker: str, index: int, opened_ns: int, book: Book | None) -> Row:
    """An active market: the tape is played as if it happened now, so it closes a day from now."""
    facts = {
        "ticker": ticker,
        "event_ticker": event_of(ticker),
        "title": f"Recorded market {ticker}",
        "status": "active",
        "created_ns": opened_ns - _DAY_NS + index * 1000,
        "updated_ns": opened_ns,
        "open_ns": opened_ns - 3600 * NS_PER_S,
        "close_ns": opened_ns + _DAY_NS,
    }
    return market_object(facts, book)


def event_row(event_ticker: str, opened_ns: int) -> Row:
    """The event of recorded markets."""
    title = f"Recorded event {event_ticker}"
    return event_object(event_ticker, series_of(event_ticker), title, opened_ns + _DAY_NS, opened_ns)


def series_row(series_ticker: str, opened_ns: int) -> Row:
    """The series of recorded events."""
    return series_object(series_ticker, f"Recorded series {series_ticker}", opened_ns)
