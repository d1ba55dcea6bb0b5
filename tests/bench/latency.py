"""Row: latency from an exchange's frame to a client, across five processes, beside nats-py and websockets."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator

import msgspec

from tests.bench.broker import Broker
from tests.servers import free_port

WARM_UP_S = 0.5


class Ages(msgspec.Struct):
    """How old trades were when the client had them, in milliseconds; `late` is the source's worst delay.

    `missing`: trades sent that the client did not have five seconds after the last one.
    """

    trades: int
    missing: int
    p50: float
    p99: float
    late: float


class Party:
    """A process that follows lines on its stdin."""

    def __init__(self, process: asyncio.subprocess.Process, greeting: str) -> None:
        self._process = process
        self.greeting = greeting

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def ask(self, line: str, timeout_s: float = 30.0) -> list[str]:
        """Send a line, read the answer's words."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line.encode() + b"\n")
        answer = await asyncio.wait_for(self._process.stdout.readline(), timeout_s)
        return answer.decode().split()


@contextlib.asynccontextmanager
async def party(*words: str, module: str = "tests.bench.parties") -> AsyncIterator[Party]:
    """Another process of a row: a role of `module`, which says one line when it is ready."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        greeting = (await asyncio.wait_for(process.stdout.readline(), 30)).decode().strip()
        if not greeting:
            raise RuntimeError(f"the {words[0]} of {module} did not start")
        yield Party(process, greeting)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class Chain:
    """Exchange, connector, gateway and client, connected."""

    def __init__(self, exchange: Party, gateway: Party, client: Party) -> None:
        self.gateway = gateway
        self._exchange = exchange
        self._client = client

    async def lap(self, rate: int, seconds: float) -> Ages:
        """The ages of trades at `rate` frames a second."""
        await self._exchange.ask(f"{rate} {WARM_UP_S}")
        await asyncio.sleep(0.3)
        await self._client.ask("clear")
        sent, late = await self._exchange.ask(f"{rate} {seconds}", 4 * seconds + 30)
        trades, p50, p99 = await self._client.ask("report")
        for _ in range(50):
            if int(trades) == int(sent):
                break
            await asyncio.sleep(0.1)
            trades, p50, p99 = await self._client.ask("report")
        return Ages(int(trades), int(sent) - int(trades), float(p50), float(p99), float(late))


@contextlib.asynccontextmanager
async def chain(broker: Broker, frames: int, *, peer: bool) -> AsyncIterator[Chain]:
    """The processes of ssmd, or of the peer; `frames` are enough for all laps."""
    if not peer:
        await broker.fresh_stream()
    prefix, port = "peer-" if peer else "", str(free_port())
    async with (
        party("exchange", port, str(frames)) as exchange,
        party(f"{prefix}gateway", broker.url) as gateway,
        party(f"{prefix}connector", port, broker.url),
        party("client", gateway.greeting) as client,
    ):
        await asyncio.sleep(1.0)  # the opening's snapshots have passed
        yield Chain(exchange, gateway, client)
