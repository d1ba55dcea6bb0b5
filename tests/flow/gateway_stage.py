"""A real gateway on a free port, fed through the broker in memory, for aiohttp and bare-socket clients."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from ssmd.clock import now_ns
from ssmd.gateway.outside import Outside
from ssmd.gateway.service import Gateway
from ssmd.market.events import Event, Gap, OrderBookUpdate
from ssmd.market.subjects import subject
from ssmd.middleware.cache.interface import Cache
from ssmd.middleware.storage.interface import Storage
from ssmd.middleware.transport.interface import Outgoing
from ssmd.middleware.transport.memory import MemoryTransport
from ssmd.registry.database import Database
from ssmd.registry.interface import Registry
from ssmd.registry.memory import MemoryRegistry
from ssmd.wire.normalized import encode, event_type_of
from tests.fakes.reader import Reader
from tests.flow.stream_schema import check_message
from tests.gateway_settings import any_port

FEED = "kalshi"


class Stage:
    """The gateway, its broker, its registry, and a connector's voice."""

    def __init__(self, broker: MemoryTransport, gateway: Gateway, registry: Registry) -> None:
        self.broker = broker
        self.gateway = gateway
        self.registry = registry
        self.stop = asyncio.Event()
        self.books: dict[str, OrderBookUpdate] = {}
        self._published = 0

    @property
    def url(self) -> str:
        return f"http{'s' if self.gateway.tls else ''}://127.0.0.1:{self.gateway.port}"

    def publish(self, *events: Event) -> None:
        """One batch of live messages."""
        batch = []
        for event in events:
            self._published += 1
            token = f"{FEED}.gap.c-1" if isinstance(event, Gap) else subject(FEED, event_type_of(event), event.ticker)
            batch.append(Outgoing(token.encode(), b"%d" % self._published, encode(event)))
        self.broker.store(FEED, batch)

    async def answer_books(self, request: bytes) -> bytes:
        asked = msgspec.json.decode(request)
        if isinstance(asked, dict):
            return b""
        return b"".join(encode(book) for ticker, book in self.books.items() if not asked or ticker in asked)


@contextlib.asynccontextmanager
async def running(
    registry: Registry | None = None,
    clock: Callable[[], int] = now_ns,
    *,
    buffer_bytes: int | None = None,
    storage: Storage | None = None,
    broker: MemoryTransport | None = None,
    database: Database | None = None,
    cache: Cache | None = None,
    home: Path | None = None,
    environment: str = "",
    **settings: Any,
) -> AsyncIterator[Stage]:
    """A gateway that is up; it is stopped at the end and must stop cleanly."""
    broker = broker or MemoryTransport()
    registry = registry or MemoryRegistry()
    outside = Outside(broker, registry, storage, database, cache, environment=environment)
    gateway = Gateway(FEED, outside, any_port(**settings), clock, buffer_bytes=buffer_bytes, home=home)
    stage = Stage(broker, gateway, registry)
    await broker.serve(f"ssmd.books.{FEED}", stage.answer_books)
    task = asyncio.create_task(gateway.run(stage.stop))
    ready = asyncio.create_task(gateway.ready.wait())
    await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    try:
        if task.done():
            task.result()
        await until(lambda: gateway.hub.connected)
        yield stage
    finally:
        stage.stop.set()
        async with asyncio.timeout(30):
            await task


async def until(condition: Callable[[], bool], within_s: float = 30.0) -> None:
    """Wait for something that the gateway does by itself."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110  # what is waited for is not an event of ours
            await asyncio.sleep(0.005)


class WebSocketReader(Reader):
    """A `Reader` over aiohttp's client."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        super().__init__()
        self.web = socket

    async def next(self, within_s: float = 30.0) -> dict[str, Any]:
        """The next message, as described and followed; the close code as `{"type": "closed"}` at the end."""
        message = await self.web.receive(timeout=within_s)
        if message.type is not aiohttp.WSMsgType.TEXT:
            return {"type": "closed", "code": self.web.close_code, "reason": message.extra}
        fields: dict[str, Any] = json.loads(message.data)
        check_message(fields)
        self.raw.append(message.data.encode())
        self.messages.append(fields)
        self.follow(fields)
        return fields

    async def until_type(self, kind: str) -> dict[str, Any]:
        """Read on to a message of this type."""
        while True:
            message = await self.next()
            if message["type"] == kind:
                return message

    async def ask(self, **request: object) -> None:
        """Send a request."""
        await self.web.send_str(json.dumps(request))


@contextlib.asynccontextmanager
async def connected(stage: Stage, symbols: str | None = None) -> AsyncIterator[WebSocketReader]:
    """A client; with `symbols`, subscribed through the URL (its answer is the first message, not read yet)."""
    params = {} if symbols is None else {"symbols": symbols}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{stage.url}/v1/stream", params=params, max_msg_size=0) as socket,
    ):
        yield WebSocketReader(socket)
