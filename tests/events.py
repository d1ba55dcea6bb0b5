"""Events for tests: plausible, distinct, and easy to recognise again."""

from datetime import date

from ssmd.clock import day_start_ns
from ssmd.market.events import Event, Gap, Kind, MarketStatus, OrderBookUpdate, Quote, Side, Status, Trade
from ssmd.market.subjects import subject
from ssmd.middleware.transport.interface import Outgoing
from ssmd.wire.normalized import encode, event_type_of

DAY = date(2026, 11, 22)
NOON = day_start_ns(DAY) + 12 * 3600 * 1_000_000_000
TICKERS = ("KXBTC15M-26NOV221600-00", "KXHIGHNY-26NOV22-B32.5", "spaced * > ticker")


def trade(number: int, ns: int = NOON, ticker: str = TICKERS[0], connection: str = "c-1") -> Trade:
    """Trade number `number`, received `number` microseconds after `ns`."""
    received = ns + number * 1000
    return Trade(
        received - 5_000_000, received, ticker, connection, 1, number, 450_000, 1_000_000, Side.BUY, f"t-{number}"
    )


def event(number: int, ns: int = NOON) -> Event:
    """One of five kinds in turn."""
    received, ticker = ns + number * 1000, TICKERS[number % 3]
    match number % 5:
        case 0 | 1:
            return trade(number, ns, ticker)
        case 2:
            return OrderBookUpdate(0, received, ticker, "c-1", 2, number, Kind.DELTA, ((470_000, number),), ())
        case 3:
            return Quote(0, received, ticker, "c-1", 3, 0, 440_000, 1, 460_000, 2, 450_000, 3, number, 5)
        case _:
            if number % 2:
                return MarketStatus(0, received, ticker, "c-1", 4, number, Status.OPEN)
            return Gap("kalshi", "c-1", None, received - 1000, received, "connection_lost")


def outgoing(what: Event, feed: str = "kalshi") -> Outgoing:
    """The event as the connector publishes it."""
    kind = event_type_of(what)
    name = what.connection if isinstance(what, Gap) else what.ticker
    payload = encode(what)
    return Outgoing(subject(feed, kind, name).encode(), str(hash(payload)).encode(), payload)
