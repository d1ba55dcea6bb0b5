"""The exchange process: one port for REST and WebSocket, the market's clock, heartbeats, faults."""

import asyncio
import contextlib
import errno
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import structlog
from aiohttp import web

from ssmd.clock import now_ns
from ssmd.errors import ConfigError, Unavailable
from ssmd.simulator.auth import Gatekeeper
from ssmd.simulator.changes import Change, Changer, parse_changes
from ssmd.simulator.connection import Connection
from ssmd.simulator.faults import FAULTS, FaultCommand, FaultRecord, Faults
from ssmd.simulator.hostile import CORPUS
from ssmd.simulator.ledger import Ledger
from ssmd.simulator.listing import Listing
from ssmd.simulator.market import MarketGenerator
from ssmd.simulator.objects import read_objects
from ssmd.simulator.options import REST_PATH, WS_PATH, SimulatorOptions
from ssmd.simulator.protocol import Sent, Subscriptions
from ssmd.simulator.rest import make_application
from ssmd.simulator.source import Message, Source
from ssmd.simulator.tape import TapePlayer

log = structlog.get_logger()

_BATCH = 512
_TICK_S = 0.005
_DEFAULT_RATE = 50.0
_KEEP_ALIVE_S = 365 * 86_400.0  # aiohttp must not close a connection that it served and that was upgraded later


class Simulator:
    """A running exchange. `fault` and `state` are the command channel for the same process."""

    def __init__(self, options: SimulatorOptions) -> None:
        options.check()
        self.options = options
        self.gatekeeper = Gatekeeper(options.keys, options.max_skew_s)
        self.source = Listing(_open_source(options), read_objects(options.objects))
        self._changer = Changer(self.source)
        self.ledger = Ledger(options.ledger)
        self.faults = Faults()
        self.connections: list[Connection] = []
        self.port = options.port
        self._count = 0
        self._frames_gone = 0
        self._run_name = f"{now_ns() // 1_000_000:x}"
        self._last_subscribed = float("-inf")
        self._started = False
        self._app = web.AppRunner(
            make_application(self), access_log=None, shutdown_timeout=1.0, keepalive_timeout=_KEEP_ALIVE_S
        )
        self._server: asyncio.Server | None = None

    @property
    def ws_url(self) -> str:
        """Where clients connect."""
        return f"ws://{self._authority}{WS_PATH}"

    @property
    def rest_url(self) -> str:
        """Where REST begins."""
        return f"http://{self._authority}{REST_PATH}"

    @property
    def control_url(self) -> str:
        """`…/fault`, `…/markets` and `…/state` are below it."""
        return f"http://{self._authority}/_simulator"

    @property
    def _authority(self) -> str:
        host = self.options.host
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    # --- what connections ask for --------------------------------------------------------------------------------

    def rest_protocol(self) -> asyncio.Protocol:
        assert self._app.server is not None
        return self._app.server()

    def new_subscriptions(self) -> Subscriptions:
        return Subscriptions(self.source, self.options.max_tickers)

    def opened(self, connection: Connection) -> str:
        self.connections.append(connection)
        self._count += 1
        return f"x{self._run_name}-{self._count}"

    def closed(self, connection: Connection) -> None:
        if connection in self.connections:
            self.connections.remove(connection)
            self._frames_gone += connection.sent

    def subscribed(self) -> None:
        self._last_subscribed = time.monotonic()

    # --- command channel -----------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Connections, frames sent (to those that are gone too), progress of the source, faults."""
        return {
            "connections": [msgspec.to_builtins(connection.state()) for connection in self.connections],
            "connections_total": self._count,
            "frames": self._frames_gone + sum(connection.sent for connection in self.connections),
            "source": self.source.progress(),
            "faults_active": self.faults.active(),
            "faults": msgspec.to_builtins(self.faults.history),
        }

    def fault(self, name: str, **parameters: Any) -> FaultRecord:
        """As `POST /_simulator/fault`."""
        try:
            return self.order_fault(msgspec.convert({"fault": name, **parameters}, FaultCommand))
        except msgspec.ValidationError as error:
            raise ConfigError(f"fault {name}: {error}") from error

    def order_fault(self, command: FaultCommand) -> FaultRecord:
        if command.fault not in FAULTS:
            raise ConfigError(f"there is no fault {command.fault!r}", f"Known faults: {', '.join(FAULTS)}")
        record = self.faults.record(command)
        log.info("fault", **msgspec.to_builtins(command))
        targets = [each for each in self.connections if command.connection in (None, each.name)]
        for connection in targets:
            self._inflict(command, connection)
        return record

    def _inflict(self, command: FaultCommand, connection: Connection) -> None:
        match command.fault:
            case "close":
                connection.close(command.code or 1001, "simulated")
            case "abort":
                connection.abort(_any_frame(connection))
            case "half_open":
                connection.mute = True
                asyncio.get_running_loop().call_later(command.seconds, connection.abort)
            case "drop":
                connection.drops[command.channel] = connection.drops.get(command.channel, 0) + command.n
            case "hostile":
                for hostile in CORPUS[: command.n or None]:
                    connection.send_hostile(hostile)
            case "overflow":
                connection.overflow(command.code or 25)
            case "seq_gap" | "seq_back":
                subscription = connection.subscriptions.by_channel.get(command.channel)
                if subscription is not None:
                    step = command.n or 1
                    subscription.seq = max(0, subscription.seq + (step if command.fault == "seq_gap" else -step))
            case _:  # a timed state of the whole exchange, switched on by recording it
                pass

    def change(self, **order: Any) -> dict[str, Any]:
        """As `POST /_simulator/markets`."""
        return self.order_changes(parse_changes(msgspec.json.encode(order)))

    def order_changes(self, changes: Sequence[Change]) -> dict[str, Any]:
        self._deliver(self._changer.apply(changes, now_ns()))
        log.info("listing changed", orders=len(changes))
        return {"changed": len(changes), "listed": self.source.counts()}

    # --- life ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen. ConfigError or Unavailable when the address cannot be had."""
        await self._app.setup()
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: Connection(self), self.options.host, self.options.port)
        except OSError as error:
            await self._app.cleanup()
            self.ledger.close()
            address = f"{self.options.host}:{self.options.port}"
            if error.errno == errno.EADDRINUSE:
                raise Unavailable(f"{address} is taken", "Choose another with --port, or --port 0 for any") from error
            raise ConfigError(f"cannot listen on {address}: {error}") from error
        self.port = self._server.sockets[0].getsockname()[1]
        log.info("exchange up", ws=self.ws_url, rest=self.rest_url)

    async def stop(self) -> None:
        """Close every connection with 1001 and the port."""
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.close(1001, "exchange is going away")
        await asyncio.sleep(0)
        await self._app.cleanup()
        self.ledger.close()

    async def play(self) -> None:
        """Move the market and send what it says, until cancelled."""
        was_stalled = False
        while True:
            now = now_ns()
            if self.faults.is_stalled(now):
                was_stalled = True
                await asyncio.sleep(_TICK_S)
                continue
            if was_stalled:
                was_stalled = False
                self.faults.run_deferred()
            if not self._may_play():
                await asyncio.sleep(_TICK_S)
                continue
            messages = self.source.take(now, _BATCH)
            self._deliver(messages)
            if self.source.unpaced and messages:
                await self._drained()
            else:
                await asyncio.sleep(0 if len(messages) >= _BATCH else _TICK_S)

    async def heartbeats(self) -> None:
        """Ping every client every `heartbeat_s`, body `heartbeat`."""
        while True:
            await asyncio.sleep(self.options.heartbeat_s)
            if not self.faults.is_frozen(now_ns()):
                for connection in list(self.connections):
                    connection.ping(b"heartbeat")

    def _may_play(self) -> bool:
        """A tape waits for its listeners: once at the start, again whenever it is unpaced and nobody is there."""
        if not self.options.tapes or (self._started and not self.source.unpaced):
            return True
        heard = any(connection.subscriptions.by_channel for connection in self.connections if not connection.mute)
        self._started = heard and time.monotonic() - self._last_subscribed >= self.options.settle_s
        return self._started

    def _deliver(self, messages: list[Message]) -> None:
        if not messages:
            return
        for connection in list(self.connections):
            connection.deliver(messages)
            if connection.is_overflowing and not self.source.unpaced:
                log.warning("client too slow", conn=connection.name)
                connection.overflow()

    async def _drained(self) -> None:
        """Wait for the slowest client, but not for one that is gone or half-open."""
        await asyncio.sleep(0)
        for connection in list(self.connections):
            while connection.is_open and not connection.mute and not connection.writable.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.25):
                        await connection.writable.wait()


