"""The whole capture in one process: a real exchange on loopback, connector and archiver on memory middleware."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from unittest.mock import patch

import aiohttp

from ssmd.archiver import Archiver
from ssmd.clock import day_of, now_ns
from ssmd.connector import service
from ssmd.connector.exchange import Credentials, Exchange, Settings
from ssmd.connector.service import Connector
from ssmd.feeds.catalogue import open_feed
from ssmd.feeds.interface import Mapper, Session
from ssmd.feeds.kalshi.rest import KalshiRest
from ssmd.feeds.kalshi.session import DEFAULT_CHANNELS
from ssmd.middleware.storage.interface import Storage
from ssmd.middleware.storage.local import LocalStorage
from ssmd.middleware.transport.memory import MemoryTransport
from ssmd.registry.interface import Market
from ssmd.registry.memory import MemoryRegistry
from ssmd.simulator.options import SimulatorOptions
from ssmd.simulator.server import Simulator, running
from tests.checker.check import Result, check
from tests.checker.model import Fault

DRAIN_S = 90.0
SCHEMAS = Path(__file__).parents[2] / "schemas"


class Listed:
    """The exchange's open markets."""

    def __init__(self, client: KalshiRest) -> None:
        self._client = client

    def open_markets(self) -> AsyncIterator[Market]:
        return self._client.markets(status="open")


@dataclass
class Stack:
    """What runs, and where it writes. Services can be stopped (drained) or killed, and started again."""

    folder: Path
    simulator: Simulator
    transport: MemoryTransport = field(default_factory=MemoryTransport)
    registry: MemoryRegistry = field(default_factory=MemoryRegistry)
    storage: Storage = field(init=False)
    connector: Connector = field(init=False)
    second: Connector = field(init=False)
    archiver: Archiver = field(init=False)
    seal_bytes: int = 64 << 20
    spool_max_bytes: int = 1 << 30
    publish_raw: bool = False
    channels: tuple[str, ...] = DEFAULT_CHANNELS
    credentials: Callable[[], Credentials] = field(default=lambda: Credentials(dict, "key"))
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _faults: list[Fault] = field(default_factory=list)
    _stops: dict[str, asyncio.Event] = field(default_factory=dict)
    _session: aiohttp.ClientSession = field(init=False)

    def __post_init__(self) -> None:
        self.storage = LocalStorage(self.folder / "storage")
        self._session = aiohttp.ClientSession()

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.jsonl"

    def _exchange(self) -> Exchange:
        parts = open_feed("kalshi", day_of(now_ns()))

        def session(mapper: Mapper, wants: Callable[[str], bool]) -> Session:
            return parts.new_session(mapper, wants, self.channels)

        markets = Listed(KalshiRest(self.simulator.rest_url, self._session))
        return Exchange(
            self.simulator.ws_url, "test", "kalshi", self.credentials, parts.decoder, parts.new_mapper, session,
            markets, parts.volatile,
        )  # fmt: skip

    def start_connector(self) -> None:
        """The usual connector."""
        self.connector = self._new_connector("")
        self._start("connector", self.connector.run)

    def start_second(self) -> None:
        """The connector `b` of the same feed, beside the usual one."""
        self.second = self._new_connector("b")
        self._start("second", self.second.run)

    def _new_connector(self, name: str) -> Connector:
        settings = Settings(
            feed="kalshi",
            raw_bucket="ssmd-raw",
            spool_folder=self.folder / (f"spool-{name}" if name else "spool"),
            spool_max_bytes=self.spool_max_bytes,
            seal_s=300,
            seal_bytes=self.seal_bytes,
            publish_raw=self.publish_raw,
            selects=lambda _ticker: True,
            tickers=(),
            name=name,
        )
        return Connector(settings, self._exchange(), self.transport, self.storage, self.registry)

    def start_archiver(self) -> None:
        self.archiver = Archiver("kalshi", self.transport, self.storage, "ssmd-normalized", self.registry, seal_s=2)
        self._start("archiver", self.archiver.run)

    def _start(self, name: str, run: Callable[[asyncio.Event], Coroutine[None, None, None]]) -> None:
        self._stops[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(run(self._stops[name]))

    async def stop(self, name: str) -> None:
        """SIGTERM: drain and return."""
        self._our_doing(name)
        self._stops[name].set()
        async with asyncio.timeout(30):
            await self._tasks.pop(name)

    async def kill(self, name: str) -> None:
        """As near to kill -9 as one process allows: everything stops where it stands."""
        self._our_doing(name)
        task = self._tasks.pop(name)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    def _our_doing(self, name: str) -> None:
        """Ending the connector is a fault like another: it may cost what is under way."""
        if name in ("connector", "second"):
            self._faults.append(Fault(now_ns(), now_ns()))

    def failed(self) -> BaseException | None:
        """The error of a service that ended by itself."""
        for task in self._tasks.values():
            if task.done() and not task.cancelled():
                return task.exception()
        return None

    @property
    def today(self) -> date:
        return day_of(now_ns())

    @property
    def sent(self) -> int:
        return int(self.simulator.state()["frames"])

    async def until(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        """Wait for a condition; fails at once when a service failed."""
        async with asyncio.timeout(seconds):
            while not condition():
                if (error := self.failed()) is not None:
                    raise error
                await asyncio.sleep(0.01)

    async def finish(self) -> None:
        """Stop what runs, in the order of the local stack."""
        for name in ("second", "connector", "archiver"):
            if name in self._tasks:
                await self.stop(name)
        await self._session.close()

    def check(self, *, trades: bool = True) -> Result:
        """The independent reader's verdict."""
        history = self.simulator.state()["faults"]
        faults = [Fault(fault["start_ns"], fault["end_ns"]) for fault in history] + self._faults
        return check([self.ledger], self.folder / "storage", faults=faults, schemas=SCHEMAS if trades else None)


@contextlib.asynccontextmanager
async def capture(folder: Path, options: SimulatorOptions | None = None) -> AsyncIterator[Stack]:
    """A running stack; what is still running at the end is killed."""
    options = options or SimulatorOptions(rate=2000, window_s=60)
    patient = patch.object(service, "_DRAIN_ARCHIVE_S", DRAIN_S)  # a busy machine's disk is no fault
    with patient:
        async with _capture(folder, options) as stack:
            yield stack


@contextlib.asynccontextmanager
async def _capture(folder: Path, options: SimulatorOptions) -> AsyncIterator[Stack]:
    async with running(replace(options, ledger=folder / "ledger.jsonl")) as simulator:
        stack = Stack(folder, simulator)
        try:
            yield stack
        finally:
            for name in list(stack._tasks):
                await stack.kill(name)
            await stack._session.close()
