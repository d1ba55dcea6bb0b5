"""Events with the fields that matter to the gateway, the rest filled in."""

from ssmd.market.events import SCALE, Gap, Kind, Level, MarketStatus, OrderBookUpdate, Quote, Side, Status, Trade

T0 = 1_700_000_000_000_000_000


def trade(ticker: str, n: int = 1, price: int = 450_000, size: int = 10 * SCALE, seq: int = 0) -> Trade:
    """Trade number `n` of a ticker; the number is its id."""
    return Trade(T0 + n, T0 + n, ticker, "c-1", 3, seq, price, size, Side.BUY, f"{ticker}/{n}")


def book(
    ticker: str,
    seq: int,
    *,
    bids: tuple[Level, ...] = (),
    asks: tuple[Level, ...] = (),
    sid: int = 1,
    kind: Kind = Kind.SNAPSHOT,
    connection: str = "c-1",
    at: int | None = None,
) -> OrderBookUpdate:
    """A book update; received `seq` nanoseconds after T0 unless `at` says otherwise."""
    received = T0 + seq if at is None else at
    return OrderBookUpdate(received, received, ticker, connection, sid, seq, kind, bids, asks)


def delta(
    ticker: str,
    seq: int,
    *,
    bids: tuple[Level, ...] = (),
    asks: tuple[Level, ...] = (),
    sid: int = 1,
    connection: str = "c-1",
    at: int | None = None,
) -> OrderBookUpdate:
    """A change of levels."""
    return book(ticker, seq, bids=bids, asks=asks, sid=sid, kind=Kind.DELTA, connection=connection, at=at)


def quote(ticker: str, at: int = T0) -> Quote:
    """A quote 0.44 / 0.46."""
    return Quote(at, at, ticker, "c-1", 2, 0, 440_000, 100 * SCALE, 460_000, 150 * SCALE, 450_000, SCALE, SCALE, SCALE)


def status(ticker: str, state: Status, at: int = T0) -> MarketStatus:
    """A step in a market's life."""
    return MarketStatus(at, at, ticker, "c-1", 4, 0, state)


def gap(
    connection: str = "c-1", sid: int | None = None, tickers: tuple[str, ...] | None = None, to_ns: int = T0 + 10**9
) -> Gap:
    """A recorded hole."""
    return Gap("kalshi", connection, sid, T0, to_ns, "connection_lost", None, None, tickers)
