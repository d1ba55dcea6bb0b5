"""The security master: whole listings synced into PostgreSQL, beside a plain COPY of the same rows.

The limit is one COPY of the very rows of `markets`, as PostgreSQL itself writes them out, into a table with the same
columns, indexes and constraints. A sync stages pages, compares, writes history and its own book on top of that.
"""

import contextlib
import io
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2

from ssmd.feeds.kalshi.market_fields import VOLATILE, to_market
from ssmd.registry.database import Database
from ssmd.registry.interface import Market
from ssmd.registry.security_master import SecurityMaster, SyncResult
from tests.bench.measure import Lap
from tests.databases import Database as Server

PAGE = 1_000
CHANGED = 10
"""Every tenth market changes between the second and the third sync."""

_COLUMNS = (
    "feed_id, ticker, event_ticker, title, status, open_time, close_time, result, series_ticker, category, "
    "expiration_time, settlement_time, settled_at, source_updated_at, metadata_hash, observed_at, known_from, "
    "created_at, updated_at, raw_metadata"
)
_RULES = (
    "If the simple average of the sixty seconds of the index before {hour} PM EDT on Nov {day}, 2026 is above {strike} "
    "at {hour} PM EDT on Nov {day}, 2026, then the market resolves to Yes."
)
_SECONDARY = (
    "Not all price data is the same. While checking a source on the web may help guide your decision, the price used "
    "to determine this market is based on the index named in the contract. At the last minute before expiration, sixty "
    "values are collected. The official and final value is the average of these values, rounded to two decimal places."
)


def market(number: int, generation: int) -> Market:
    """The `number`th market of the exchange; every tenth differs between generations."""
    dice = random.Random(number)
    edited = generation if number % CHANGED == 0 else 0
    found = to_market(_object(number, dice, edited))
    assert found is not None
    return found


def _object(number: int, dice: random.Random, edited: int) -> dict[str, Any]:
    series = f"KX{['HIGHNY', 'BTCD', 'NFLGAME', 'CPI', 'INXD'][number % 5]}"
    day, hour, strike = 1 + number % 28, 1 + number % 11, f"{dice.randrange(10_000, 9_999_999) / 100:.2f}"
    event = f"{series}-26NOV{day:02d}{hour:02d}"
    price = f"{dice.randrange(1, 99) / 100:.4f}"
    close = f"2026-11-{day:02d}T{hour + 11:02d}:00:00Z"
    return {
        "can_close_early": True,
        "close_time": close,
        "created_time": f"2026-10-{day:02d}T09:00:49.{dice.randrange(10**6):06d}Z",
        "custom_strike": {"round_digits": "2"},
        "event_ticker": event,
        "exchange_index": number % 3,
        "expected_expiration_time": close.replace(":00:00Z", ":05:00Z"),
        "expiration_time": close.replace("2026-11", "2026-12"),
        "expiration_value": "",
        "floor_strike": float(strike),
        "latest_expiration_time": close.replace("2026-11", "2026-12"),
        "market_type": "binary",
        "no_sub_title": f"${strike} or above",
        "notional_value_dollars": "1.0000",
        "occurrence_datetime": close.replace(":00:00Z", ":05:00Z"),
        "open_time": f"2026-11-{day:02d}T{hour:02d}:00:00Z",
        "price_level_structure": "tapered_deci_cent",
        "price_ranges": [
            {"end": "0.1000", "start": "0.0000", "step": "0.0010"},
            {"end": "0.9000", "start": "0.1000", "step": "0.0100"},
            {"end": "1.0000", "start": "0.9000", "step": "0.0010"},
        ],
        "result": "",
        "rules_primary": _RULES.format(hour=hour, day=day, strike=strike),
        "rules_secondary": _SECONDARY,
        "settlement_bounds_type": "default",
        "settlement_timer_seconds": 60,
        "status": "active",
        "strike_type": "greater",
        "subtitle": f"${strike} or above",
        "ticker": f"{event}-T{strike}-{number}",
        "title": f"Price on Nov {day}, 2026?",
        "updated_time": f"2026-11-{day:02d}T00:00:{edited:02d}.{dice.randrange(10**6):06d}Z",
        "yes_sub_title": f"${strike} or above" + (f", as amended {edited}" if edited else ""),
        **{f"{side}_{end}_dollars": price for side in ("yes", "no") for end in ("bid", "ask")},
        **{f"{side}_{end}_size_fp": f"{number}.00" for side in ("yes",) for end in ("bid", "ask")},
        **{name: f"{dice.randrange(10**6)}.00" for name in ("open_interest_fp", "volume_24h_fp", "volume_fp")},
        **dict.fromkeys(("last_price_dollars", "previous_price_dollars", "previous_yes_bid_dollars"), price),
    }


