"""Row: the gateway's fan-out to 1, 50 and 500 clients on real sockets, beside plain writes of the same messages."""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from aiohttp import web

from ssmd.feeds.kalshi.decoder import KalshiDecoder
from ssmd.feeds.kalshi.mapper import KalshiMapper
from ssmd.gateway.client import Outlet, text_frame
from ssmd.gateway.outside import Outside
from ssmd.gateway.service import Gateway
from ssmd.market.events import Event
from ssmd.market.subjects import subject
from ssmd.middleware.transport.memory import MemoryTransport
from ssmd.registry.memory import MemoryRegistry
from ssmd.wire.client import event_body
from ssmd.wire.normalized import STRUCTS, encode, event_type_of
from tests.bench.broker import FEED
from tests.bench.connector import CONNECTION
from tests.bench.frames import Tape
from tests.bench.measure import Lap, Stopwatch
from tests.gateway_settings import any_port

OPEN_LIMITS = {"burst": 1_000_000, "requests_per_minute": 10_000_000, "clients_per_address": 100_000}
"""Hundreds of clients come from one address here."""
TICK = 64
"""Messages of one turn of the event loop."""
_HIGH_WATER = 1 << 18
_RECEIVED_NS = 1_795_363_200_000_000_000
_FIRST_SEQ = 5_900_000_000_000

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
        # numbers as long as the gateway's, which come from the clock: both sides send the same bytes
        self.frames = [text_frame(b'{"seq":%d,' % n + body) for n, (_, _, body) in enumerate(self.bodies, _FIRST_SEQ)]


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
    """Connected clients: where to write to each, and the process that reads."""

    def __init__(self, outlets: Sequence[Outlet], sink: _Sink) -> None:
        self.outlets = outlets
        self._sink = sink

    async def lap(self, amount: int, send: Callable[[int, int], Awaitable[None] | None]) -> Lap:
        """`amount` messages sent tick by tick, as fast as the clients read; RuntimeError when a client lacks some."""
        await self._all_read()
        watch = Stopwatch()
        watch.start()
        for start in range(0, amount, TICK):
            sending = send(start, min(start + TICK, amount))
            if sending is not None:
                await sending
            await asyncio.sleep(0)
            while max(outlet.get_write_buffer_size() for outlet in self.outlets[::7]) > _HIGH_WATER:  # noqa: ASYNC110
                await asyncio.sleep(0.0005)
        lap = watch.lap(amount * len(self.outlets))
        await self._all_read()
        return lap

    async def _all_read(self) -> None:
        deadline = asyncio.get_running_loop().time() + 20
        before = -1
        while True:
            least, most = await self._sink.received()
            waiting = any(outlet.get_write_buffer_size() for outlet in self.outlets)
            if least == most == before and not waiting:
                return
            before = most
            if asyncio.get_running_loop().time() > deadline:
                raise RuntimeError(f"clients read between {least} and {most} bytes: not all the same")
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def _sink(port: int, clients: int) -> AsyncIterator[_Sink]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.sink", str(port), str(clients), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        if await asyncio.wait_for(process.stdout.readline(), 60) != b"ready\n":
            raise RuntimeError("the reading clients could not connect")
        yield _Sink(process)
    finally:
        process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def _gateway() -> AsyncIterator[Gateway]:
    """The real gateway on a free port, with a broker in memory that is silent."""
    transport, stop = MemoryTransport(), asyncio.Event()
    gateway = Gateway(FEED, Outside(transport, MemoryRegistry()), any_port(limits=OPEN_LIMITS), buffer_bytes=16 << 20)
    running = asyncio.create_task(gateway.run(stop))
    await asyncio.wait_for(gateway.ready.wait(), 10)
    try:
        yield gateway
    finally:
        stop.set()
        await running
        await transport.close()


async def ours(clients: int, stream: Stream) -> dict[str, Lap]:
    """One round: ssmd's gateway and plain writes to the same sockets."""
    async with _gateway() as gateway, _sink(gateway.port, clients) as sink:
        hub = gateway.hub
        hub.on_batch(stream.opening)
        await asyncio.sleep(0)
        readers = list(hub.fanout.clients.values())
        outlets = [reader.outlet for reader in readers]
        room, frames = Hall(outlets, sink), stream.frames

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
                hub.fanout.add(hub.fanout.interested(kind, ticker), kind, ticker, body)
            hub.fanout.flush()

        def whole(start: int, end: int) -> None:
            hub.on_batch(stream.messages[start:end])

        amount = len(frames)
        laps = {
            "each": await room.lap(max(2 * TICK, amount // 8), each),
            "coalesced": await room.lap(amount, coalesced),
            "fan-out": await room.lap(amount, fan_out),
            "whole": await room.lap(amount, whole),
        }
        if any(reader.dropped for reader in readers):
            raise RuntimeError("the gateway skipped messages of a client that reads")
        return laps


async def naive(clients: int, stream: Stream) -> Lap:
    """One lap of the baseline: pycapnp to a dict, json, and aiohttp's send for each client and message."""
    readers: list[web.WebSocketResponse] = []
    outlets: list[Outlet] = []

    async def welcome(request: web.Request) -> web.WebSocketResponse:
        reader = web.WebSocketResponse(compress=False)
        await reader.prepare(request)
        assert request.transport is not None
        readers.append(reader)
        outlets.append(request.transport)
        async for _ in reader:
            pass
        return reader

    async def send(start: int, end: int) -> None:
        for name, message in stream.messages[start:end]:
            kind = name.decode().split(".")[1]
            with STRUCTS[kind].from_bytes(message) as event:
                text = json.dumps(event.to_dict())
            for reader in readers:
                await reader.send_str(text)

    app = web.Application()
    app.router.add_get("/v1/stream", welcome)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1_024)
        await site.start()
        async with _sink(runner.addresses[0][1], clients) as sink:
            return await Hall(outlets, sink).lap(max(2 * TICK, len(stream.messages) // 16), send)
    finally:
        await runner.cleanup()
