"""Which series and category a market has: today's market objects name neither, their events and series do."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from ssmd.registry.interface import ListedEvent, Market, Series
from ssmd.registry.sync_context import Family


class Known(Protocol):
    """What the registry knows of events and series (`registry.sync_context.SyncContext`)."""

    def families(self, feed: str, events: Sequence[str]) -> Mapping[str, Family]:
        """Series and category by event ticker."""
        ...

    def categories(self, feed: str, series: Sequence[str]) -> Mapping[str, str]:
        """Category by series ticker."""
        ...


class Parents:
    """The events and series of one sync, and behind them those the registry knows. Its methods read the registry."""

    def __init__(self, feed: str, known: Known) -> None:
        self._feed = feed
        self._known = known
        self._categories: dict[str, str] = {}
        self._families: dict[str, Family] = {}
        self._unknown: set[str] = set()

    def learn_series(self, listed: Iterable[Series]) -> None:
        """Remember series that the exchange has just listed; before their events."""
        self._categories.update((series.ticker, series.category) for series in listed)

    def learn_events(self, listed: Sequence[ListedEvent]) -> None:
        """Remember events that the exchange has just listed: a series' category is stronger than its event's."""
        wanted = {event.series_ticker for event in listed} - self._categories.keys() - {""}
        if wanted:
            found = self._known.categories(self._feed, sorted(wanted))
            self._categories.update((series, found.get(series, "")) for series in wanted)
        for event in listed:
            category = self._categories.get(event.series_ticker) or event.category
            self._families[event.ticker] = Family(event.series_ticker, category)

    def missing(self, markets: Iterable[Market]) -> list[str]:
        """Events of `markets` that neither this sync nor the registry knows, each named once."""
        wanted = {market.event_ticker for market in markets} - self._families.keys() - self._unknown - {""}
        if wanted:
            self._families.update(self._known.families(self._feed, sorted(wanted)))
            wanted -= self._families.keys()
            self._unknown |= wanted
        return sorted(wanted)

    def adopted(self, markets: Iterable[Market]) -> list[Market]:
        """`markets` with the series and category of their events, where their own objects name none."""
        return [self._adopted(market) for market in markets]

    def _adopted(self, market: Market) -> Market:
        family = self._families.get(market.event_ticker)
        if family is None or (market.series_ticker and market.category):
            return market
        return msgspec.structs.replace(
            market,
            series_ticker=market.series_ticker or family.series_ticker,
            category=market.category or family.category,
        )