class Registry:
    """A PostgreSQL server of its own, and a new database for every round."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o755)
        folder.parent.chmod(0o755)  # the server's own user must get in
        self._server = Server(folder)
        self._server.start()

    def close(self) -> None:
        """End the server."""
        self._server.stop()

    def fresh(self) -> str:
        """The URL of a new database."""
        return self._server.fresh()

    def laps(self, markets: int) -> dict[str, Lap]:
        """A new listing, the same again, one with a tenth changed; and the limit."""
        url = self._server.fresh()
        database = Database(url)
        master = SecurityMaster(database)
        try:
            first, result = _sync(master, markets, 0)
            _expect(result, inserted=markets)
            copied = self._copy(url.rpartition("/")[2], markets)
            again, result = _sync(master, markets, 0)
            _expect(result, unchanged=markets)
            third, result = _sync(master, markets, 1)
            changed = -(-markets // CHANGED)
            _expect(result, changed=changed, unchanged=markets - changed, fields=changed)
        finally:
            database.close()
        return {"limit": copied, "new": first, "same": again, "tenth": third}

    def _copy(self, name: str, rows: int) -> Lap:
        connection = psycopg2.connect(host="127.0.0.1", port=self._server.port, user="postgres", dbname=name)
        with contextlib.closing(connection), connection.cursor() as cursor:
            text = io.BytesIO()
            cursor.copy_expert(f"COPY (SELECT {_COLUMNS} FROM markets ORDER BY ticker) TO STDOUT", text)
            cursor.execute("CREATE TABLE copied (LIKE markets INCLUDING ALL)")
            connection.commit()
            text.seek(0)
            watch = _Watch()
            with watch:
                cursor.copy_expert(f"COPY copied ({_COLUMNS}) FROM STDIN", text)
                connection.commit()
            cursor.execute("SELECT count(*) FROM copied")
            if cursor.fetchone() != (rows,):
                raise RuntimeError("the COPY did not copy every row")
            cursor.execute("DROP TABLE copied")
            connection.commit()
        return watch.lap(rows)


class _Watch:
    """Adds up the time of its `with` blocks: making the input is not measured."""

    def __init__(self) -> None:
        self._wall = self._cpu = 0.0

    def __enter__(self) -> None:
        self._wall -= time.perf_counter()
        self._cpu -= time.process_time()

    def __exit__(self, *_: object) -> None:
        self._wall += time.perf_counter()
        self._cpu += time.process_time()

    def lap(self, rows: int) -> Lap:
        return Lap(self._cpu / rows * 1e6, rows / self._wall)


def _sync(master: SecurityMaster, markets: int, generation: int) -> tuple[Lap, SyncResult]:
    watch = _Watch()
    with contextlib.ExitStack() as stack:
        with watch:
            sync = stack.enter_context(master.sync("kalshi", "full", VOLATILE))
        for page in _pages(markets, generation):
            with watch:
                sync.add_markets(page)
        with watch:
            result = sync.apply()
            stack.close()
    return watch.lap(markets), result


def _pages(markets: int, generation: int) -> Iterator[list[Market]]:
    for start in range(0, markets, PAGE):
        yield [market(number, generation) for number in range(start, min(start + PAGE, markets))]


def _expect(result: SyncResult, **counts: int) -> None:
    for name, count in counts.items():
        if getattr(result, name) != count:
            raise RuntimeError(f"{name}: {getattr(result, name)} instead of {count}")