def _open_source(options: SimulatorOptions) -> Source:
    if options.tapes:
        return TapePlayer(
            options.tapes,
            now_ns=now_ns(),
            speed=options.speed,
            rate=options.rate,
            in_turn=options.in_turn,
            loop=options.loop,
        )
    return MarketGenerator(
        seed=options.seed,
        now_ns=now_ns(),
        rate=options.rate or _DEFAULT_RATE,
        window_s=options.window_s,
        strikes=options.strikes,
    )


def _any_frame(connection: Connection) -> Sent | None:
    """A numbered frame to break off in the middle: a fresh snapshot of some subscribed book."""
    subscription = connection.subscriptions.by_channel.get("orderbook_delta")
    if subscription is None or not subscription.tickers:
        return None
    return connection.subscriptions.snapshot(next(iter(subscription.tickers)), now_ns())


@contextlib.asynccontextmanager
async def running(options: SimulatorOptions) -> AsyncIterator[Simulator]:
    """The exchange inside this process, up when the block begins and gone when it ends."""
    simulator = Simulator(options)
    await simulator.start()
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(simulator.play()), group.create_task(simulator.heartbeats())]
            try:
                yield simulator
            finally:
                for task in tasks:
                    task.cancel()
    except BaseExceptionGroup as group:  # the task group wraps even the one error of the caller's own block
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from None
        raise
    finally:
        await simulator.stop()


async def serve(options: SimulatorOptions, ready: asyncio.Event | None = None) -> None:
    """The exchange alone, until cancelled; `ready` is set when it listens."""
    async with running(options):
        if ready is not None:
            ready.set()
        await asyncio.Event().wait()
