"""Slow and hostile clients on real sockets: who never reads, reads byte by byte or in bursts, greets slowly."""

import asyncio
import contextlib
import os
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast, get_args

import pytest
import uvloop
from msgspec import structs

from ssmd.gateway import client as clients
from ssmd.gateway import connection, flow, listening, stream
from ssmd.gateway.client import Client
from ssmd.gateway.flow import HIGH_WATER, Flow
from ssmd.gateway.standing import State
from ssmd.gateway.waiting import Bounds, DropPolicy
from ssmd.market.events import Status
from ssmd.telemetry import METRICS
from ssmd.wire.normalized import encode
from tests.fakes.reader import Reader
from tests.flow.gateway_stage import Stage, connected, running, until
from tests.unit.gateway.events import book, delta, status
from tests.unit.keys.certificates import certificate, private_pem, rsa_key

UPGRADE = (
    b"GET /v1/stream?symbols=* HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop, uvloop.new_event_loop]
LEVELS = 300


class RawReader(Reader):
    """A client on a bare socket with a small receive buffer, which reads only when told to."""

    def __init__(self, bare: socket.socket) -> None:
        super().__init__()
        self.bare = bare
        self.closed: tuple[int, str] | None = None

    async def take(self, most: int = 1 << 16) -> int:
        """Read once, at most `most` bytes, and follow them; the number of bytes, 0 at the end."""
        data = await asyncio.get_running_loop().sock_recv(self.bare, most)
        self.socket.buffer += data
        held = self._rest + self.socket.buffer
        at = held.find(b"\x88", _end_of_frames(held))
        if at == _end_of_frames(held) and len(held) >= at + 2 and len(held) >= at + 2 + held[at + 1]:
            self.closed = int.from_bytes(held[at + 2 : at + 4], "big"), held[at + 4 : at + 2 + held[at + 1]].decode()
            self._rest, self.socket.buffer = b"", bytearray(held[:at])
        self.read()
        return len(data)


def _end_of_frames(data: bytes) -> int:
    """Where the last whole text frame of `data` ends."""
    at = 0
    while len(data) - at >= 2 and data[at] == 0x81:
        length, start = data[at + 1], at + 2
        if length == 126:
            length, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
        elif length == 127:
            length, start = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
        if len(data) < start + length:
            break
        at = start + length
    return at


@contextlib.asynccontextmanager
async def raw_reader(stage: Stage) -> AsyncIterator[tuple[RawReader, Client]]:
    """A subscribed raw client and the gateway's side of it; nothing but the answer to the upgrade is read."""
    known = set(stage.gateway.hub.fanout.clients)
    bare = socket.socket()
    bare.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    bare.setblocking(False)
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_connect(bare, ("127.0.0.1", stage.gateway.port))
        await loop.sock_sendall(bare, UPGRADE)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await loop.sock_recv(bare, 1)
        (number,) = set(stage.gateway.hub.fanout.clients) - known
        yield RawReader(bare), stage.gateway.hub.fanout.clients[number]
    finally:
        bare.close()


class Market:
    """Books that change; `sizes` is what a client's books must become."""

    def __init__(self, stage: Stage) -> None:
        self.sizes: dict[str, float] = {}
        self._stage = stage
        self._seq = 0

    async def tick(self, *tickers: str) -> None:
        """Publish a change of each ticker, and let the gateway pass it on."""
        events = []
        for ticker in tickers:
            self._seq += 1
            update = delta if ticker in self.sizes else book
            self.sizes[ticker] = float(self._seq)
            levels = tuple((1_000 * n, self._seq * 10**6) for n in range(1, LEVELS))
            events.append(update(ticker, self._seq, bids=levels))
        self._stage.publish(*events)
        await asyncio.sleep(0)

    def seen_by(self, reader: Reader) -> bool:
        """Are the reader's books those of the market?"""
        return all(
            ticker in reader.books and set(reader.books[ticker][0].values()) == {size}
            for ticker, size in self.sizes.items()
        )


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def metric(name: str, **labels: str) -> float:
    return METRICS.get_sample_value(name, labels) or 0.0


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Any:
    """Runs a coroutine on asyncio's loop and on uvloop's, whose transports buffer differently."""

    def run(main: Any) -> Any:
        with asyncio.Runner(loop_factory=request.param) as loop:
            return loop.run(main)

    return run


def test_a_client_that_never_reads_costs_bounded_memory_and_others_nothing(
    runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "DROPS_PER_EPISODE", 1 << 30)
    monkeypatch.setattr(flow, "STALL_S", 2.0)
    monkeypatch.setattr(connection, "CLOSE_S", 0.2)
    monkeypatch.setattr(stream, "CLOSE_MOST_S", 0.2)

    async def main() -> None:
        before = metric("ssmd_gateway_disconnections_total", reason="slow_consumer")
        async with (
            running(buffer_mb=1, resume_s=0) as stage,
            raw_reader(stage) as (_, client),
            connected(stage, "*") as good,
        ):
            news = status("A", Status.OPEN)
            begun = 0
            for n in range(1_500):  # 30 MB
                event = structs.replace(news, result=f"{n} {'x' * 20_000}")
                stage.gateway.hub.on_batch([(b"kalshi.status.A", encode(event))])  # the broker in memory would keep it
                while (message := await good.next())["type"] != "status":
                    continue
                assert message["result"].startswith(f"{n} ")
                good.raw.clear()
                good.messages.clear()
                if client.leaving:
                    break  # a slow machine: it has read nothing for too long
                if n == 300:
                    assert client.state is State.DROPPING
                    begun = resident_bytes()
                assert client.outlet.get_write_buffer_size() <= HIGH_WATER + 64 * 1024
                assert client.stats(0, 0).bytes_waiting <= 1 << 20
            assert resident_bytes() - begun < 8 << 20
            assert good.skipped == 0
            await until(lambda: stage.gateway.health()["clients"] == 1)
            assert metric("ssmd_gateway_disconnections_total", reason="slow_consumer") == before + 1

    runner(main())


@pytest.mark.parametrize("policy", get_args(DropPolicy))
def test_a_client_that_reads_in_bursts_has_every_number_or_a_notice_and_its_books_in_the_end(
    runner: Any, policy: DropPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "DROPS_PER_EPISODE", 1 << 30)

    async def main() -> None:
        async with (
            running(buffer_bytes=64 * 1024, drop_policy=policy) as stage,
            raw_reader(stage) as (reader, client),
        ):
            market = Market(stage)
            for round_ in range(4):
                dropped = client.dropped
                while client.dropped == dropped and not client.leaving:
                    await market.tick(*"ABC")
                if client.leaving:
                    break
                for _ in range(20 * round_):
                    await market.tick("A")
                for _ in range(15):
                    await reader.take()
            async with asyncio.timeout(20):
                if policy == "disconnect":
                    while await reader.take() and reader.closed is None:
                        pass
                else:
                    while not (client.ready and market.seen_by(reader)):
                        await reader.take()
            if policy == "disconnect":
                assert reader.skipped == 0
                assert reader.closed is not None
                assert reader.closed[0] == 1008
                assert "read faster" in reader.closed[1]
            else:
                assert reader.skipped > 0
                assert client.state is State.HEALTHY
                assert reader.seq == stage.gateway.hub.fanout.move(client, client.subscription)

    runner(main())


def test_a_client_that_reads_byte_by_byte_is_served_and_hurts_nobody(
    runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "DROPS_PER_EPISODE", 1 << 30)

    async def main() -> None:
        async with (
            running(buffer_bytes=16 * 1024) as stage,
            raw_reader(stage) as (reader, client),
            connected(stage, "*") as good,
        ):
            market = Market(stage)
            while client.dropped == 0:
                await market.tick("A", "B")
                while not market.seen_by(good):
                    await good.next()
            for _ in range(2_000):
                assert await reader.take(1) == 1
            while not (client.ready and market.seen_by(reader)):
                await reader.take(997)
            assert reader.skipped == client.dropped > 0
            assert good.skipped == 0

    runner(main())


async def test_who_reads_nothing_for_a_while_is_sent_away_and_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "STALL_S", 0.2)
    async with running() as stage, raw_reader(stage) as (reader, client):
        market = Market(stage)
        while not client.paused:
            await market.tick("A")
        await until(lambda: client.leaving)
        while reader.closed is None:
            assert await reader.take()
        assert reader.closed[0] == 1008
        assert reader.closed[1].startswith("slow reader: nothing read for")
        assert "mode conflated" in reader.closed[1]


