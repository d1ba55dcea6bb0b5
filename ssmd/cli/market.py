"""`ssmd market`: the markets the registry knows, what they were on a date, and how they came to be known."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from ssmd.cli.market_tables import BOOK, CHANGES, HISTORY, SYNCS
from ssmd.cli.moments import AsOf, KnownAt, moment
from ssmd.cli.opening import database_of, registry_of
from ssmd.cli.options import Chosen, EnvFile, Feed, Json, choose
from ssmd.cli.output import show_json, show_rows
from ssmd.errors import EXIT_DONE, ConfigError
from ssmd.nearest import did_you_mean
from ssmd.registry.interface import Market, Registry
from ssmd.registry.values import printable

if TYPE_CHECKING:
    from ssmd.registry.market_history import MarketChange, MarketState

app = App(name="market", help="Markets the registry knows: list, show, as they were on a date; sync them.")
app.command("ssmd.cli.market_sync:sync", name="sync", help="Bring the registry up to what the exchange lists.")

_PAGE = 1000
_MOST = 1_000_000
_UNCHANGED = "nothing has changed since it is known"
_COLUMNS = {
    "ticker": "TICKER", "status": "STATUS", "category": "CATEGORY", "close_time": "CLOSES", "result": "RESULT",
    "title": "TITLE",
}  # fmt: skip
_STATUSES = ("initialized", "inactive", "active", "closed", "determined", "disputed", "amended", "finalized")


@dataclass(frozen=True)
class Wanted:
    """Which markets."""

    status: str | None = None
    """The exchange's word: active, closed, determined, finalized, ..."""
    category: str | None = None
    """Only markets of this category, written as the exchange writes it."""
    series: str | None = None
    """Only markets of this series."""
    event: str | None = None
    """Only markets of this event."""
    never_heard: Annotated[bool, Parameter(negative=())] = False
    """Only open, listed markets from which no connector ever received a frame."""

    @property
    def belongs(self) -> dict[str, str]:
        """What is wanted of the fields that say where a market belongs."""
        fields = {"category": self.category, "series_ticker": self.series, "event_ticker": self.event}
        return {field: value for field, value in fields.items() if value is not None}


@app.command(name="list")
def list_markets(
    *,
    wanted: Annotated[Wanted | None, Parameter(name="*")] = None,
    as_of: AsOf = None,
    known_at: KnownAt = None,
    limit: int = 100,
    env: EnvFile = None,
    feed: Feed = None,
    json: Json = False,
) -> int:
    """List markets by ticker: as they are, or as they were on a date and as that was known on another.

    Parameters
    ----------
    limit
        At most so many; 0 means all.
    """
    wanted = wanted or Wanted()
    if limit < 0:
        raise ConfigError(f"--limit {limit} is negative", "Give 0 for all.")
    chosen = choose(env)
    if as_of is not None or known_at is not None:
        if wanted.never_heard:
            raise ConfigError("--never-heard goes with no date", "Only the present is known of it.")
        rows = _listed_then(chosen, chosen.feed(feed), wanted, limit, *_moments(as_of, known_at))
    else:
        rows = _listed_now(chosen, chosen.feed(feed), wanted, limit)
    show_rows(rows, _COLUMNS, as_json=json, empty=_none_found(wanted.status))
    return EXIT_DONE


@app.command
def show(
    ticker: str,
    *,
    as_of: AsOf = None,
    known_at: KnownAt = None,
    history: Annotated[bool, Parameter(negative=(), help="With every change of its fields.")] = False,
    env: EnvFile = None,
    feed: Feed = None,
    json: Json = False,
) -> int:
    """Show one market: everything the exchange says about it, or what it said on a date."""
    chosen = choose(env)
    name = chosen.feed(feed)
    if as_of is not None or known_at is not None:
        fields = _fields_then(chosen, name, ticker, as_of, known_at)
    else:
        fields = _fields(chosen, name, ticker)
    if history:
        fields["history"] = [_change(change) for change in _changes(chosen, name, ticker, known_at)]
    if json:
        show_json(fields)
        return EXIT_DONE
    nested = {**fields.pop("raw", {}), **fields.pop("fields", {})}
    changes = fields.pop("history", None)
    said = {**fields, **{key: nested[key] for key in sorted(nested) if key not in fields}}
    rows = [{"field": key, "value": _text(value)} for key, value in said.items()]
    show_rows(rows, {"field": "FIELD", "value": "VALUE"}, as_json=False, empty="")
    if changes is not None:
        print("\nHistory:")
        show_rows(changes, HISTORY, as_json=False, empty=_UNCHANGED, terminal=CHANGES)
    return EXIT_DONE


