"""What the exchange lists: generated and recorded objects together, with the changes made to them while it runs."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from heapq import merge
from itertools import islice
from typing import Any, NamedTuple, TypeAlias
from uuid import NAMESPACE_URL, uuid5

from ssmd.simulator.book import Book
from ssmd.simulator.objects import Objects
from ssmd.simulator.source import Message, Row, Source

Key: TypeAlias = tuple[int, str]
"""Where an object stands in its list: its time of creation in microseconds (0 where lists go by name), its name."""

NO_CUTOFF = "2020-01-01T00:00:00Z"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NEVER = -(1 << 62)


@lru_cache(maxsize=262_144)
def micros(text: str | None) -> int:
    """An RFC 3339 time in microseconds since the epoch; long ago for none and for what is no time."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return _NEVER
    if moment.tzinfo is None:
        return _NEVER
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def is_combo(ticker: str, row: Row) -> bool:
    """Is it a multivariate market or event?"""
    return ticker.startswith("KXMVE") or bool(row.get("mve_collection_ticker"))


class Listed(NamedTuple):
    """An object and its place."""

    key: Key
    row: Row


class Table:
    """The objects of one kind: generated ones as they are now, recorded ones, and changes to both.

    `name` is the field that names an object, `created` the one that orders the list (by name when None).
    """

    def __init__(
        self, name: str, created: str | None, recorded: Mapping[str, Row], generated: Callable[[], Sequence[Row]]
    ) -> None:
        self._name = name
        self._created = created
        self._recorded = dict(recorded)
        self._generated = generated
        self._changes: dict[str, Mapping[str, Any]] = {}  # of generated objects
        self._removed: set[str] = set()
        self._order: list[Key] | None = None
        self.version = 0
        """Counts changes of recorded objects."""

    def __len__(self) -> int:
        return len(self._recorded) + len(self._live())

    def get(self, name: str) -> Row | None:
        """The object of that name, None when the exchange has none."""
        if name in self._recorded:
            return self._recorded[name]
        return next((listed.row for listed in self._live() if listed.key[1] == name), None)

    def rows(self, after: Key | None = None) -> Iterator[Listed]:
        """All objects behind `after`, in order."""
        order = self._sorted()
        start = 0 if after is None else bisect_right(order, after)
        recorded = (Listed(key, self._recorded[key[1]]) for key in islice(order, start, None))
        live = sorted(listed for listed in self._live() if after is None or listed.key > after)
        return merge(recorded, live, key=lambda listed: listed.key)

    def recorded(self) -> Mapping[str, Row]:
        """The objects that were recorded or added, by name."""
        return self._recorded

    def in_order(self) -> list[Row]:
        """The same, in the list's order."""
        return [self._recorded[name] for _, name in self._sorted()]

    def generated(self) -> list[Row]:
        """The generated objects, with their changes."""
        return [listed.row for listed in self._live()]

    def add(self, row: Row) -> None:
        """List one more object, or another one under a name that is there."""
        self.version += 1
        self._removed.discard(row[self._name])
        self._recorded[row[self._name]] = row
        self._order = None

    def change(self, name: str, fields: Mapping[str, Any]) -> Row:
        """Set fields of an object; the object as it is now. KeyError when there is none."""
        row = self.get(name)
        if row is None:
            raise KeyError(name)
        if name in self._recorded:
            self.version += 1
            self._recorded[name] = row = {**row, **fields}
            self._order = None if self._created in fields else self._order
            return row
        self._changes[name] = {**self._changes.get(name, {}), **fields}
        return {**row, **fields}

    def remove(self, name: str) -> None:
        """The exchange forgets an object. KeyError when there is none."""
        if self.get(name) is None:
            raise KeyError(name)
        self.version += 1
        self._recorded.pop(name, None)
        self._removed.add(name)
        self._order = None

    def _sorted(self) -> list[Key]:
        if self._order is None:
            self._order = sorted(self._key(name, row) for name, row in self._recorded.items())
        return self._order

    def _live(self) -> list[Listed]:
        found = []
        for row in self._generated():
            name = row[self._name]
            if name not in self._removed and name not in self._recorded:
                changed = self._changes.get(name)
                row = row if changed is None else {**row, **changed}
                found.append(Listed(self._key(name, row), row))
        return found

    def _key(self, name: str, row: Row) -> Key:
        return (0 if self._created is None else max(0, micros(row.get(self._created))), name)


