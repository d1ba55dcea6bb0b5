"""Parquet holds what the archive holds: every value exactly, whatever order or pieces it came in."""

import random
import tempfile
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmd.archive.layout import ParquetDay
from ssmd.clock import NS_PER_MS, NS_PER_S
from ssmd.errors import DataError
from ssmd.market.events import Gap, Kind, MarketStatus, OrderBookUpdate, Status, Trade
from ssmd.middleware.storage.memory import MemoryStorage
from ssmd.quality import export as exporting
from ssmd.quality import facts, rows, volume
from ssmd.quality.columns import money, table_of
from ssmd.quality.export import export, fetch
from ssmd.quality.exported import Exported, read_exported
from tests.trade_archive import FEED, NOON, NORMALIZED, OTHER, TICKER, TODAY, store_compacted, store_trades, trade

DAY = ParquetDay(FEED, "trade", TODAY)
DELAY = 5 * NS_PER_MS
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


async def files(storage: MemoryStorage, made: Exported, folder: Path) -> list[Path]:
    return [await fetch(storage, NORMALIZED, part, folder / f"{n}.parquet") for n, part in enumerate(made.parts)]


def many(count: int, seed: int = 1) -> list[Trade]:
    pick = random.Random(seed)
    return [
        trade(NOON + n * NS_PER_S, n + 1, pick.choice((TICKER, OTHER)), price=pick.randrange(1, 1_000_000))
        for n in range(count)
    ]


@given(st.lists(st.none() | INT64, max_size=20))
def test_millionths_become_decimals_of_the_same_value(values: list[int | None]) -> None:
    assert money(values).to_pylist() == [None if v is None else Decimal(v).scaleb(-6) for v in values]


@given(st.lists(st.none() | st.integers(-(10**15), 10**15), max_size=20), st.integers(0, 5))
def test_decimals_become_floats_of_their_dollars_also_in_a_slice(values: list[int | None], start: int) -> None:
    found = rows._dollars(money(values)[start:])
    assert [None if pd.isna(v) else v for v in found] == [None if v is None else v / 1e6 for v in values[start:]]


def test_every_event_type_keeps_every_value() -> None:
    book = OrderBookUpdate(0, NOON, TICKER, "c", 1, 7, Kind.SNAPSHOT, ((450_000, 5), (440_000, 6)), ((470_000, 1),), 3)
    delta = OrderBookUpdate(5, NOON, TICKER, "c", 1, (1 << 64) - 1, Kind.DELTA, (), ((460_000, 9), (470_000, 0)))
    first, second = table_of("orderbook", [book, delta]).to_pylist()
    assert (first["exchange_time"], first["kind"], first["clock"]) == (None, "snapshot", 3)
    assert first["bids"] == [
        {"price": Decimal("0.450000"), "size": Decimal("0.000005")},
        {"price": Decimal("0.440000"), "size": Decimal("0.000006")},
    ]
    assert (second["bids"], second["seq"]) == ([], (1 << 64) - 1)
    best = [(row["best_bid"], row["best_ask"]) for row in (first, second)]
    assert best == [(Decimal("0.45"), Decimal("0.47")), (Decimal("0.45"), Decimal("0.46"))]

    status = MarketStatus(1, NOON, TICKER, "c", 4, 0, Status.SETTLED, "yes", 1_000_000)
    open_ = MarketStatus(1, NOON, TICKER, "c", 4, 0, Status.OPEN)
    found = table_of("status", [status, open_]).to_pylist()
    assert [(row["status"], row["result"], row["settlement_value"]) for row in found] == [
        ("settled", "yes", Decimal("1.000000")), ("open", "", None),
    ]  # fmt: skip

    gap = Gap(FEED, "c", None, NOON, NOON + 1, "silence", 3, 9, ("A", "B"))
    [row] = table_of("gap", [gap]).to_pylist()
    assert (row["sid"], row["last_seq"], row["tickers"]) == (None, 3, ["A", "B"])
    assert (row["to_time"].value, row["from_time"].value) == (NOON + 1, NOON)