async def test_who_reads_a_little_now_and_then_is_not_taken_for_stalled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "STALL_S", 0.3)
    async with running() as stage, raw_reader(stage) as (reader, client):
        market = Market(stage)
        while not client.paused:
            await market.tick("A")
        deadline = time.monotonic() + 1.2
        while time.monotonic() < deadline and client.paused:
            await reader.take(4_096)
            await asyncio.sleep(0.05)
        assert not client.leaving


async def test_a_half_closed_client_is_forgotten_even_when_it_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "STALL_S", 0.3)
    monkeypatch.setattr(connection, "CLOSE_S", 0.2)
    monkeypatch.setattr(stream, "CLOSE_MOST_S", 0.2)
    async with running() as stage, raw_reader(stage) as (idle, _), raw_reader(stage) as (full, client):
        market = Market(stage)
        while not client.paused:
            await market.tick("A")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.001):
                    await idle.take()
        for reader in (idle, full):
            reader.bare.shutdown(socket.SHUT_WR)
        await until(lambda: stage.gateway.health()["clients"] == 0)
        await until(lambda: not stage.gateway.hub.fanout.groups)


async def test_clients_that_greet_slowly_are_cut_and_hurt_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "HANDSHAKE_S", 0.4)
    async with running() as stage, contextlib.AsyncExitStack() as stack:
        slow = []
        for _ in range(40):
            reader, writer = await asyncio.open_connection("127.0.0.1", stage.gateway.port)
            stack.callback(writer.close)
            slow.append((reader, writer))
        started = time.monotonic()
        for byte in UPGRADE[:60]:  # a byte each at a time: never silent, never done
            for _, writer in slow:
                with contextlib.suppress(ConnectionError):
                    writer.write(bytes((byte,)))
            await asyncio.sleep(0.02)
            if all(reader.at_eof() for reader, _ in slow):
                break
        async with connected(stage, "*") as good:
            assert (await good.next())["type"] == "subscribed"
        for reader, _ in slow:
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(5):
                    assert await reader.read() == b""
        assert time.monotonic() - started < 5


