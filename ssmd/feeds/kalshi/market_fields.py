"""What Kalshi's REST objects mean: markets, events and series as the registry keeps them.

Objects are kept whole, as they came; how they are stored is the registry's matter. A value of another type than the
specification says is as good as none, so that one odd object never costs a sync.
"""

from typing import Any

from ssmd.feeds.kalshi.fixedpoint import BadValue, parse_fixed
from ssmd.market.events import Status
from ssmd.registry.interface import ListedEvent, Market, Series

VOLATILE = frozenset(
    {
        *(f"{side}_{end}{unit}" for side in ("yes", "no") for end in ("bid", "ask") for unit in ("", "_dollars")),
        *(f"{side}_{end}_size_fp" for side in ("yes", "no") for end in ("bid", "ask")),
        *(f"last_price{unit}" for unit in ("", "_dollars")),
        *(f"previous_{what}{unit}" for what in ("price", "yes_bid", "yes_ask") for unit in ("", "_dollars")),
        *(f"volume{span}{unit}" for span in ("", "_24h") for unit in ("", "_fp")),
        *(f"open_interest{unit}" for unit in ("", "_fp")),
        *(f"liquidity{unit}" for unit in ("", "_dollars")),
        *(f"dollar_{what}" for what in ("volume", "open_interest", "recent_volume")),
        "updated_time",
    }
)
"""Fields of a market that trading changes, today's names and those before 2026-03-12: history does not follow them."""

_STATUS = {
    "initialized": Status.CREATED,
    "unopened": Status.CREATED,
    "active": Status.OPEN,
    "open": Status.OPEN,
    "inactive": Status.HALTED,
    "paused": Status.HALTED,
    "closed": Status.CLOSED,
    "determined": Status.DETERMINED,
    "disputed": Status.DETERMINED,
    "amended": Status.DETERMINED,
    "finalized": Status.SETTLED,
    "settled": Status.SETTLED,
}


def to_market(item: object) -> Market | None:
    """The registry's market from one of the exchange's objects, which is kept whole; None without a ticker.

    Today's objects name neither series nor category: they are the event's, and empty here.
    """
    if not isinstance(item, dict):
        return None
    ticker = item.get("ticker")
    if not isinstance(ticker, str) or not ticker:
        return None
    return Market(
        ticker=ticker,
        event_ticker=_string(item.get("event_ticker")),
        title=_first(item, "title", "yes_sub_title", "subtitle"),
        status=_string(item.get("status")),
        open_time=_time(item.get("open_time")),
        close_time=_time(item.get("close_time")),
        result=_string(item.get("result")),
        raw=item,
        series_ticker=_string(item.get("series_ticker")),
        category=_string(item.get("category")),
        expiration_time=_time(item.get("expiration_time")) or _time(item.get("latest_expiration_time")),
        settlement_time=_time(item.get("expected_expiration_time")),
        settled_at=_time(item.get("settlement_ts")),
        settlement_value=_settlement_value(item),
        updated_time=_time(item.get("updated_time")),
    )


def to_event(item: object) -> ListedEvent | None:
    """The registry's event, without its markets; None without a ticker."""
    if not isinstance(item, dict):
        return None
    ticker = item.get("event_ticker")
    if not isinstance(ticker, str) or not ticker:
        return None
    return ListedEvent(
        ticker=ticker,
        series_ticker=_string(item.get("series_ticker")),
        title=_first(item, "title", "sub_title"),
        category=_string(item.get("category")),
        updated_time=_time(item.get("last_updated_ts")),
        raw={name: value for name, value in item.items() if name != "markets"},
    )


def to_series(item: object) -> Series | None:
    """The registry's series; None without a ticker."""
    if not isinstance(item, dict):
        return None
    ticker = item.get("ticker")
    if not isinstance(ticker, str) or not ticker:
        return None
    return Series(
        ticker=ticker,
        title=_string(item.get("title")),
        category=_string(item.get("category")),
        updated_time=_time(item.get("last_updated_ts")),
        raw=item,
    )


def status_of(word: str) -> Status:
    """The state that `Market.status` names; UNKNOWN for a word that is not Kalshi's."""
    return _STATUS.get(word, Status.UNKNOWN)


def settlement_millionths(text: str) -> int | None:
    """A settlement value in millionths of a dollar; None when there is none, or none that can be taken exactly."""
    try:
        return parse_fixed(text)
    except BadValue:
        return None


def _settlement_value(item: dict[str, Any]) -> str:
    """Decimal dollars; before 2026-03-12 there were only whole cents."""
    cents = item.get("settlement_value")
    dollars = _string(item.get("settlement_value_dollars"))
    if not dollars and isinstance(cents, int) and not isinstance(cents, bool) and cents >= 0:
        return f"{cents // 100}.{cents % 100:02d}"
    return dollars


def _first(item: dict[str, Any], *names: str) -> str:
    return next((text for name in names if (text := _string(item.get(name)))), "")


def _time(value: object) -> str | None:
    return _string(value) or None


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""
