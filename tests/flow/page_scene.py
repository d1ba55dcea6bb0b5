"""An ordinary day on the status page: markets, gaps, an archive of a week, clients, and events that go on and on."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

from ssmd.clock import NS_PER_S, now_ns
from ssmd.market.events import SCALE, Gap, Kind, OrderBookUpdate, Quote, Side, Trade
from ssmd.registry.interface import Market, ObjectRecord
from ssmd.registry.memory import MemoryRegistry
from tests.flow.gateway_stage import FEED, Stage

TICKER = "KXBTCD-26NOV22-T95000"
TITLE = "Bitcoin price on Nov 22, 2026 at 5pm EST: $95,000 or above?"
OTHERS = {
    "KXBTCD-26NOV22-T96000": "Bitcoin price on Nov 22, 2026 at 5pm EST: $96,000 or above?",
    "KXHIGHNY-26NOV22-B52.5": "Will the high temp in NYC be 52-53° on Nov 22, 2026?",
    "KXFED-26DEC-T3.75": "Will the upper bound of the federal funds rate be above 3.75% after December?",
}


def listed(ticker: str, title: str) -> Market:
    return Market(ticker, ticker.rpartition("-")[0], title, "active", None, "2026-11-22T22:00:00Z", "", {})


def a_day(registry: MemoryRegistry) -> None:
    """Markets, three gaps of today, a week of archive."""
    registry.upsert_markets(FEED, [listed(TICKER, TITLE), *(listed(*other) for other in OTHERS.items())])
    now = now_ns()
    today = datetime.now(UTC).date()
    midnight = now - now % (86_400 * NS_PER_S)
    at = [midnight + (now - midnight) * part // 10 for part in (2, 5, 9)]
    registry.record_gaps(
        [
            Gap(FEED, "kalshi-1", None, at[0], at[0] + 41 * NS_PER_S, "connection_lost"),
            Gap(FEED, "kalshi-1", 4, at[1], at[1] + 800_000_000, "sequence_gap", 77, 81, (TICKER,)),
            Gap(FEED, "kalshi-2", None, at[2], at[2] + 2 * NS_PER_S, "startup"),
        ]
    )
    for back in range(6, -1, -1):
        day = today - timedelta(days=back)
        end = now - back * 86_400 * NS_PER_S - 12 * NS_PER_S
        for data_type, group in (("raw", "market"), ("normalized", "trade")):
            key = f"{FEED}/{group}/{day:%Y/%m/%d}/12/{end}-kalshi-1.{'jsonl' if data_type == 'raw' else 'capnp'}.zst"
            registry.record_objects(
                FEED,
                [
                    ObjectRecord(
                        f"ssmd-{data_type}", key, data_type, group, day, f"{back:064x}", 48_000_000 + back * 3_100_000,
                        5_400_000 - back * 111_111, end - 60 * NS_PER_S, end, None if data_type == "raw" else "1.0.0",
                    )
                ],
            )  # fmt: skip
            if back:
                good = back != 3
                registry.set_day_condition(
                    FEED, day, data_type, "complete" if good else "partial", 1.0 - back / 100 if good else 0.81
                )


class Chatter:
    """A connector that sends trades, changes of a book and quotes."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._random = random.Random(7)
        self._trades = 0
        self._seq = 1

    def snapshot(self, ticker: str = TICKER) -> None:
        """The whole book."""
        bids = tuple((440_000 - n * 10_000, (n + 1) * 37 * SCALE) for n in range(14))
        asks = tuple((460_000 + n * 10_000, (n + 1) * 29 * SCALE) for n in range(14))
        now = now_ns()
        self._stage.publish(OrderBookUpdate(now, now, ticker, "c-1", 1, self._seq, Kind.SNAPSHOT, bids, asks))

    def change(self, ticker: str = TICKER, price: int = 0, size: int = -1) -> None:
        """A new size of a bid."""
        now = now_ns()
        self._seq += 1
        price = price or 440_000 - self._random.randrange(8) * 10_000
        size = size if size >= 0 else self._random.randrange(10, 900) * SCALE
        self._stage.publish(
            OrderBookUpdate(now, now, ticker, "c-1", 1, self._seq, Kind.DELTA, ((price, size),), ()),
        )

    def trade(self, ticker: str = TICKER, price: int = 450_000, size: int = 0, trade_id: str = "") -> None:
        """A trade."""
        now = now_ns()
        self._trades += 1
        side = self._random.choice((Side.BUY, Side.SELL))
        size = size or self._random.randrange(1, 400) * SCALE
        self._stage.publish(Trade(now, now, ticker, "c-1", 3, 0, price, size, side, trade_id or f"t-{self._trades}"))

    def quote(self, ticker: str = TICKER) -> None:
        """Best prices."""
        now = now_ns()
        self._stage.publish(
            Quote(
                now, now, ticker, "c-1", 2, 0, 440_000, 100 * SCALE, 460_000, 150 * SCALE, 450_000, SCALE, SCALE, SCALE
            )
        )


@contextlib.asynccontextmanager
async def chatting(stage: Stage) -> AsyncIterator[Chatter]:
    """A book, and some messages every 50 ms for as long as the context lasts."""
    chatter = Chatter(stage)
    chatter.snapshot()

    async def talk() -> None:
        n = 0
        while True:
            n += 1
            chatter.change()
            if n % 4 == 0:
                chatter.trade(price=450_000 + n % 3 * 10_000)
            if n % 7 == 0:
                chatter.quote()
            await asyncio.sleep(0.05)

    task = asyncio.create_task(talk())
    try:
        yield chatter
    finally:
        task.cancel()
        await asyncio.wait({task})
