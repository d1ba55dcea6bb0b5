"""Row: a thousand clients of which fifty never read: how late is the news for the others, and what does memory cost?

Processes of their own: `python -m tests.bench.crowd gateway` plays stamped trades through the real gateway when told to
on stdin; `… crowd readers PORT CLIENTS` reads them and says how old they were.
"""

import asyncio
import contextlib
import re
import socket
import sys
import time
from array import array
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import structlog
import uvloop

from ssmd.gateway.outside import Outside
from ssmd.gateway.service import Gateway
from ssmd.market.events import SCALE, Side, Trade
from ssmd.middleware.transport.memory import MemoryTransport
from ssmd.registry.memory import MemoryRegistry
from ssmd.wire.normalized import encode
from tests.bench.broker import FEED
from tests.bench.gateway import OPEN_LIMITS
from tests.bench.latency import party
from tests.bench.parties import PONG
from tests.bench.sink import UPGRADE
from tests.gateway_settings import any_port

CLIENTS = 1_000
NEVER = 50
_TICKS_PER_S = 20
_TRADES_PER_TICK = 10
_FILL_TICKS = 80  # until connections that are not read are full
_FILL_TRADES = 50
_STAMP = re.compile(rb'"trade_id":"([0-9]{19})')
_BUFFER = memoryview(bytearray(1 << 18))


class Round(msgspec.Struct):
    """Ages in milliseconds of the first trade of each delivery, over all clients that read."""

    deliveries: int
    p50: float
    p99: float


def resident_mib(pid: int | str, field: str = "VmRSS") -> float:
    """Memory of a process, now, or at most (`VmHWM`)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition(f"{field}:")[2].split()[0]) / 1024


def _tick(amount: int) -> list[tuple[bytes, bytes]]:
    now = time.time_ns()
    return [
        (
            f"{FEED}.trade.T-{n}".encode(),
            encode(Trade(now, now, f"T-{n}", "c-1", 3, 0, 450_000, SCALE, Side.BUY, f"{now}/{n}")),
        )
        for n in range(amount)
    ]


async def gateway() -> None:
    """The real gateway; on `SECONDS`: plays that long; on `fill`: a burst as fast as clients can read it."""
    transport = MemoryTransport()
    service = Gateway(FEED, Outside(transport, MemoryRegistry()), any_port(max_clients=2 * CLIENTS, limits=OPEN_LIMITS))
    running = asyncio.create_task(service.run(asyncio.Event()))
    await service.ready.wait()
    print(service.port, flush=True)
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := (await lines.readline()).decode().strip():
        if line == "fill":
            for _ in range(_FILL_TICKS):
                service.hub.on_batch(_tick(_FILL_TRADES))
                await asyncio.sleep(0.002)
        else:
            due = loop.time()
            for _ in range(int(float(line) * _TICKS_PER_S)):
                due += 1 / _TICKS_PER_S
                await asyncio.sleep(due - loop.time())
                service.hub.on_batch(_tick(_TRADES_PER_TICK))
        await asyncio.sleep(0.3)
        slow = sum(client.slow for client in service.hub.fanout.readings())
        paused = sum(client.paused for client in service.hub.fanout.clients.values())
        print(len(service.hub.fanout.clients), slow, paused, flush=True)
    running.cancel()


class _Watcher(asyncio.BufferedProtocol):
    """One client that reads at once."""

    def __init__(self, ages: "array[float]", welcomed: Callable[[], None]) -> None:
        self._ages = ages
        self._welcomed: Callable[[], None] | None = welcomed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(UPGRADE)

    def get_buffer(self, sizehint: int) -> memoryview:
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        if self._welcomed is not None:
            assert b" 101 " in bytes(_BUFFER[:40]), bytes(_BUFFER[:nbytes])
            self._welcomed()
            self._welcomed = None
            return
        found = _STAMP.search(_BUFFER[:nbytes])
        if found is not None:
            self._ages.append((time.time_ns() - int(found[1])) / 1e6)


async def readers(port: str, clients: str) -> None:
    """Reading clients; on a line: how many deliveries since the last line, and their ages."""
    loop = asyncio.get_running_loop()
    ages = array("d")
    crowd: list[_Watcher] = []
    for _ in range(int(clients)):
        welcomed = asyncio.Event()
        watcher = _Watcher(ages, welcomed.set)
        await loop.create_connection(lambda watcher=watcher: watcher, "127.0.0.1", int(port))  # type: ignore[misc]
        await welcomed.wait()
        crowd.append(watcher)
    print("ready", flush=True)
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        if line == b"clear\n":  # also the moment to say that all live: they do not look for pings
            for watcher in crowd:
                watcher.transport.write(PONG)
        ordered = sorted(ages)
        del ages[:]
        count = len(ordered)
        print(count, *(ordered[int(count * share)] if count else 0.0 for share in (0.5, 0.99)), flush=True)


async def measure(rounds: int, seconds: float) -> tuple[list[Round], list[Round], float]:
    """(without, with) those who never read, in turn, and the most memory of the gateway in MiB."""
    without: list[Round] = []
    beside: list[Round] = []
    async with (
        party("gateway", module="tests.bench.crowd") as played,
        party("readers", played.greeting, str(CLIENTS - NEVER), module="tests.bench.crowd") as reading,
    ):

        async def lap(wanted: int) -> Round:
            await reading.ask("clear")
            connected, _, paused = map(int, await played.ask(str(seconds), seconds + 30))
            if connected < CLIENTS - NEVER:
                raise RuntimeError(f"only {connected} clients are still connected")
            if paused < wanted:
                raise RuntimeError(f"{paused} of {wanted} clients that never read were noticed ({connected} connected)")
            count, p50, p99 = await reading.ask("report")
            return Round(int(count), float(p50), float(p99))

        for n in range(rounds):
            for never in (False, True) if n % 2 else (True, False):
                with _never_reading(int(played.greeting), NEVER if never else 0):
                    await played.ask("fill", 60)
                    (beside if never else without).append(await lap(NEVER if never else 0))
                await asyncio.sleep(0.5)
        peak = resident_mib(played.pid, "VmHWM")
    return without, beside, peak


@contextlib.contextmanager
def _never_reading(port: int, clients: int) -> Any:
    with contextlib.ExitStack() as stack:
        for _ in range(clients):
            bare = stack.enter_context(socket.socket())
            bare.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            bare.connect(("127.0.0.1", port))
            bare.sendall(UPGRADE)
        yield


ROLES: dict[str, Callable[..., Awaitable[None]]] = {"gateway": gateway, "readers": readers}

if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    uvloop.run(cast(Any, ROLES[sys.argv[1]](*sys.argv[2:])))
