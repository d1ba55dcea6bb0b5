"""The processes between a frame and a client, for the latency row: `python -m tests.bench.parties ROLE ARGUMENT…`.

Each prints one line when it is ready. `exchange` and `client` then follow lines on stdin.
"""

import asyncio
import json
import logging
import re
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import structlog
import uvloop

from ssmd.simulator import frames as websocket
from tests.bench.broker import FEED
from tests.bench.frames import BOOK_SID, TICKER_SID, TRADE_SID, Generator
from tests.gateway_settings import any_port

PEER_FEED = "peer"
_STEP_S = 0.001
_STAMP = re.compile(rb'rade_?[iI]d": ?"([0-9]{19})"')
_SIDS = {"orderbook_delta": BOOK_SID, "ticker": TICKER_SID, "trade": TRADE_SID, "market_lifecycle_v2": 4}
PONG = b"\x8a\x80\0\0\0\0"
_PONG_EVERY_S = 5.0
_IN_FRAME = re.compile(rb'"trade_id":"([^"]+)"')


async def _commands() -> asyncio.StreamReader:
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    return lines


class Exchange(asyncio.Protocol):
    """Answers any upgrade and subscription, sends the opening, then frames at a given rate; trades carry their time."""

    def __init__(self, opening: list[bytes], links: list["Exchange"]) -> None:
        self._opening = opening
        self._links = links
        self._reader = websocket.FrameReader()
        self._upgraded = False
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._upgraded:
            self._answer(data)
            return
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end:
            return
        request = websocket.parse_request(head)
        accepted = websocket.accept_upgrade(request) if request is not None else None
        assert accepted is not None
        self._upgraded = True
        self.transport.write(accepted + b"".join(map(websocket.encode, self._opening)))
        self._links.append(self)
        self._answer(rest)

    def _answer(self, data: bytes) -> None:
        for message in self._reader.feed(data):
            if message.opcode == websocket.PING:
                self.transport.write(websocket.encode(message.payload, websocket.PONG))
            elif message.opcode == websocket.TEXT:
                command = json.loads(message.payload)
                for channel in command["params"].get("channels", []):
                    told = {"channel": channel, "sid": _SIDS[channel]}
                    answer = json.dumps({"id": command["id"], "type": "subscribed", "msg": told})
                    self.transport.write(websocket.encode(answer.encode()))

    def connection_lost(self, exc: Exception | None) -> None:
        self._links.remove(self)


async def exchange(port: str, frames: str) -> None:
    """On `RATE SECONDS` on stdin: play that to whoever is connected, print the trades sent and the worst delay (ms)."""
    tape = Generator(more_trades=0.4).tape(int(frames))
    parts = [_IN_FRAME.split(frame) if b'"trade_id"' in frame else [frame] for frame in tape.frames]
    links: list[Exchange] = []
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: Exchange(tape.opening[len(_SIDS) - 1 :], links), "127.0.0.1", int(port))
    print("ready", flush=True)
    lines, played = await _commands(), 0
    while line := await lines.readline():
        rate, seconds = map(float, line.split())
        began, due, worst, start, trades = time.perf_counter(), 0, 0.0, played, 0
        while due < rate * seconds:
            elapsed = time.perf_counter() - began
            due = min(int(elapsed * rate), int(rate * seconds))
            batch = []
            for n in range(played, start + due):
                frame = parts[n % len(parts)]
                stamped = len(frame) > 1
                trades += stamped
                batch.append(b'%b"trade_id":"%d"%b' % (frame[0], time.time_ns(), frame[2]) if stamped else frame[0])
            played = start + due
            if batch:
                data = b"".join(map(websocket.encode, batch))
                for link in links:
                    link.transport.write(data)
            step = time.perf_counter()
            await asyncio.sleep(_STEP_S)
            worst = max(worst, time.perf_counter() - step - _STEP_S)
        print(trades, round(worst * 1e3, 2), flush=True)


async def connector(exchange_port: str, nats_url: str) -> None:
    """The real connector."""
    from ssmd.connector.exchange import Credentials, Settings
    from ssmd.connector.exchange import Exchange as Feed
    from ssmd.connector.service import Connector
    from ssmd.feeds.kalshi.decoder import KalshiDecoder
    from ssmd.feeds.kalshi.mapper import KalshiMapper
    from ssmd.feeds.kalshi.session import KalshiSession
    from ssmd.middleware.storage.local import LocalStorage
    from ssmd.middleware.transport.nats import NatsTransport
    from ssmd.registry.memory import MemoryRegistry

    def nothing(_ticker: str) -> bool:
        return False

    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            feed=FEED, raw_bucket="ssmd-raw", spool_folder=Path(folder) / "spool", spool_max_bytes=1 << 30,
            seal_s=300.0, seal_bytes=64 << 20, publish_raw=False, selects=nothing, tickers=(),
        )  # fmt: skip
        feed = Feed(
            url=f"ws://127.0.0.1:{exchange_port}/trade-api/ws/v2",
            environment="bench",
            key_name="kalshi",
            credentials=lambda: Credentials(dict, "none"),
            decoder=KalshiDecoder(),
            mapper=partial(KalshiMapper, FEED),
            session=lambda _mapper, wants: KalshiSession(wants),
            markets=None,
        )
        transport = NatsTransport(nats_url)
        service = Connector(settings, feed, transport, LocalStorage(Path(folder)), MemoryRegistry())
        running = asyncio.create_task(service.run(asyncio.Event()))
        await _until(lambda: cast(int, service.health().get("frames", 0)) > 0, running)
        print("ready", flush=True)
        await running


