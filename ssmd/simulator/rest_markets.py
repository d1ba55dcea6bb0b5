"""The pages that a security master reads: series, events, markets and historical markets, with their filters."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ssmd.simulator.listing import Key, Listed, Listing, is_combo, micros
from ssmd.simulator.rest_query import Refused, bad_request, flag, limit, names, page, seconds, word
from ssmd.simulator.source import Row

Query = Mapping[str, str]

# The filter's words are not the words in Market.status.
STATUS_FILTER = {
    "unopened": {"initialized"},
    "open": {"active"},
    "paused": {"inactive"},
    "closed": {"closed", "determined", "disputed", "amended"},
    "settled": {"finalized"},
}
EVENT_STATUSES = ("unopened", "open", "closed", "settled")
_TIME_FILTERS: dict[str, tuple[str, frozenset[str | None]]] = {
    "created": ("created_time", frozenset({None, "unopened", "open"})),
    "close": ("close_time", frozenset({None, "closed"})),
    "settled": ("settlement_ts", frozenset({None, "settled"})),
    "updated": ("updated_time", frozenset({None})),
}
_MICROS = 1_000_000


class CataloguePages:
    """One method a page; each takes the query, and the path's ticker where there is one, and returns the body."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing

    # --- series --------------------------------------------------------------------------------------------------

    def series_list(self, query: Query) -> object:
        """Not paged."""
        category, tags, since = query.get("category") or None, names(query, "tags"), seconds(query, "min_updated_ts")
        rows = [
            _series(listed.row, query)
            for listed in self._listing.series_table.rows()
            if (category is None or category in (listed.row.get("categories") or [listed.row.get("category")]))
            and (not tags or tags & set(listed.row.get("tags") or ()))
            and (since is None or _is_after(listed.row.get("last_updated_ts"), since))
        ]
        return {"series": [] if self._listing.is_hidden("series") else rows}

    def series_one(self, _query: Query, ticker: str) -> object:
        return {"series": _found(self._listing.series_table.get(ticker), "series")}

    # --- events --------------------------------------------------------------------------------------------------

    def event_list(self, query: Query) -> object:
        """All events but the multivariate ones."""
        size = limit(query, default=200, low=1, high=200)
        body = self._events(query, size, combos=False)
        return {**body, "milestones": []} if flag(query, "with_milestones") else body

    def multivariate_events(self, query: Query) -> object:
        """Combos alone."""
        if query.get("series_ticker") and query.get("collection_ticker"):
            raise bad_request("series_ticker and collection_ticker cannot be used together")
        return self._events(query, limit(query, default=100, low=1, high=200), combos=True)

    def _events(self, query: Query, size: int, *, combos: bool) -> dict[str, object]:
        markets_of = self._listing.markets_of()
        nested = flag(query, "with_nested_markets")
        status = word(query, "status", EVENT_STATUSES)
        close, updated = seconds(query, "min_close_ts"), seconds(query, "min_updated_ts")
        series, wanted = query.get("series_ticker") or None, names(query, "tickers")
        collection = query.get("collection_ticker") or None

        def rows(after: Key | None) -> Iterator[Listed]:
            for key, row in self._listing.event_table.rows(after):
                its = markets_of(key[1])
                if (
                    is_combo(key[1], row) == combos
                    and series in (None, row.get("series_ticker"))
                    and (not wanted or key[1] in wanted)
                    and (status is None or event_status(its) == status)
                    and (close is None or any(_is_after(market.get("close_time"), close) for market in its))
                    and (updated is None or _is_after(row.get("last_updated_ts"), updated))
                    and (collection is None or any(m.get("mve_collection_ticker") == collection for m in its))
                ):
                    yield Listed(key, {**row, "markets": its} if nested else row)

        found, cursor = page(rows, query, size)
        if self._listing.is_hidden("events"):
            found, cursor = [], ""
        return {"events": found, "cursor": cursor}

    def event_one(self, query: Query, ticker: str) -> object:
        nested, excluded = flag(query, "with_nested_markets"), flag(query, "exclude_markets")
        if nested and excluded:
            raise bad_request("exclude_markets cannot be combined with with_nested_markets=true")
        event = _found(self._listing.event_table.get(ticker), "event")
        if excluded:
            return {"event": event}
        markets = self._listing.markets_of()(ticker)
        return {"event": {**event, "markets": markets}} if nested else {"event": event, "markets": markets}

    # --- markets -------------------------------------------------------------------------------------------------

    def market_list(self, query: Query) -> object:
        """Markets that were not settled before the historical cutoff."""
        return self._markets(query, historical=False)

    def market_one(self, _query: Query, ticker: str) -> object:
        return {"market": _found(self._listing.market_table.get(ticker), "market")}

    def historical_list(self, query: Query) -> object:
        """Markets settled before the cutoff; the filters are mutually exclusive."""
        given = [name for name in ("tickers", "event_ticker", "series_ticker") if query.get(name)]
        if len(given) > 1:
            raise bad_request(f"{' and '.join(given)} are mutually exclusive")
        if query.get("mve_filter") == "only":
            raise bad_request("mve_filter: only exclude is known here")
        allowed = {"tickers", "event_ticker", "series_ticker", "mve_filter", "limit", "cursor"}
        return self._markets({name: text for name, text in query.items() if name in allowed}, historical=True)

    def historical_one(self, _query: Query, ticker: str) -> object:
        row = _found(self._listing.market_table.get(ticker), "market")
        return {"market": _found(row if self._is_historical(row) else None, "market")}

    def _is_historical(self, row: Row) -> bool:
        return bool(row.get("settlement_ts")) and micros(row["settlement_ts"]) < micros(self._listing.cutoff)

    def _markets(self, query: Query, *, historical: bool) -> object:
        size = limit(query, default=100, low=0, high=1000)
        status = word(query, "status", STATUS_FILTER)
        combos = word(query, "mve_filter", ("only", "exclude"))
        bounds = _time_bounds(query, status)
        statuses = None if status is None else STATUS_FILTER[status]
        event, wanted = query.get("event_ticker") or None, names(query, "tickers")
        series, series_of = query.get("series_ticker") or None, self._listing.series_of()

        def rows(after: Key | None) -> Iterator[Listed]:
            for listed in self._listing.market_table.rows(after):
                row = listed.row
                if (
                    (statuses is None or row.get("status") in statuses)
                    and (not wanted or listed.key[1] in wanted)
                    and event in (None, row.get("event_ticker"))
                    and (combos is None or is_combo(listed.key[1], row) == (combos == "only"))
                    and (series is None or _is_of(series, series_of(row), row))
                    and all(bound.admits(row) for bound in bounds)
                    and self._is_historical(row) == historical
                ):
                    yield listed

        found, cursor = page(rows, query, size)
        if not historical and self._listing.is_hidden("markets"):
            found, cursor = [], ""
        return {"markets": found, "cursor": cursor}


