"""Trades, quotes and market states: messages whose event needs no memory of earlier frames."""

from ssmd.errors import DataError
from ssmd.feeds.kalshi.fixedpoint import BadValue, FixedPointCache, PriceCache, SizeCache
from ssmd.feeds.kalshi.messages import Lifecycle, Ticker, TradeMessage
from ssmd.market.events import MarketStatus, Quote, Side, Status, Trade
from ssmd.market.subjects import encode_ticker

MAX_TEXT = 128
NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000

PRICES = PriceCache()
SIZES = SizeCache()
CHANGES = FixedPointCache("bad_size")
_SETTLEMENTS = FixedPointCache("bad_price")

_TAKER = {"yes": Side.BUY, "bid": Side.BUY, "no": Side.SELL, "ask": Side.SELL}
_STATUS = {
    "created": Status.CREATED,
    "activated": Status.OPEN,
    "deactivated": Status.HALTED,
    "determined": Status.DETERMINED,
    "settled": Status.SETTLED,
    "close_date_updated": Status.CHANGED,
    "metadata_updated": Status.CHANGED,
    "price_level_structure_updated": Status.CHANGED,
}


_tickers: set[str] = set()  # those that were checked; emptied when full, so that hostile ones cannot fill the memory
_MAX_TICKERS = 65_536


def is_ticker(text: str) -> bool:
    """Whether `text` can name a market; a frame about anything else is kept raw only."""
    if text in _tickers:
        return True
    try:
        encode_ticker(text)
    except DataError:
        return False
    if len(_tickers) >= _MAX_TICKERS:
        _tickers.clear()
    _tickers.add(text)
    return True


def trade(message: TradeMessage, connection: str, received_ns: int) -> Trade:
    """The trade in YES prices; BadValue(bad_ticker, bad_side, bad_trade_id, bad_price, ...) when it has none."""
    body = message.msg
    if not is_ticker(body.market_ticker):
        raise BadValue("bad_ticker", body.market_ticker)
    taker = body.taker_outcome_side or body.taker_book_side or body.taker_side or ""
    side = _TAKER.get(taker)
    if side is None:
        raise BadValue("bad_side", taker)
    if not _is_short_text(body.trade_id):  # it becomes a message header
        raise BadValue("bad_trade_id", body.trade_id)
    return Trade(
        (body.ts_ms or 0) * NS_PER_MS or (body.ts or 0) * NS_PER_S,
        received_ns,
        body.market_ticker,
        connection,
        message.sid or 0,
        message.seq or 0,
        PRICES[body.yes_price_dollars],
        SIZES[body.count_fp],
        side,
        body.trade_id,
        bool(body.is_block_trade),
    )


def quote(message: Ticker, connection: str, received_ns: int) -> Quote:
    """The quote; BadValue when a price or size is not one."""
    body = message.msg
    if not is_ticker(body.market_ticker):
        raise BadValue("bad_ticker", body.market_ticker)
    return Quote(
        (body.ts_ms or 0) * NS_PER_MS or (body.ts or 0) * NS_PER_S,
        received_ns,
        body.market_ticker,
        connection,
        message.sid or 0,
        message.seq or 0,
        PRICES[body.yes_bid_dollars],
        SIZES[body.yes_bid_size_fp],
        PRICES[body.yes_ask_dollars],
        SIZES[body.yes_ask_size_fp],
        PRICES[body.price_dollars],
        SIZES[body.last_trade_size_fp],
        SIZES[body.volume_fp],
        SIZES[body.open_interest_fp],
    )


def market_status(message: Lifecycle, connection: str, received_ns: int) -> MarketStatus:
    """The step in the market's life; BadValue(unknown_lifecycle, bad_ticker, bad_result, bad_price) when unclear."""
    body = message.msg
    status = _STATUS.get(body.event_type)
    if status is None:
        raise BadValue("unknown_lifecycle", body.event_type)
    if not is_ticker(body.market_ticker):
        raise BadValue("bad_ticker", body.market_ticker)
    result = body.result or ""
    if not _is_short_text(result):
        raise BadValue("bad_result", result)
    seconds = {Status.DETERMINED: body.determination_ts, Status.SETTLED: body.settled_ts}.get(status)
    return MarketStatus(
        (body.ts_ms or 0) * NS_PER_MS or (seconds or 0) * NS_PER_S,
        received_ns,
        body.market_ticker,
        connection,
        message.sid or 0,
        message.seq or 0,
        status,
        result,
        None if body.settlement_value is None else _SETTLEMENTS[body.settlement_value],
    )


def _is_short_text(text: str) -> bool:
    return len(text) <= MAX_TEXT and text.isprintable()