async def gateway(nats_url: str) -> None:
    """The real gateway; its line is its port."""
    from ssmd.gateway.outside import Outside
    from ssmd.gateway.service import Gateway
    from ssmd.middleware.transport.nats import NatsTransport
    from ssmd.registry.memory import MemoryRegistry

    service = Gateway(FEED, Outside(NatsTransport(nats_url), MemoryRegistry()), any_port())
    running = asyncio.create_task(service.run(asyncio.Event()))
    await _until(lambda: service.hub.connected, running)
    print(service.port, flush=True)
    await running


async def peer_connector(exchange_port: str, nats_url: str) -> None:
    """websockets, json, pycapnp and nats-py's asynchronous publish."""
    import nats
    from websockets.asyncio.client import connect

    from tests.bench.connector import CONNECTION
    from tests.bench.naive import NaiveNormalizer

    client = await nats.connect(nats_url, pending_size=64 << 20)
    jetstream = client.jetstream(publish_async_max_pending=4_000)
    await jetstream.add_stream(name=PEER_FEED, subjects=[f"{PEER_FEED}.*.*"])
    normalizer = NaiveNormalizer(PEER_FEED, CONNECTION)
    async with connect(f"ws://127.0.0.1:{exchange_port}/", compression=None, max_queue=None) as link:
        print("ready", flush=True)
        async for frame in link:
            message = normalizer.normalize(cast(bytes, frame), time.time_ns())
            if message is not None:
                await jetstream.publish_async(*message)


async def peer_gateway(nats_url: str) -> None:
    """A nats-py subscription, pycapnp, json and websockets' broadcast; its line is its port."""
    import nats
    from nats.aio.msg import Msg
    from websockets.asyncio.server import ServerConnection, broadcast, serve

    from ssmd.wire.normalized import STRUCTS

    readers: set[ServerConnection] = set()

    async def welcome(reader: ServerConnection) -> None:
        readers.add(reader)
        await reader.wait_closed()
        readers.discard(reader)

    async def pass_on(message: Msg) -> None:
        with STRUCTS[message.subject.split(".")[1]].from_bytes(message.data) as event:
            broadcast(readers, json.dumps(event.to_dict()))

    server = await serve(welcome, "127.0.0.1", 0, compression=None, ping_interval=None)
    client = await nats.connect(nats_url)
    await client.subscribe(f"{PEER_FEED}.*.*", cb=pass_on, pending_msgs_limit=-1, pending_bytes_limit=-1)
    print(next(iter(server.sockets)).getsockname()[1], flush=True)
    await server.wait_closed()


class Watcher(asyncio.Protocol):
    """A WebSocket client that looks for stamped trades and keeps how old each one is."""

    def __init__(self) -> None:
        self.ages_ns: list[int] = []
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(
            b"GET /v1/stream?symbols=* HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )

    def stay(self) -> None:
        """Say every few seconds that this client lives: it does not look for pings between the messages."""
        self._transport.write(PONG)
        asyncio.get_running_loop().call_later(_PONG_EVERY_S, self.stay)

    def connection_lost(self, exc: Exception | None) -> None:
        sys.exit(f"the gateway closed the connection: {exc}")

    def data_received(self, data: bytes) -> None:
        now = time.time_ns()
        data = self._tail + data
        end = 0
        for found in _STAMP.finditer(data):
            self.ages_ns.append(now - int(found[1]))
            end = found.end()
        self._tail = data[max(end, len(data) - 64) :]


async def client(port: str) -> None:
    """On `report` on stdin: the number of trades seen since `clear`, their median and 99th percentile age in ms."""
    loop = asyncio.get_running_loop()
    _, watcher = await loop.create_connection(Watcher, "127.0.0.1", int(port))
    loop.call_later(_PONG_EVERY_S, watcher.stay)
    print("ready", flush=True)
    lines = await _commands()
    while line := await lines.readline():
        if line == b"clear\n":
            watcher.ages_ns.clear()
        ages = sorted(watcher.ages_ns)
        count = len(ages)
        shares = [ages[int(count * share)] / 1e6 for share in (0.5, 0.99)] if ages else [0.0, 0.0]
        print(count, *shares, flush=True)


async def _until(condition: Callable[[], bool], running: asyncio.Task[Any]) -> None:
    while not condition():
        await asyncio.sleep(0.01)
        if running.done():
            running.result()


ROLES: dict[str, Callable[..., Awaitable[None]]] = {
    "exchange": exchange,
    "connector": connector,
    "gateway": gateway,
    "peer-connector": peer_connector,
    "peer-gateway": peer_gateway,
    "client": client,
}

if __name__ == "__main__":
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    _role = cast(Any, ROLES[sys.argv[1]])
    uvloop.run(_role(*sys.argv[2:]))
