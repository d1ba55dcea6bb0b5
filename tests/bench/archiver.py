"""Row: the archiver drains a full stream into durable segments and acknowledges what is stored."""

import asyncio
import os
import shutil
from collections import defaultdict
from pathlib import Path

import zstandard
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig

from ssmd.archiver import DURABLE, Archiver
from ssmd.clock import NS_PER_DAY, now_ns
from ssmd.feeds.kalshi.decoder import KalshiDecoder
from ssmd.feeds.kalshi.mapper import KalshiMapper
from ssmd.market.subjects import stream_name, subject
from ssmd.middleware.storage.local import LocalStorage
from ssmd.middleware.transport.interface import Outgoing
from ssmd.middleware.transport.nats import NatsTransport
from ssmd.registry.memory import MemoryRegistry
from ssmd.wire.normalized import STRUCTS, encode, event_type_of, split
from tests.bench.broker import FEED, Broker
from tests.bench.connector import CONNECTION
from tests.bench.frames import Tape
from tests.bench.measure import Lap, Stopwatch

BUCKET = "ssmd-normalized"
NAIVE_MESSAGES = 5_000
_BATCH = 500


async def fill(broker: Broker, tape: Tape) -> int:
    """Put the tape's events into a fresh stream; how many there are."""
    await broker.fresh_stream()
    decode, mapper, received_ns = KalshiDecoder().decode, KalshiMapper(FEED, CONNECTION), now_ns()
    transport = NatsTransport(broker.url)
    try:
        publisher = await transport.publisher(FEED)
        sent = 0
        frames = tape.opening + tape.frames
        for start in range(0, len(frames), _BATCH):
            events = [mapper.map(decode(frame), received_ns) for frame in frames[start : start + _BATCH]]
            while publisher.room < _BATCH:
                await publisher.wait()
            known = [event for event in events if event is not None]
            messages = [
                Outgoing(
                    subject(FEED, event_type_of(event), str(getattr(event, "ticker", ""))).encode(),
                    b"%d" % (sent + number),
                    encode(event),
                )
                for number, event in enumerate(known)
            ]
            publisher.send(messages)
            sent += len(messages)
        while publisher.acked < sent:
            await publisher.wait()
    finally:
        await transport.close()
    return sent


async def ours(broker: Broker, messages: int, folder: Path) -> Lap:
    """One lap of ssmd's archiver over the whole stream."""
    await broker.api(f"CONSUMER.DELETE.{stream_name(FEED)}.{DURABLE}", {})
    transport, stop = NatsTransport(broker.url), asyncio.Event()
    archiver = Archiver(FEED, transport, LocalStorage(folder), BUCKET, MemoryRegistry())
    watch = Stopwatch(broker.pid)
    watch.start()
    try:
        running = asyncio.create_task(archiver.run(stop))
        while archiver.health()["taken_seq"] != messages and not running.done():  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        stop.set()
        await running
        lap = watch.lap(messages)
        if archiver.health()["acked_seq"] != messages:
            raise RuntimeError(f"{archiver.health()['acked_seq']} of {messages} messages acknowledged")
        if (stored := _stored(folder)) != messages:
            raise RuntimeError(f"{stored} of {messages} messages in the segments")
    finally:
        await transport.close()
        shutil.rmtree(folder)
    return lap


def _stored(folder: Path) -> int:
    count = 0
    for path in folder.rglob("*.capnp.zst"):
        with path.open("rb") as file:
            reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
            count += len(split(reader.read()))
    return count


async def naive(broker: Broker, folder: Path) -> Lap:
    """One lap of the baseline: fetch(100), pycapnp for ticker and day, a file per group, an ack per message."""
    name = stream_name(FEED)
    await broker.api(f"CONSUMER.DELETE.{name}.naive", {})
    folder.mkdir()
    async with broker.client() as client:
        jetstream = client.jetstream()
        config = ConsumerConfig(max_ack_pending=10 * NAIVE_MESSAGES, ack_wait=120)
        consumer = await jetstream.pull_subscribe(f"{FEED}.>", durable="naive", stream=name, config=config)
        groups: dict[tuple[str, str, int], list[bytes]] = defaultdict(list)
        taken: list[Msg] = []
        watch = Stopwatch(broker.pid)
        watch.start()
        while len(taken) < NAIVE_MESSAGES:
            for message in await consumer.fetch(100, timeout=5):
                kind = message.subject.split(".")[1]
                with STRUCTS[kind].from_bytes(message.data) as event:
                    groups[kind, event.ticker, event.receivedTime // NS_PER_DAY].append(message.data)
                taken.append(message)
        _write(groups, folder)
        for message in taken:
            await message.ack()
        await client.flush()
        lap = watch.lap(len(taken))
    shutil.rmtree(folder)
    return lap


def _write(groups: dict[tuple[str, str, int], list[bytes]], folder: Path) -> None:
    compressor = zstandard.ZstdCompressor(level=3)
    for (kind, ticker, day), messages in groups.items():
        with (folder / f"{kind}-{ticker}-{day}.zst").open("ab") as file:
            file.write(compressor.compress(b"".join(messages)))
    folder_fd = os.open(folder, os.O_RDONLY)
    os.fsync(folder_fd)
    os.close(folder_fd)