class Listing:
    """A Source whose REST objects can be changed. `hidden`: how many list answers of a kind are still to be empty."""

    def __init__(self, source: Source, objects: Objects) -> None:
        self._source = source
        self.unpaced = source.unpaced
        self.series_table = Table("ticker", None, objects.series, source.series)
        self.event_table = Table("event_ticker", None, objects.events, source.events)
        self.market_table = Table("ticker", "created_time", objects.markets, source.markets)
        self.hidden: dict[str, int] = {}
        self.cutoff = NO_CUTOFF
        """Markets settled before it are listed on the historical pages only."""
        self._grouped: Mapping[str, list[Row]] = {}
        self._grouped_at = -1

    # --- what connections ask for --------------------------------------------------------------------------------

    def take(self, now_ns: int, limit: int) -> list[Message]:
        return self._source.take(now_ns, limit)

    def progress(self) -> dict[str, Any]:
        return self._source.progress()

    def snapshot_body(self, ticker: str) -> bytes | None:
        """Of a market that is only listed: an empty book."""
        body = self._source.snapshot_body(ticker)
        if body is None and ticker in self.market_table.recorded():
            return Book(str(uuid5(NAMESPACE_URL, ticker)), 0).body(ticker)
        return body

    def ticker_body(self, ticker: str, now_ns: int) -> bytes | None:
        return self._source.ticker_body(ticker, now_ns)

    def book_levels(self, ticker: str, depth: int) -> dict[str, list[list[str]]] | None:
        levels = self._source.book_levels(ticker, depth)
        if levels is None and ticker in self.market_table.recorded():
            return {"yes_dollars": [], "no_dollars": []}
        return levels

    def trades(self) -> Sequence[Row]:
        return self._source.trades()

    def markets(self) -> Sequence[Row]:
        return [listed.row for listed in self.market_table.rows()]

    def events(self) -> Sequence[Row]:
        return [listed.row for listed in self.event_table.rows()]

    def series(self) -> Sequence[Row]:
        return [listed.row for listed in self.series_table.rows()]

    # --- what pages ask for --------------------------------------------------------------------------------------

    def markets_of(self) -> Callable[[str], list[Row]]:
        """A function that gives the markets of an event."""
        table = self.market_table
        if self._grouped_at != table.version:
            self._grouped_at = table.version
            self._grouped = _by_event(table.in_order())
        recorded, generated = self._grouped, _by_event(table.generated())
        return lambda event: [*recorded.get(event, ()), *generated.get(event, ())]

    def series_of(self) -> Callable[[Row], str | None]:
        """A function that tells a market's series: today's market objects do not name it, their events do."""
        recorded = self.event_table.recorded()
        generated = {row["event_ticker"]: row["series_ticker"] for row in self.event_table.generated()}

        def find(market: Row) -> str | None:
            event = market.get("event_ticker", "")
            row = recorded.get(event)
            return row.get("series_ticker") if row is not None else generated.get(event)

        return find

    def is_hidden(self, kind: str) -> bool:
        """Must this list answer be empty? Counts it."""
        left = self.hidden.get(kind, 0)
        if left > 0:
            self.hidden[kind] = left - 1
        return left != 0

    def counts(self) -> dict[str, object]:
        """How many objects of each kind there are, and how many list answers are still to be empty (-1: all)."""
        tables = {"series": self.series_table, "events": self.event_table, "markets": self.market_table}
        return {kind: len(table) for kind, table in tables.items()} | {"hidden": dict(self.hidden)}


def _by_event(markets: Iterable[Row]) -> Mapping[str, list[Row]]:
    found: defaultdict[str, list[Row]] = defaultdict(list)
    for market in markets:
        found[str(market.get("event_ticker"))].append(market)
    return found