class _Bound:
    """`min_…_ts` is later than, `max_updated_ts` at or before, the other `max_…_ts` before a second."""

    def __init__(self, field: str, least: bool, second: int) -> None:
        self._field = field
        self._least = least
        self._micros = second * _MICROS + (field == "updated_time" and not least)

    def admits(self, row: Row) -> bool:
        value = row.get(self._field)
        if not value:
            return False
        return micros(value) > self._micros if self._least else micros(value) < self._micros


def _time_bounds(query: Query, status: str | None) -> list[_Bound]:
    """The time filters; which of them go together, and with what else, is the exchange's own table."""
    bounds: list[_Bound] = []
    kinds: dict[str, str] = {}
    for kind, (field, statuses) in _TIME_FILTERS.items():
        for end in ("min", "max"):
            name = f"{end}_{kind}_ts"
            second = seconds(query, name)
            if second is None:
                continue
            if status not in statuses:
                raise bad_request(f"{name} cannot be combined with status {status}")
            kinds[kind] = name
            bounds.append(_Bound(field, end == "min", second))
    if len(kinds) > 1:
        raise bad_request(f"timestamp filters are mutually exclusive: {', '.join(kinds.values())}")
    if "updated" in kinds:
        _check_updated(query, kinds["updated"])
    return bounds


def _check_updated(query: Query, name: str) -> None:
    others = [other for other in ("event_ticker", "tickers") if query.get(other)]
    if query.get("mve_filter") == "only":
        others.append("mve_filter=only")
    if others:
        raise bad_request(f"{name} is incompatible with {', '.join(others)}")
    if query.get("series_ticker") and query.get("mve_filter") != "exclude":
        raise bad_request(f"{name} with series_ticker requires mve_filter=exclude")


def event_status(markets: Sequence[Row]) -> str:
    """Where an event is in its life: open while any of its markets trades or pauses, settled when all of them are.

    One whose markets nobody recorded counts as open.
    """
    statuses = {market.get("status") for market in markets}
    if not statuses or statuses & (STATUS_FILTER["open"] | STATUS_FILTER["paused"]):
        return "open"
    if statuses & STATUS_FILTER["unopened"]:
        return "unopened"
    return "settled" if statuses <= STATUS_FILTER["settled"] else "closed"


def _is_of(series: str, known: str | None, market: Row) -> bool:
    """Is the market of this series? Where its event is not known, its event's ticker says so."""
    return known == series if known is not None else str(market.get("event_ticker")).startswith(f"{series}-")


def _series(row: Row, query: Query) -> Row:
    """Without what must be asked for."""
    optional: Iterable[tuple[str, str]] = (
        ("include_volume", "volume_fp"),
        ("include_product_metadata", "product_metadata"),
    )
    left_out = {field for parameter, field in optional if not flag(query, parameter)}
    return {field: value for field, value in row.items() if field not in left_out}


def _is_after(text: str | None, second: int) -> bool:
    return micros(text) > second * _MICROS


def _found(row: Row | None, what: str) -> Row:
    if row is None:
        raise Refused(404, "not_found", f"{what} not found")
    return row
