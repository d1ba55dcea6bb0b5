"""From spool to archive: each segment once, whatever happens at the same time."""

import asyncio
import contextlib
import errno
import threading
from collections.abc import AsyncIterator, Sequence
from datetime import date
from pathlib import Path

import msgspec
import pytest

from ssmd.archive.manifest import raw_manifests
from ssmd.connector import sealer as sealing
from ssmd.connector.outbox import Outbox
from ssmd.connector.sealer import Sealer
from ssmd.connector.spool import RAW, RawMeta, Spool, pack
from ssmd.middleware.storage.local import LocalStorage
from ssmd.middleware.transport.memory import MemoryTransport
from ssmd.registry.interface import ObjectRecord
from ssmd.registry.memory import MemoryRegistry
from ssmd.wire.raw import raw_line

DAY = date(2026, 11, 22)


class SlowRegistry(MemoryRegistry):
    """A database that answers when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self.answers = threading.Event()
        self.answers.set()

    def record_objects(self, feed: str, records: Sequence[ObjectRecord]) -> None:
        self.asked.set()
        self.answers.wait(10)
        super().record_objects(feed, records)


class Desk:
    """A spool, a sealer and where it seals to."""

    def __init__(self, folder: Path) -> None:
        self.registry = SlowRegistry()
        self.storage = LocalStorage(folder / "storage")
        self.spool = Spool(folder / "spool", 1 << 30)
        self.n = 0

    async def open(self) -> None:
        self.outbox = Outbox(self.spool, await MemoryTransport().publisher("kalshi"))
        self.sealer = Sealer("kalshi", "raw", self.spool, self.outbox, self.storage, self.registry)
        self.task = asyncio.create_task(self.sealer.run())

    def segment(self, *frames: bytes) -> None:
        """A closed segment of these frames."""
        self.outbox.begin(self.spool.begin(DAY))
        last = self.n + len(frames) - 1
        lines = [raw_line(1, "x", "c-1", self.n + i, frame, False) for i, frame in enumerate(frames)]
        meta = RawMeta("control", "c-1", len(frames), self.n, last, 1, 1)
        self.spool.append(pack(RAW, msgspec.json.encode(meta), b"".join(lines)))
        self.n = last + 1
        closed = self.spool.end()
        assert closed is not None
        self.sealer.add(closed)

    async def idle(self) -> None:
        async with asyncio.timeout(20):
            while not self.sealer.idle:
                if self.task.done():
                    await self.task
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        self.registry.answers.set()
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task
        self.spool.close()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path)
    await desk.open()
    yield desk
    await desk.close()


async def test_a_segment_given_up_while_its_rows_are_written_takes_no_other_with_it(desk: Desk) -> None:
    desk.registry.answers.clear()
    desk.segment(b"{}")
    await asyncio.to_thread(desk.registry.asked.wait, 10)

    assert desk.sealer.make_room()
    desk.segment(b"{}")
    desk.registry.answers.set()
    await desk.idle()

    assert len(desk.registry.objects("kalshi", DAY)) == 2
    assert desk.spool.closed_bytes == 0


async def test_one_read_may_hold_more_than_a_frame_of_the_archive(desk: Desk) -> None:
    huge = b"\xff" * (26 << 20)
    desk.segment(huge, huge)  # 69 MiB in base64
    await desk.idle()

    (record,) = desk.registry.objects("kalshi", DAY)
    assert record.records == 2
    assert len(await raw_manifests(desk.storage, "raw", "kalshi", DAY)) == 1


async def test_sealing_waits_for_room_on_the_disk(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "_RETRY_S", (0.01,))

    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(sealing, "compress", full)
        desk.segment(b"{}")
        async with asyncio.timeout(30):
            while "disk" not in desk.sealer.trouble:  # noqa: ASYNC110 - a condition of the sealer's making
                await asyncio.sleep(0.01)
        assert not desk.task.done()

    await desk.idle()
    assert desk.sealer.trouble == {}
    assert len(desk.registry.objects("kalshi", DAY)) == 1
