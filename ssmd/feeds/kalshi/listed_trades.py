"""The trades that Kalshi's REST API lists, in the terms of the archive."""

from ssmd.errors import DataError
from ssmd.feeds.interface import ListedTrade
from ssmd.feeds.kalshi.fixedpoint import BadValue
from ssmd.feeds.kalshi.translate import SIZES
from ssmd.registry.values import moment


def to_listed_trade(item: object) -> ListedTrade | None:
    """The trade that an element of the list describes; None when it lacks its id, its size or its time."""
    if not isinstance(item, dict):
        return None
    trade_id, ticker, size = item.get("trade_id"), item.get("ticker"), item.get("count_fp", item.get("count"))
    created = moment(item.get("created_time"))
    if not isinstance(trade_id, str) or not isinstance(ticker, str) or size is None or created is None or not trade_id:
        return None
    try:
        millionths = SIZES[str(size)]
    except (BadValue, DataError):
        return None
    return ListedTrade(trade_id, ticker, millionths, int(created.timestamp()) * 10**9 + created.microsecond * 1000)
