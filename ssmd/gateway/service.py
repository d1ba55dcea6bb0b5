"""The gateway as a service: one HTTP port, one live subscription, housekeeping, and an orderly end."""

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from ssmd.clock import NS_PER_S, now_ns
from ssmd.config.environment import Gateway as Settings
from ssmd.errors import ConfigError
from ssmd.gateway.caller import CALLER, SCOPES, Caller
from ssmd.gateway.catalogue import Catalogue
from ssmd.gateway.hub import Hub
from ssmd.gateway.outside import Outside
from ssmd.gateway.problems import translate
from ssmd.gateway.rest import RestEndpoint
from ssmd.gateway.routes import Route, serve
from ssmd.gateway.stream import HANDSHAKE_S, StreamEndpoint
from ssmd.middleware.transport.interface import Subscription, TransportUnavailable
from ssmd.telemetry import GATEWAY_DISCONNECTIONS

STOP_S = 3.0
WATCH_S = 0.2
REGISTRY_PING_S = 10.0
PRUNE_S = 60.0
SUBSCRIBE_RETRY_S = 1.0
BACKLOG = 1_024

log = structlog.get_logger()


class Door:
    """Cuts TCP connections that never finish a first request: aiohttp would wait for them for ever."""

    def __init__(self) -> None:
        self._greeted: set[object] = set()
        self._arrived: dict[object, float] = {}

    @web.middleware
    async def greet(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        self._greeted.add(request.protocol)
        return await handler(request)

    def cut_silent(self, runner: web.AppRunner, now: float) -> None:
        """Call about once a second."""
        server = runner.server
        connections = server.connections if server is not None else []
        self._greeted.intersection_update(connections)
        self._arrived = {c: self._arrived.get(c, now) for c in connections if c not in self._greeted}
        for connection, arrived in self._arrived.items():
            transport = getattr(connection, "transport", None)
            if now - arrived > HANDSHAKE_S and transport is not None:
                GATEWAY_DISCONNECTIONS.labels("no_request").inc()
                transport.abort()


class Gateway:
    """Live data and metadata of one feed for WebSocket and HTTP clients; `port` is the one it listens on.

    `buffer_bytes` takes the place of `settings.buffer_mb` where a megabyte is too coarse.
    """

    def __init__(
        self,
        feed: str,
        outside: Outside,
        settings: Settings,
        clock: Callable[[], int] = now_ns,
        *,
        buffer_bytes: int | None = None,
    ) -> None:
        self.feed = feed
        self.host = settings.host
        self.port = settings.port
        self.ready = asyncio.Event()  # set while the port is open
        self._transport = outside.transport
        self._clock = clock
        self.hub = Hub(feed, clock=clock)
        self._catalogue = Catalogue(feed, outside.registry, clock)
        self._stream = StreamEndpoint(
            self.hub,
            self._catalogue,
            max_clients=settings.max_clients,
            buffer_bytes=buffer_bytes or settings.buffer_mb << 20,
            clock=clock,
        )
        self._door = Door()
        self._rest = RestEndpoint(self.hub, self._catalogue, self.health, clock)
        self.routes: list[Route] = [*self._rest.routes()]

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then tell the clients and leave within five seconds.

        Raises ConfigError when the port is taken or the host is not this machine's.
        """
        listener = self._listen()
        paths = ["/v1/stream", *(route.path for route in self.routes)]
        app = web.Application(middlewares=[self._door.greet, translate(paths), self._welcome])
        app.add_routes([web.get("/v1/stream", self._stream.handle), *serve(self.routes)])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, keepalive_timeout=75.0)
        await runner.setup()
        try:
            site = web.SockSite(runner, listener, backlog=BACKLOG)
            await site.start()
            self.ready.set()
            log.info("gateway listening", feed=self.feed, url=f"http://{self.host}:{self.port}")
            tasks = [
                asyncio.create_task(self._follow(), name="gateway-follow"),
                asyncio.create_task(self._watch(runner), name="gateway-watch"),
                asyncio.create_task(self._ping_registry(), name="gateway-registry"),
            ]
            stopped = asyncio.create_task(stop.wait())
            try:
                # A task that ends by itself has failed: its error ends the service.
                await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
                self.ready.clear()
                await site.stop()
                await self._stream.stop(STOP_S)
            finally:
                for task in (stopped, *tasks):
                    task.cancel()
                results = await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            await runner.cleanup()
        for result in results:
            if isinstance(result, Exception):
                raise result
        log.info("gateway stopped", feed=self.feed)

    def health(self) -> dict[str, object]:
        """`ok`; `degraded` while metadata or books are missing; `down` while no live data can arrive."""
        hub, now = self.hub, self._clock()
        waiting = len(hub.board.unsynced())
        if not hub.connected:
            status = "down"
        elif waiting or not self._catalogue.available:
            status = "degraded"
        else:
            status = "ok"
        last = hub.last_message_ns
        return {
            "status": status,
            "feed": self.feed,
            "dependencies": {
                "transport": {
                    "state": "connected" if hub.connected else "away",
                    "age_s": _age_s(now, hub.changed_ns),
                    "last_message_age_s": _age_s(now, last) if last else None,
                },
                "registry": {
                    "state": "connected" if self._catalogue.available else "away",
                    "age_s": _age_s(now, self._catalogue.changed_ns),
                    "error": self._catalogue.error or None,
                },
            },
            "books": {"synced": len(hub.board.books) - waiting, "waiting": waiting},
            "clients": self._stream.clients,
            "undecodable_messages": hub.undecodable,
        }

    @web.middleware
    async def _welcome(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        request[CALLER] = Caller(request.remote or "", scopes=frozenset(SCOPES))
        return await handler(request)

    def _listen(self) -> socket.socket:
        try:
            family = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0][0]
            listener = socket.create_server((self.host, self.port), family=family, backlog=BACKLOG)
        except OSError as error:
            what = "the port is taken" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
            hint = "Set another spec.gateway.host or spec.gateway.port, or stop the process that listens there."
            raise ConfigError(f"gateway cannot listen on {self.host}:{self.port}: {what}", hint) from error
        self.port = listener.getsockname()[1]
        return listener

    async def _follow(self) -> None:
        """Subscribe, and keep the books; the transport reconnects by itself."""
        subscription: Subscription | None = None
        while subscription is None:
            try:
                subscription = await self._transport.subscribe(self.hub.patterns, self.hub.on_batch, self.hub.on_state)
            except TransportUnavailable as error:
                log.warning("broker not available", feed=self.feed, error=error.message)
                await asyncio.sleep(SUBSCRIBE_RETRY_S)
        try:
            await self.hub.keep_books(self._transport)
        finally:
            await subscription.close()

    async def _watch(self, runner: web.AppRunner) -> None:
        """Slow clients, heartbeats, connections that never ask, tickers that ended."""
        loop = asyncio.get_running_loop()
        prune_at = loop.time() + PRUNE_S
        while True:
            await asyncio.sleep(WATCH_S)
            now = loop.time()
            self.hub.watch()
            self._stream.watch(now)
            self._door.cut_silent(runner, now)
            if now >= prune_at:
                prune_at = now + PRUNE_S
                self.hub.prune()

    async def _ping_registry(self) -> None:
        while True:
            before = self._catalogue.available
            if await self._catalogue.ping() != before:
                log.info("registry", feed=self.feed, available=self._catalogue.available, error=self._catalogue.error)
            await asyncio.sleep(REGISTRY_PING_S)


def _age_s(now_ns: int, then_ns: int) -> float:
    return round((now_ns - then_ns) / NS_PER_S, 3)
