"""The way to the live stream: in order, once, and through the spool's files when the broker is away."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path

import pytest

from ssmd.connector.outbox import Outbox
from ssmd.connector.spool import OUT, Spool, pack, pack_messages
from ssmd.middleware.transport.interface import Outgoing
from ssmd.middleware.transport.memory import MemoryTransport

DAY = date(2026, 11, 22)


class Desk:
    """A spool, a broker and an outbox between them."""

    def __init__(self, folder: Path, broker: MemoryTransport) -> None:
        self.broker = broker
        self.spool = Spool(folder, 1 << 24)
        self.count = 0

    async def open(self) -> None:
        self.outbox = Outbox(self.spool, await self.broker.publisher("kalshi"))
        self.task = asyncio.create_task(self.outbox.run())
        self.turn()

    def turn(self) -> None:
        self.spool.end()
        self.outbox.begin(self.spool.begin(DAY))

    def post(self, amount: int = 1) -> None:
        messages = [Outgoing(b"kalshi.trade.A", b"id%d" % n, b"%d" % n) for n in range(self.count, self.count + amount)]
        self.count += amount
        self.outbox.offer(messages, self.spool.append(pack(OUT, b"", pack_messages(messages))))

    async def settled(self) -> None:
        async with asyncio.timeout(30):
            while not self.outbox.empty:  # noqa: ASYNC110 - one turn of the loop at a time
                await asyncio.sleep(0)

    async def close(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task
        self.outbox.settle()
        self.spool.close()

    def stored(self) -> list[int]:
        return [int(message.payload) for message in self.broker.stream("kalshi").messages]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path, MemoryTransport())
    await desk.open()
    yield desk
    await desk.close()


async def test_messages_go_straight_out_while_the_broker_keeps_up(desk: Desk) -> None:
    desk.post(3)
    desk.post(2)

    assert desk.stored() == [0, 1, 2, 3, 4]
    assert desk.outbox.empty


async def test_after_an_outage_the_spool_is_published_in_order_before_what_is_new(desk: Desk) -> None:
    desk.post(2)
    desk.broker.up = False
    for _ in range(5):
        desk.post(300)
    desk.turn()
    desk.post(7)
    assert desk.stored() == [0, 1]
    assert not desk.outbox.empty

    desk.broker.up = True
    await desk.settled()
    desk.post()

    assert desk.stored() == list(range(desk.count))


async def test_a_restart_publishes_what_the_last_run_did_not(tmp_path: Path) -> None:
    broker = MemoryTransport()
    first = Desk(tmp_path, broker)
    await first.open()
    first.post(4)
    first.outbox.settle()
    broker.up = False
    first.post(6)
    await first.close()
    broker.up = True

    second = Desk(tmp_path, broker)
    second.count = first.count
    await second.open()
    second.post(2)
    await second.settled()
    await second.close()

    assert second.stored() == list(range(12))


async def test_a_restart_that_forgot_its_place_repeats_messages_harmlessly(tmp_path: Path) -> None:
    broker = MemoryTransport()
    first = Desk(tmp_path, broker)
    await first.open()
    first.post(10)
    first.spool.close()
    (tmp_path / "state.json").unlink()
    first.task.cancel()

    second = Desk(tmp_path, broker)
    second.count = first.count
    await second.open()
    second.post(1)
    await second.settled()
    await second.close()

    assert second.stored() == list(range(11))
