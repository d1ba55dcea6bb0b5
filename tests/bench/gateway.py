"""Row: the gateway's fan-out to 1, 50 and 500 clients on real sockets, beside plain writes of the same messages."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence

from ssmd.feeds.kalshi.decoder import KalshiDecoder
from ssmd.feeds.kalshi.mapper import KalshiMapper
from ssmd.gateway.client import Client, text_frame
from ssmd.gateway.service import Gateway
from ssmd.market.events import Event
from ssmd.market.subjects import subject
from ssmd.middleware.transport.memory import MemoryTransport
from ssmd.registry.memory import MemoryRegistry
from ssmd.wire.client import event_body
from ssmd.wire.normalized import encode, event_type_of
from tests.bench.broker import FEED
from tests.bench.connector import CONNECTION
from tests.bench.frames import Tape
from tests.bench.measure import Lap, Stopwatch

TICK = 64
"""Messages of one turn of the event loop."""
_HIGH_WATER = 1 << 18
_RECEIVED_NS = 1_795_363_200_000_000_000

Message = tuple[bytes, bytes]


class Stream:
    """What the tape's frames become: events, their wire messages, their JSON."""

    def __init__(self, tape: Tape, messages: int) -> None:
        decode, mapper = KalshiDecoder().decode, KalshiMapper(FEED, CONNECTION)
        events = [mapper.map(decode(frame), _RECEIVED_NS) for frame in tape.opening + tape.frames[:messages]]
        known = [event for event in events if event is not None]
        split = len(known) - messages
        self.opening = [_message(event) for event in known[:split]]
        self.messages = [_message(event) for event in known[split:]]
        self.bodies = [(event_type_of(event), _ticker(event), event_body(event, FEED)) for event in known[split:]]
        self.frames = [text_frame(b'{"seq":%d,' % n + body) for n, (_, _, body) in enumerate(self.bodies, 1)]


def _ticker(event: Event) -> str:
    return str(getattr(event, "ticker", ""))


def _message(event: Event) -> Message:
    return subject(FEED, event_type_of(event), _ticker(event)).encode(), encode(event)


class _Sink:
    """The reading clients' process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def received(self) -> tuple[int, int]:
        """(least, most) bytes that a client has read."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        least, most = (await self._process.stdout.readline()).split()
        return int(least), int(most)


class Hall:
    """A gateway without a broker, and its connected clients."""

    def __init__(self, gateway: Gateway, sink: _Sink) -> None:
        self.gateway = gateway
        self.clients: list[Client] = list(gateway.hub.fanout.clients.values())
        self._sink = sink
        self._settled = 0

    async def lap(self, messages: Sequence[object], send: Callable[[int, int], None]) -> Lap:
        """Everything sent tick by tick, as fast as the clients read; RuntimeError when a client lacks something."""
        await self._all_read()
        watch = Stopwatch()
        watch.start()
        for start in range(0, len(messages), TICK):
            send(start, start + TICK)
            await asyncio.sleep(0)
            while max(client.outlet.get_write_buffer_size() for client in self.clients[::7]) > _HIGH_WATER:  # noqa: ASYNC110
                await asyncio.sleep(0.0005)
        lap = watch.lap(len(messages) * len(self.clients))
        await self._all_read()
        if any(client.skipped for client in self.clients):
            raise RuntimeError("the gateway skipped messages of a client that reads")
        return lap

    async def _all_read(self) -> None:
        deadline = asyncio.get_running_loop().time() + 20
        before = -1
        while True:
            least, most = await self._sink.received()
            waiting = any(client.outlet.get_write_buffer_size() for client in self.clients)
            if least == most == before and not waiting:
                return
            before = most
            if asyncio.get_running_loop().time() > deadline:
                raise RuntimeError(f"clients read between {least} and {most} bytes: not all the same")
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def hall(clients: int, stream: Stream) -> AsyncIterator[Hall]:
    """A gateway on a free port with `clients` connected, every book known."""
    transport, stop = MemoryTransport(), asyncio.Event()
    gateway = Gateway(FEED, transport, MemoryRegistry(), port=0, buffer_bytes=16 << 20)
    running = asyncio.create_task(gateway.run(stop))
    await asyncio.wait_for(gateway.ready.wait(), 10)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.sink", str(gateway.port), str(clients), stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        if await asyncio.wait_for(process.stdout.readline(), 60) != b"ready\n":
            raise RuntimeError("the reading clients could not connect")
        gateway.hub.on_batch(stream.opening)
        await asyncio.sleep(0)
        yield Hall(gateway, _Sink(process))
    finally:
        process.kill()
        await process.wait()
        stop.set()
        await running
        await transport.close()


async def round_of(clients: int, stream: Stream) -> dict[str, Lap]:
    """One round: the four ways to bring the same messages to the same clients."""
    async with hall(clients, stream) as room:
        hub = room.gateway.hub
        outlets = [client.outlet for client in room.clients]
        frames = stream.frames

        def each(start: int, end: int) -> None:
            for frame in frames[start:end]:
                for outlet in outlets:
                    outlet.write(frame)

        def coalesced(start: int, end: int) -> None:
            blob = b"".join(frames[start:end])
            for outlet in outlets:
                outlet.write(blob)

        def fan_out(start: int, end: int) -> None:
            for kind, ticker, body in stream.bodies[start:end]:
                hub.fanout.add(hub.fanout.interested(ticker), kind, ticker, body)
            hub.fanout.flush()

        def whole(start: int, end: int) -> None:
            hub.on_batch(stream.messages[start:end])

        few = frames[: max(2 * TICK, len(frames) // 8)]
        return {
            "each": await room.lap(few, each),
            "coalesced": await room.lap(frames, coalesced),
            "fan-out": await room.lap(frames, fan_out),
            "whole": await room.lap(frames, whole),
        }
