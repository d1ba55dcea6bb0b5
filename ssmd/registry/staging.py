"""What a sync heard, page by page in temporary tables of its transaction: COPY in, nothing kept in memory."""

import io
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple

import msgspec
import psycopg2
import sqlalchemy as sa

from ssmd.errors import DataError
from ssmd.registry.interface import ListedEvent, Market, Series
from ssmd.registry.market_values import (
    canonical_json,
    evidence_of,
    fingerprint,
    is_lost,
    lost_times,
    stored_columns,
    stored_ticker,
)
from ssmd.registry.values import moment, printable, storable, written

PAGE = 1_000
MAX_LEFT_OUT = 100
MAX_SEEN = 100_000
"""So many that were left out are told apart; more of them are counted each time they are listed."""
_TICKER = 'varchar(128) COLLATE "C"'

_MARKET_COLUMNS = {
    "n": "bigint NOT NULL",
    "ticker": f"{_TICKER} NOT NULL",
    "event_ticker": _TICKER,
    "title": "text",
    "status": "varchar(32)",
    "open_time": "timestamptz",
    "close_time": "timestamptz",
    "result": "varchar(32)",
    "series_ticker": _TICKER,
    "category": "varchar(128)",
    "expiration_time": "timestamptz",
    "settlement_time": "timestamptz",
    "settled_at": "timestamptz",
    "settlement_value": "varchar(32)",
    "source_updated_at": "timestamptz",
    "listed_at": "timestamptz",
    "asked_at": "timestamptz NOT NULL",
    "evidence": "varchar(16)",
    "metadata_hash": "char(32)",
    "raw": "text STORAGE EXTERNAL",  # JSON only once it is known that something has changed; compressed nowhere
}
_PARENT_COLUMNS = {
    "n": "bigint NOT NULL",
    "ticker": f"{_TICKER} NOT NULL",
    "series_ticker": _TICKER,
    "title": "text",
    "category": "varchar(128)",
    "source_updated_at": "timestamptz",
    "raw": "text STORAGE EXTERNAL",
}
TABLES = {"staged_series": _PARENT_COLUMNS, "staged_events": _PARENT_COLUMNS, "staged_markets": _MARKET_COLUMNS}


class LeftOut(msgspec.Struct):
    """What could not be staged, whole or in part: how many, and the first tickers, made printable."""

    count: int = 0
    tickers: list[str] = []
    seen: set[int] = set()

    def add(self, ticker: str) -> None:
        """Count one, however often it is listed, and remember it if it is among the first."""
        if (known := hash(ticker)) in self.seen:
            return
        if len(self.seen) < MAX_SEEN:
            self.seen.add(known)
        self.count += 1
        if len(self.tickers) < MAX_LEFT_OUT:
            self.tickers.append(printable(ticker, 80))


class Answer(NamedTuple):
    """What an exchange said of a market, as it can be stored, and the fingerprint of all that is followed of it."""

    columns: Market
    fingerprint: str
    raw: dict[str, Any]


def answer_of(market: Market, volatile: frozenset[str]) -> Answer:
    """The market, ready to be staged; DataError when its ticker cannot be stored."""
    stored = stored_columns(market)
    return Answer(stored, fingerprint(stored, market.raw, volatile), market.raw)