class Inner(asyncio.Protocol):
    """A protocol that is told of pauses, as aiohttp's is."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.made: asyncio.Future[asyncio.Transport] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.made.set_result(cast(asyncio.Transport, transport))

    def data_received(self, data: bytes) -> None:
        self.told.append(f"data {data.decode()}")

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_pauses_are_heard_on_every_transport(runner: Any, secure: bool, tmp_path: Path) -> None:
    server_side, client_side = _contexts(tmp_path) if secure else (None, None)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        inner = Inner()
        server = await loop.create_server(lambda: inner, "127.0.0.1", 0, ssl=server_side)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, limit=1_024, ssl=client_side, server_hostname="localhost" if secure else None
        )
        transport = await inner.made
        resumed: list[Client] = []
        client = Client(1, transport, lambda _code, _reason: None, Bounds())
        Flow(transport, client, resumed.append)
        sent = 0
        while not client.paused:
            client.write(b"x" * 50_000)
            sent += 50_000
            await asyncio.sleep(0)
            assert sent < 64 << 20, "it must be paused long before"
        assert not client.ready
        assert inner.told == ["pause"]
        await reader.readexactly(sent)
        await until(lambda: resumed == [client])
        assert (inner.told, client.paused) == (["pause", "resume"], False)
        writer.write(b"hello")
        await until(lambda: inner.told[-1] == "data hello")
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()
        await until(lambda: inner.told[-1] == "lost")
        server.close()

    runner(main())


@pytest.mark.parametrize("loop_factory", LOOPS, ids=["asyncio", "uvloop"])
def test_the_kernel_hides_little_of_what_is_not_read(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def main() -> None:
        async with running() as stage, raw_reader(stage) as (_, client):
            transport = cast(asyncio.Transport, client.outlet)
            bare = transport.get_extra_info("socket")
            assert bare.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == flow.NOT_SENT_BYTES
            market, sent = Market(stage), 0
            while not client.paused:
                await market.tick("A")
                sent = client.stats(0, 0).bytes_sent
            assert sent < HIGH_WATER + (1 << 20), "a megabyte more would be minutes of a quiet market"

    with asyncio.Runner(loop_factory=loop_factory) as loop:
        loop.run(main())


async def test_a_message_that_is_too_big_ends_the_connection_with_a_reason() -> None:
    async with running() as stage, connected(stage) as client:
        await client.web.send_str("x" * 70_000)
        closed = await client.next()
        assert closed["code"] == 1009
        assert "a request has at most" in str(closed["reason"])


def _contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(server's, client's) for a certificate made now, which the client takes as it is."""
    pem = folder / "server.pem"
    pem.write_text(private_pem(rsa_key()) + certificate(rsa_key()).decode())
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(pem)
    client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_side.check_hostname = False
    client_side.verify_mode = ssl.CERT_NONE
    return server_side, client_side