@app.command(name="history")
def show_history(
    ticker: str, *, known_at: KnownAt = None, env: EnvFile = None, feed: Feed = None, json: Json = False
) -> int:
    """Show every change of a market: when it happened, when it was learnt, and which later evidence corrected it."""
    chosen = choose(env)
    rows = [_change(change) for change in _changes(chosen, chosen.feed(feed), ticker, known_at)]
    show_rows(rows, HISTORY, as_json=json, empty=_UNCHANGED, terminal=CHANGES)
    return EXIT_DONE


@app.command
def syncs(*, limit: int = 20, env: EnvFile = None, feed: Feed = None, json: Json = False) -> int:
    """Show the last syncs, newest first: completed, refused, failed, running, or aborted (killed before their end)."""
    import msgspec

    from ssmd.registry.security_master import SecurityMaster

    chosen = choose(env)
    with database_of(chosen) as database:
        book = SecurityMaster(database).syncs(chosen.feed(feed), limit)
    rows = [msgspec.structs.asdict(row) for row in book]
    for row in rows:
        end = row["completed_at"]
        row["seconds"] = None if end is None else round((end - row["started_at"]).total_seconds(), 3)
        row |= {name: _time(row[name]) for name in ("started_at", "completed_at")}
    empty = "nothing was synced yet; run: ssmd market sync"
    show_rows(rows, SYNCS, as_json=json, empty=empty, terminal=BOOK)
    return EXIT_DONE


# -- as they are ------------------------------------------------------------------------------------------------------


def _listed_now(chosen: Chosen, feed: str, wanted: Wanted, limit: int) -> list[dict[str, Any]]:
    if chosen.environment.spec.database_url is None:
        with registry_of(chosen) as registry:
            if wanted.never_heard:
                rows = [_row(market) for market in registry.never_heard(feed, _MOST)]
            else:
                rows = [_row(market) for market in _all(registry, feed, wanted.status, 0)]
        fields = wanted.belongs | ({"status": wanted.status} if wanted.status else {})
        return _having(rows, fields)[: limit or None]
    from ssmd.registry.market_search import MarketSearch

    with database_of(chosen) as database:
        listed = MarketSearch(database).find(
            feed, status=wanted.status, category=wanted.category, series=wanted.series, event=wanted.event,
            never_heard=wanted.never_heard, limit=limit or None,
        )  # fmt: skip
    return [_row(market) for market in listed]


def _all(registry: Registry, feed: str, status: str | None, limit: int) -> list[Market]:
    found: list[Market] = []
    while not limit or len(found) < limit:
        size = min(_PAGE, limit - len(found)) if limit else _PAGE
        page = registry.markets(feed, status, size, found[-1].ticker if found else "")
        found += page
        if len(page) < size:
            break
    return found


def _fields(chosen: Chosen, feed: str, ticker: str) -> dict[str, Any]:
    with registry_of(chosen) as registry:
        market = registry.market(feed, ticker)
        if market is None:
            raise _unknown(chosen, registry, feed, ticker)
    return _row(market) | {"listed": market.listed, "raw": market.raw}


def _row(market: Market) -> dict[str, Any]:
    return {
        "ticker": market.ticker,
        "status": market.status,
        "category": market.category,
        "series_ticker": market.series_ticker,
        "event_ticker": market.event_ticker,
        "open_time": market.open_time,
        "close_time": market.close_time,
        "result": market.result,
        "settled_at": market.settled_at,
        "settlement_value": market.settlement_value,
        "title": market.title,
    }


# -- as they were -----------------------------------------------------------------------------------------------------