async def test_segments_and_compacted_objects_give_the_same_rows(storage: MemoryStorage, tmp_path: Path) -> None:
    trades = many(500)
    await store_trades(storage, TODAY, trades[:300])
    await store_trades(storage, TODAY, trades[300:], 301)
    made, _ = await export(storage, NORMALIZED, DAY, work=tmp_path)
    from_segments = pq.read_table((await files(storage, made, tmp_path))[0])

    for ticker in (TICKER, OTHER):
        await store_compacted(storage, TODAY, ticker, [each for each in trades if each.ticker == ticker])
    again, fresh = await export(storage, NORMALIZED, DAY, work=tmp_path)
    from_objects = pq.read_table((await files(storage, again, tmp_path))[0])

    assert fresh
    assert from_segments.equals(from_objects)
    assert from_objects["ticker"].to_pylist() == sorted(each.ticker for each in trades)
    assert (again.rows, again.tickers, again.first_ns, again.last_ns) == (
        500,
        2,
        NOON + DELAY,
        NOON + 499 * NS_PER_S + DELAY,
    )
    assert again.parts == made.parts


async def test_an_export_is_made_again_only_when_its_inputs_changed(storage: MemoryStorage, tmp_path: Path) -> None:
    await store_compacted(storage, TODAY, TICKER, many(10))
    assert [(await export(storage, NORMALIZED, DAY))[1] for _ in range(3)] == [True, False, False]
    await store_compacted(storage, TODAY, TICKER, many(11))
    assert [(await export(storage, NORMALIZED, DAY))[1] for _ in range(2)] == [True, False]
    await storage.delete(NORMALIZED, DAY.part_key(0))
    assert (await export(storage, NORMALIZED, DAY))[1]
    await storage.replace(NORMALIZED, DAY.manifest_key, b"{}")
    assert (await export(storage, NORMALIZED, DAY))[1]
    assert not (await export(storage, NORMALIZED, DAY))[1]
    assert (await export(storage, NORMALIZED, DAY, force=True))[1]


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-40], lambda data: data[:60] + bytes([data[60] ^ 4]) + data[61:]], ids=["cut", "flip"]
)
async def test_a_damaged_export_is_made_again_before_anybody_reads_it(
    storage: MemoryStorage, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    await store_compacted(storage, TODAY, TICKER, many(500))
    made, _ = await export(storage, NORMALIZED, DAY)
    whole = await storage.get(NORMALIZED, DAY.part_key(0))
    await storage.replace(NORMALIZED, DAY.part_key(0), damage(whole))
    with pytest.raises(DataError, match="not what its manifest says"):
        await files(storage, made, tmp_path)

    with structlog.testing.capture_logs() as said:
        again, fresh = await export(storage, NORMALIZED, DAY)

    assert (again, fresh) == (made, True)
    assert await storage.get(NORMALIZED, DAY.part_key(0)) == whole
    assert {"damaged export is made again"} < {line["event"] for line in said}
    assert await files(storage, again, tmp_path)


async def test_a_file_that_is_damaged_on_its_way_is_named_wherever_it_is_read(
    storage: MemoryStorage, tmp_path: Path
) -> None:
    """Arrow raises OSError for a page that is damaged, ArrowInvalid for another; which one is its own affair."""
    await store_compacted(storage, TODAY, TICKER, many(5_000))
    made, _ = await export(storage, NORMALIZED, DAY)
    [file] = await files(storage, made, tmp_path)
    content = file.read_bytes()
    readers: list[Callable[[], object]] = [
        lambda: list(rows.pieces("trade", [file])),
        lambda: facts.rows_by_ticker([file]),
        lambda: volume._archived([file], {TICKER}),
    ]
    named = []
    for place in range(4, len(content), len(content) // 60):
        file.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        for read in readers:
            try:
                read()
            except DataError as error:
                named.append(error.message)
    assert len(named) > 8
    assert all(message.startswith("0.parquet cannot be read") for message in named)


async def test_files_of_an_earlier_longer_export_go(
    storage: MemoryStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "ROWS_PER_PART", 100)
    monkeypatch.setattr(exporting, "ROWS_AT_ONCE", 40)
    trades = many(390)
    for start in range(0, 390, 30):
        await store_trades(storage, TODAY, trades[start : start + 30], start + 1)
    made, _ = await export(storage, NORMALIZED, DAY)
    assert len(made.parts) == 2
    assert sum(part.rows for part in made.parts) == 390
    table = pd.concat(pd.read_parquet(file) for file in await files(storage, made, tmp_path))
    assert sorted(table["trade_id"]) == sorted(each.trade_id for each in many(390))

    await store_compacted(storage, TODAY, TICKER, many(5))
    shorter, _ = await export(storage, NORMALIZED, DAY)
    assert [entry.key for entry in await storage.list(NORMALIZED, DAY.prefix)] == [DAY.manifest_key, DAY.part_key(0)]
    assert await read_exported(storage, NORMALIZED, DAY) == shorter


async def test_a_day_without_events_has_a_file_with_its_columns(storage: MemoryStorage, tmp_path: Path) -> None:
    made, _ = await export(storage, NORMALIZED, DAY)
    [file] = await files(storage, made, tmp_path)
    assert (made.rows, made.first_ns) == (0, 0)
    [empty] = rows.pieces("trade", [file])
    assert (len(empty), "same_id_before" in empty, "latency_s" in empty) == (0, True, True)


async def test_a_damaged_object_is_named_and_leaves_the_export_that_was_there(storage: MemoryStorage) -> None:
    record = await store_compacted(storage, TODAY, TICKER, many(10))
    before, _ = await export(storage, NORMALIZED, DAY)
    content = await storage.get(NORMALIZED, record.key)
    await storage.replace(NORMALIZED, record.key, content[:-7])

    with structlog.testing.capture_logs(), pytest.raises(DataError, match=record.key):
        await export(storage, NORMALIZED, DAY, force=True)

    assert await read_exported(storage, NORMALIZED, DAY) == before


# -- columns that need the rows before ------------------------------------------------------------------------------


def told(trades: Sequence[Trade]) -> list[tuple[float, float, int]]:
    """(seq_step, received_step_s, same_id_before) of each row in the files' order, by a plain loop."""
    before: dict[tuple[str, str, int], Trade] = {}
    seen: dict[str, int] = {}
    found = []
    for each in sorted(trades, key=lambda its: its.ticker):
        last = before.get((each.ticker, each.connection, each.sid))
        step = float(each.seq - last.seq) if last and last.seq and each.seq else -1e9
        time = (each.received_ns - last.received_ns) / NS_PER_S if last else -1e9
        found.append((step, time, seen.get(each.trade_id, 0) if each.trade_id else 0))
        seen[each.trade_id] = seen.get(each.trade_id, 0) + 1
        before[each.ticker, each.connection, each.sid] = each
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(1, 60), st.integers(1, 25))
def test_pieces_of_any_size_give_the_columns_of_one_piece(seed: int, count: int, piece: int) -> None:
    pick = random.Random(seed)
    trades = [
        trade(
            NOON + pick.randrange(100) * NS_PER_S, pick.randrange(30), pick.choice((TICKER, OTHER, "A")),
            connection=pick.choice(("c-1", "c-2")), sid=pick.randrange(2), trade_id=pick.choice(("", "x", "y")),
        )
        for _ in range(count)
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "PIECE", piece)
        file = Path(folder) / "file"
        ordered = sorted(trades, key=lambda its: its.ticker)
        batch = table_of("trade", ordered)
        with pq.ParquetWriter(file, batch.schema) as writer:
            writer.write_batch(batch)
        got = pd.concat(rows.pieces("trade", [file]))
    columns = got[["seq_step", "received_step_s", "same_id_before"]].fillna(-1e9)
    assert list(columns.itertuples(index=False, name=None)) == told(trades)