def test_clients_that_reset_their_connections_silence_nobody(runner: Any) -> None:
    async def main() -> None:
        async with running() as stage, connected(stage, "*") as good, connected(stage, "A") as named:
            market = Market(stage)
            for round_ in range(40):
                async with raw_reader(stage) as (reader, client):
                    for _ in range(round_ % 4):
                        await market.tick("A")
                    reader.bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                for _ in range(3):  # before the gateway has noticed, while it does, and after
                    await market.tick("A", "B")
                assert client.ready or client.leaving
            await until(lambda: stage.gateway.health()["clients"] == 2)
            await market.tick("A", "B")
            while not market.seen_by(good):
                await good.next()
            while set(named.books["A"][0].values()) != {market.sizes["A"]} if "A" in named.books else True:
                await named.next()
            assert good.skipped == named.skipped == 0
            assert not any(group.frames for group in stage.gateway.hub.fanout._groups.all())

    runner(main())


def test_a_lost_connection_is_written_to_no_more_even_before_its_handler_ends(runner: Any) -> None:
    """uvloop's transports raise when they are written to then."""

    async def main() -> None:
        async with running() as stage, raw_reader(stage) as (_, client), connected(stage, "*") as good:
            transport = cast(asyncio.Transport, client.outlet)
            transport.abort()
            written: list[bytes] = []
            write, lost = client.write, transport.get_protocol().connection_lost

            def note(data: bytes) -> None:
                written.append(data)
                write(data)

            client.write = note
            lost(None)
            stage.publish(book("A", 1, bids=((1_000, 10**6),)))
            while "A" not in good.books:
                await good.next()
            assert client.leaving
            assert written == []

    runner(main())


def test_a_slow_client_that_reads_on_sees_why_it_was_sent_away(runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CLOSE_S", 0.2)  # it takes longer than this in all, but it reads on

    async def main() -> None:
        async with (
            running(drop_policy="disconnect", buffer_bytes=64 * 1024) as stage,
            raw_reader(stage) as (reader, client),
        ):
            market = Market(stage)
            while not client.leaving:
                await market.tick(*"ABC")
            began = time.monotonic()
            while reader.closed is None:
                await asyncio.sleep(0.05)
                assert await reader.take(4_096), "cut before the reason was read"
            assert time.monotonic() - began > 1.5
            assert reader.closed[0] == 1008
            assert "its buffer is full" in reader.closed[1]

    runner(main())


def test_a_pong_that_waits_behind_unread_data_is_no_reason_to_cut(runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "DROPS_PER_EPISODE", 1 << 30)
    monkeypatch.setattr(stream, "PING_S", 0.2)

    async def main() -> None:
        async with running() as stage, raw_reader(stage) as (_reader, client):
            market = Market(stage)
            while not client.paused:
                await market.tick(*"ABC")
            await asyncio.sleep(0.8)
            assert not cast(asyncio.Transport, client.outlet).is_closing()
            assert not client.leaving, "whether it reads at all is looked at elsewhere"

    runner(main())


async def test_a_ping_without_an_answer_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "PING_S", 0.2)
    async with running() as stage, raw_reader(stage):
        await until(lambda: stage.gateway.health()["clients"] == 0, 5)


def test_a_closed_socket_has_nothing_unread(runner: Any) -> None:
    """Housekeeping asks again and again until the connection is gone."""

    async def main() -> None:
        async with running() as stage, raw_reader(stage) as (_, client):
            (link,) = stage.gateway._stream._connections.values()
            cast(asyncio.Transport, client.outlet).abort()
            for _ in range(5):
                assert not link.overdue(asyncio.get_running_loop().time())
                await asyncio.sleep(0)

    runner(main())