class Staging:
    """Temporary tables (all of `TABLES`, or those named): gone when the transaction ends.

    A ticker may come again; of the rows with the same ticker the one with the greatest `n` holds.
    """

    def __init__(self, connection: sa.Connection, tables: Sequence[str] = tuple(TABLES)) -> None:
        self._connection = connection
        self._tables = tables
        self._number = 0
        self.left_out = LeftOut()
        self.without_times = LeftOut()
        """What was staged without a time that the exchange told: it cannot be stored, or is none."""
        for table in tables:
            described = ", ".join(f"{name} {kind}" for name, kind in TABLES[table].items())
            connection.execute(sa.text(f"CREATE TEMPORARY TABLE {table} ({described}) ON COMMIT DROP"))

    def add_series(self, listed: Sequence[Series]) -> None:
        """Stage series."""
        self._stage("staged_series", (self._parent(s, "") for s in listed))

    def add_events(self, listed: Sequence[ListedEvent]) -> None:
        """Stage events."""
        self._stage("staged_events", (self._parent(e, storable(e.series_ticker, 128)) for e in listed))

    def add_markets(self, listed: Iterable[Market], volatile: frozenset[str], asked_at: datetime) -> None:
        """Stage markets that were asked for at a time; one whose ticker cannot be stored is left out and counted."""
        self._stage("staged_markets", (self._market(market, volatile, asked_at) for market in listed))

    def add_answers(self, answers: Iterable[Answer], asked_at: datetime) -> None:
        """Stage markets that are made ready."""
        self._stage("staged_markets", (self._answer(answer, asked_at) for answer in answers))

    def _market(self, market: Market, volatile: frozenset[str], asked_at: datetime) -> str | None:
        try:
            answer = answer_of(market, volatile)
        except DataError:
            self.left_out.add(market.ticker)
            return None
        if lost_times(market, answer.columns):
            self.without_times.add(answer.columns.ticker)
        return self._answer(answer, asked_at)

    def _answer(self, answer: Answer, asked_at: datetime) -> str:
        stored = answer.columns
        self._number += 1
        return _line(
            str(self._number),
            stored.ticker,
            stored.event_ticker,
            stored.title,
            stored.status,
            stored.open_time,
            stored.close_time,
            stored.result,
            stored.series_ticker,
            stored.category,
            stored.expiration_time,
            stored.settlement_time,
            stored.settled_at,
            stored.settlement_value,
            stored.updated_time,
            written(moment(answer.raw.get("created_time"))) or stored.open_time,
            written(asked_at),
            evidence_of(stored),
            answer.fingerprint,
            canonical_json(answer.raw),
        )

    def _parent(self, listed: Series | ListedEvent, series_ticker: str) -> str | None:
        try:
            ticker = stored_ticker(listed.ticker)
        except DataError:
            self.left_out.add(listed.ticker)
            return None
        self._number += 1
        title, category = printable(listed.title), printable(listed.category, 128)
        updated = written(moment(listed.updated_time))
        if is_lost(listed.updated_time, updated):
            self.without_times.add(ticker)
        return _line(str(self._number), ticker, series_ticker, title, category, updated, canonical_json(listed.raw))

    def _stage(self, table: str, lines: Iterable[str | None]) -> None:
        usable = (line for line in lines if line is not None)
        while page := "".join(islice(usable, PAGE)):
            copy_text(self._connection, table, tuple(TABLES[table]), page)

    def analyze(self) -> None:
        """Let the planner know how much there is."""
        analyzed = ", ".join(f"{table} (n, ticker)" for table in self._tables)
        self._connection.execute(sa.text(f"ANALYZE {analyzed}"))


def copy_text(connection: sa.Connection, table: str, columns: Sequence[str], text: str) -> None:
    """COPY lines in PostgreSQL's text format into a table; driver errors arrive as SQLAlchemy's."""
    statement = f"COPY {table} ({', '.join(columns)}) FROM STDIN WITH (ENCODING 'UTF8')"
    driver = connection.connection.driver_connection
    assert driver is not None
    try:
        with driver.cursor() as cursor:
            cursor.copy_expert(statement, io.BytesIO(text.encode()))
    except psycopg2.Error as error:
        lost = bool(driver.closed)
        raise sa.exc.DBAPIError.instance(
            statement, None, error, psycopg2.Error, connection_invalidated=lost, dialect=connection.dialect
        ) from error


def _line(*values: str | None) -> str:
    return "\t".join([_field(value) for value in values]) + "\n"


def _field(value: str | None) -> str:
    if value is None:
        return "\\N"
    value = value.replace("\\", "\\\\")
    return value.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
