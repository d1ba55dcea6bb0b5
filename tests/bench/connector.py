"""Row: the connector's loop, frames in, acknowledged messages and archived raw objects out."""

import asyncio
import shutil
import time
from pathlib import Path

import zstandard

from ssmd.connector.outbox import Outbox
from ssmd.connector.pipeline import Conversation, Pipeline
from ssmd.connector.sealer import Sealer
from ssmd.connector.service import SYNC_EVERY_S
from ssmd.connector.spool import Spool
from ssmd.feeds.kalshi.decoder import KalshiDecoder
from ssmd.feeds.kalshi.mapper import KalshiMapper
from ssmd.feeds.kalshi.session import KalshiSession
from ssmd.middleware.storage.local import LocalStorage
from ssmd.middleware.transport.nats import NatsTransport
from ssmd.registry.memory import MemoryRegistry
from tests.bench.broker import FEED, Broker
from tests.bench.frames import Tape
from tests.bench.measure import Lap, Stopwatch
from tests.bench.naive import NaiveNormalizer

BATCH = 256
"""Frames of one read; the link hands over up to 512."""
CONNECTION = "c-19a2b3c4d5e-abcdef"
SEAL_BYTES = 64 << 20
BUCKET = "ssmd-raw"
NAIVE_FRAMES = 3_000


class Loop:
    """The connector's parts put together as `connector.service` does, without a socket before them."""

    def __init__(self, folder: Path, transport: NatsTransport) -> None:
        self._folder = folder
        self._transport = transport

    async def open(self) -> None:
        """Make everything, and wait until the publisher is connected."""
        self.spool = Spool(self._folder / "spool", 8 << 30)
        self.publisher = await self._transport.publisher(FEED)
        self.outbox = Outbox(self.spool, self.publisher)
        self.storage_path = self._folder / "storage"
        self.sealer = Sealer(FEED, BUCKET, self.spool, self.outbox, LocalStorage(self.storage_path), MemoryRegistry())
        self.pipeline = Pipeline(
            FEED, KalshiDecoder(), self.spool, self.outbox, max_segment_bytes=SEAL_BYTES, publish_raw=False,
            on_segment_end=self.sealer.add, make_room=self.sealer.make_room,
        )  # fmt: skip
        self.conversation = Conversation(CONNECTION, KalshiMapper(FEED, CONNECTION), KalshiSession())
        self.conversation.session.start([])
        self._tasks = [asyncio.create_task(work()) for work in (self.outbox.run, self.sealer.run, self._keep_durable)]
        while not self.publisher.room:
            await self.publisher.wait()

    async def _keep_durable(self) -> None:
        while True:
            await asyncio.sleep(SYNC_EVERY_S)
            if self.spool.dirty:
                await asyncio.to_thread(self.spool.sync)

    async def feed(self, frames: list[bytes]) -> None:
        """Everything through the pipeline, as fast as the broker acknowledges; returns when all is sent."""
        process, publisher, conversation = self.pipeline.process, self.publisher, self.conversation
        for start in range(0, len(frames), BATCH):
            now = time.time_ns()
            process(conversation, [(now, frame) for frame in frames[start : start + BATCH]])
            while publisher.room < BATCH:
                await publisher.wait()
            await asyncio.sleep(0)

    async def settled(self) -> None:
        """Everything is acknowledged, archived and trimmed."""
        self.pipeline.end_segment()
        while not self.outbox.empty:
            await self.publisher.wait()
        while not self.sealer.idle:  # noqa: ASYNC110
            await asyncio.sleep(0.002)

    async def close(self) -> None:
        """Stop the background work."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.spool.close()


async def ours(broker: Broker, tape: Tape, folder: Path) -> Lap:
    """One lap of ssmd; RuntimeError when a message or a record is missing."""
    await broker.fresh_stream()
    transport = NatsTransport(broker.url)
    loop = Loop(folder, transport)
    try:
        await loop.open()
        await loop.feed(tape.opening)
        watch = Stopwatch(broker.pid)
        watch.start()
        await loop.feed(tape.frames)
        await loop.settled()
        lap = watch.lap(len(tape.frames))
        await _check(broker, loop, len(tape.opening) + len(tape.frames))
    finally:
        await loop.close()
        await transport.close()
        shutil.rmtree(folder)
    return lap


async def _check(broker: Broker, loop: Loop, frames: int) -> None:
    stored, published = await broker.stored(), loop.pipeline.published
    if stored != published or loop.pipeline.problems:
        raise RuntimeError(f"{published} messages published, {stored} in the stream, problems {loop.pipeline.problems}")
    archived = 0
    for path in (loop.storage_path / BUCKET).rglob("*.jsonl.zst"):
        with (
            path.open("rb") as file,
            zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as lines,
        ):
            while chunk := lines.read(1 << 20):
                archived += chunk.count(b"\n")
    if archived != frames:
        raise RuntimeError(f"{frames} frames received, {archived} archived")


async def naive(broker: Broker, tape: Tape, folder: Path) -> Lap:
    """One lap of the baseline: everything awaited, one after the other."""
    await broker.fresh_stream()
    folder.mkdir()
    normalizer = NaiveNormalizer(FEED, CONNECTION)
    for frame in tape.opening:
        normalizer.normalize(frame, 0)
    frames = tape.frames[:NAIVE_FRAMES]
    async with broker.client() as client:
        jetstream = client.jetstream()
        with (folder / "raw.jsonl.zst").open("wb") as file, zstandard.ZstdCompressor(3).stream_writer(file) as raw:
            watch = Stopwatch(broker.pid)
            watch.start()
            for frame in frames:
                raw.write(frame + b"\n")
                message = normalizer.normalize(frame, time.time_ns())
                if message is not None:
                    await jetstream.publish(*message)
        lap = watch.lap(len(frames))
    if await broker.stored() != len(frames):
        raise RuntimeError(f"{await broker.stored()} of {len(frames)} messages in the stream")
    return lap