def _listed_then(
    chosen: Chosen, feed: str, wanted: Wanted, limit: int, valid: datetime, known: datetime
) -> list[dict[str, Any]]:
    from ssmd.registry.security_master import SecurityMaster

    found: list[dict[str, Any]] = []
    with database_of(chosen) as database:
        master, after = SecurityMaster(database), ""
        while not limit or len(found) < limit:
            size = min(_PAGE, limit - len(found)) if limit else _PAGE
            page = master.markets_as_of(feed, valid, known, wanted.status, size, after, wanted.belongs)
            found += [_state_row(state) for state in page]
            if len(page) < size:
                break
            after = page[-1].ticker
    return found


def _fields_then(chosen: Chosen, feed: str, ticker: str, as_of: str | None, known_at: str | None) -> dict[str, Any]:
    from ssmd.registry.security_master import SecurityMaster

    valid, known = _moments(as_of, known_at)
    with registry_of(chosen) as registry:
        if registry.market(feed, ticker) is None:
            raise _unknown(chosen, registry, feed, ticker)
    with database_of(chosen) as database:
        state = SecurityMaster(database).as_of(feed, ticker, valid, known)
    times = {"as_of": valid, "known_at": known, "known_from": state.known_from, "listed_at": state.listed_at}
    return {
        "ticker": state.ticker,
        **{name: _time(at) for name, at in times.items()},
        "listed": state.listed,
        **({"inferred": list(state.inferred)} if state.inferred else {}),
        "fields": state.fields,
    }


def _state_row(state: "MarketState") -> dict[str, Any]:
    said = state.fields
    names = ("status", "category", "series_ticker", "event_ticker", "open_time", "close_time", "result")
    return {
        "ticker": state.ticker,
        **{name: said.get(name) or "" for name in names},
        "settled_at": said.get("settlement_ts"),
        "settlement_value": said.get("settlement_value_dollars") or "",
        "title": said.get("title") or said.get("yes_sub_title") or "",
    }


def _changes(chosen: Chosen, feed: str, ticker: str, known_at: str | None) -> "list[MarketChange]":
    from ssmd.registry.security_master import SecurityMaster

    known = moment("--known-at", known_at, datetime.now(UTC)) if known_at is not None else None
    with registry_of(chosen) as registry:
        if registry.market(feed, ticker) is None:
            raise _unknown(chosen, registry, feed, ticker)
    with database_of(chosen) as database:
        return SecurityMaster(database).history(feed, ticker, known)


def _change(change: "MarketChange") -> dict[str, Any]:
    return {
        "changed_at": _time(change.changed_at),
        "field": change.field,
        "old": change.old,
        "new": change.new,
        "known_from": _time(change.known_from),
        "known_to": _time(change.known_to),
        "evidence": change.evidence,
    }


def _moments(as_of: str | None, known_at: str | None) -> tuple[datetime, datetime]:
    now = datetime.now(UTC)
    return moment("--as-of", as_of, now), moment("--known-at", known_at, now)


def _time(at: datetime | None) -> str | None:
    return None if at is None else f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


# -- words ------------------------------------------------------------------------------------------------------------


def _unknown(chosen: Chosen, registry: Registry, feed: str, ticker: str) -> ConfigError:
    otherwise = f"See: ssmd market list --feed {feed}, or bring the list up to date: ssmd market sync"
    if chosen.environment.spec.database_url is None:
        hint = did_you_mean(ticker, [market.ticker for market in _all(registry, feed, None, 0)], otherwise)
    else:
        from ssmd.registry.market_search import MarketSearch

        with database_of(chosen) as database:
            near = MarketSearch(database).near(feed, ticker)
        hint = f"Did you mean {near!r}?" if near else otherwise
    return ConfigError(f"the registry knows no market {printable(ticker, 80)!r} of {feed}", hint)


def _none_found(status: str | None) -> str:
    hint = ""
    if status is not None and status not in _STATUSES:
        hint = " " + did_you_mean(status, _STATUSES, f"The exchange's words: {', '.join(_STATUSES)}.")
    return f"no such markets are known.{hint} To ask the exchange: ssmd market sync"


def _text(value: object) -> object:
    """Lists and objects as JSON; everything else as it is."""
    import msgspec

    return msgspec.json.encode(value).decode() if isinstance(value, list | dict) else value


def _having(rows: Sequence[dict[str, Any]], fields: dict[str, str]) -> list[dict[str, Any]]:
    return [row for row in rows if all(row[field] == value for field, value in fields.items())]
