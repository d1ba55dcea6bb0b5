"""The gateway as a service: one HTTP port, one live subscription, housekeeping, and an orderly end."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog
from aiohttp import web

from ssmd.clock import now_ns
from ssmd.config.environment import Gateway as Settings
from ssmd.config.paths import ssmd_home
from ssmd.config.values import is_loopback
from ssmd.errors import ConfigError
from ssmd.gateway.admin import AdminEndpoint
from ssmd.gateway.catalogue import Catalogue
from ssmd.gateway.check_watch import CheckWatch
from ssmd.gateway.doors import MAX_BODY_BYTES, STREAM, Doors
from ssmd.gateway.health import Health, StorageWatch
from ssmd.gateway.hot import Hot
from ssmd.gateway.hub import Hub
from ssmd.gateway.keyring import Keyring
from ssmd.gateway.listening import KEEP_ALIVE_S, Port, Threshold, listen
from ssmd.gateway.lookup import Lookup
from ssmd.gateway.market_trades import TradesEndpoint
from ssmd.gateway.meta import MetaEndpoint
from ssmd.gateway.meta_days import DaysEndpoint
from ssmd.gateway.outside import Outside
from ssmd.gateway.pages import Pages
from ssmd.gateway.problems import translate
from ssmd.gateway.quality_pages import QualityPages
from ssmd.gateway.questions.answers import Questions
from ssmd.gateway.rates import Rates
from ssmd.gateway.remembering import Remembering
from ssmd.gateway.rest import RestEndpoint
from ssmd.gateway.resume import Window
from ssmd.gateway.routes import Route, serve
from ssmd.gateway.status_page import StatusView
from ssmd.gateway.stream import FAREWELL, StreamEndpoint
from ssmd.gateway.tls import TlsFiles
from ssmd.gateway.trade_history import TradeHistory, archived_trades
from ssmd.gateway.waiting import Bounds
from ssmd.middleware.transport.interface import Subscription, TransportUnavailable
from ssmd.registry.client_keys import ClientKeys
from ssmd.service_state import read_farewell

STOP_S = 3.0
WATCH_S = 0.2
REGISTRY_PING_S = 10.0
PRUNE_S = 60.0
SUBSCRIBE_RETRY_S = 1.0
DOORS_S = 1.0

log = structlog.get_logger()


class Gateway:
    """Live data and metadata of one feed for WebSocket and HTTP clients; `port` is the one it listens on.

    `buffer_bytes` takes the place of `settings.buffer_mb` where a megabyte is too coarse; relative paths of
    certificates are below `home` (SSMD_HOME). Raises ConfigError for settings that cannot hold.
    """

    def __init__(
        self,
        feed: str,
        outside: Outside,
        settings: Settings,
        clock: Callable[[], int] = now_ns,
        *,
        buffer_bytes: int | None = None,
        home: Path | None = None,
    ) -> None:
        self.feed = feed
        self.host = settings.host
        self.port = settings.port
        self.ready = asyncio.Event()  # set while the port is open
        self._transport = outside.transport
        self._clock = clock
        self._settings = settings
        self._home = home or ssmd_home(os.environ)
        self.keyring = _keyring(settings, outside)
        self.tls = TlsFiles(settings.tls, self._home) if settings.tls else None
        self.doors = Doors(settings, self.keyring)
        self.hub = Hub(feed, clock=clock, window=Window(settings.resume_s, settings.resume_mb << 20))
        self._hot = Hot(outside.cache, clock)
        self._catalogue = Catalogue(feed, outside.registry, clock, self._hot)
        remembering = Remembering(outside.database, self._catalogue, self._hot, clock)
        self._stream = StreamEndpoint(
            self.hub,
            self._catalogue,
            max_clients=settings.max_clients,
            bounds=Bounds(settings.buffer_messages, buffer_bytes or settings.buffer_mb << 20, settings.drop_policy),
            clock=clock,
            doors=self.doors,
        )
        self._threshold = Threshold(settings)
        self._storage = StorageWatch(outside.storage, clock)
        self._health = Health(self.hub, self._catalogue, self._hot, self._storage, lambda: self._stream.clients, clock)
        self._rest = RestEndpoint(self.hub, self._catalogue, clock)
        self._trades = TradesEndpoint(
            feed,
            Lookup(self.hub, self._catalogue),
            TradeHistory(self.hub, self._catalogue, archived_trades(feed, outside), clock),
            clock,
        )
        self._rates = Rates(self.hub.taken)
        self._checks = CheckWatch(feed, outside.environment, outside.database, clock)
        status = StatusView(
            self.hub, self._catalogue, self._rates, self.health, self._stream.states, self._checks.view, clock
        )
        self._pages = Pages(feed, settings, status, lambda: self.routes)
        self.routes: list[Route] = [
            *self._health.routes(),
            *self._rest.routes(),
            *self._trades.routes(),
            *self._pages.routes(),
            *QualityPages(feed, outside, self._pages.quality).routes(),
        ]
        self.routes += MetaEndpoint(remembering, clock).routes()
        self.routes += DaysEndpoint(feed, remembering, clock).routes()
        self.routes += AdminEndpoint(feed, self._stream, time.monotonic, clock).routes()
        questions = Questions(self._catalogue, self.hub, clock)
        self._stream.actions.questions = questions.for_stream
        self.routes += questions.routes()

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then tell the clients and leave within five seconds.

        Raises ConfigError when the port is taken or the host is not this machine's.
        """
        context = self.tls.open() if self.tls else None
        listener = listen(self.host, self.port, only_here=self._settings.auth == "none")
        self.port = listener.getsockname()[1]
        runner = web.AppRunner(
            self.application(), access_log=None, shutdown_timeout=1.0, keepalive_timeout=KEEP_ALIVE_S
        )
        await runner.setup()
        try:
            site = Port(runner, listener, context)
            await site.start()
            self._checks.start()
            self.ready.set()
            log.info("gateway listening", feed=self.feed, url=f"http{'s' if context else ''}://{self.host}:{self.port}")
            tasks = [
                asyncio.create_task(self._follow(), name="gateway-follow"),
                asyncio.create_task(self._watch(runner), name="gateway-watch"),
                asyncio.create_task(self._ping_registry(), name="gateway-registry"),
                asyncio.create_task(self._watch_doors(), name="gateway-doors"),
                asyncio.create_task(self._watch_storage(), name="gateway-storage"),
            ]
            stopped = asyncio.create_task(stop.wait())
            try:
                # A task that ends by itself has failed: its error ends the service.
                await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
                self.ready.clear()
                await site.stop()
                farewell = read_farewell(self._home, "gateway") or FAREWELL
                # Who comes back when told to is not refused because somebody else took his time to leave.
                await self._stream.stop(min(STOP_S, farewell.retry_after_s / 3), farewell)
            finally:
                for task in (stopped, *tasks):
                    task.cancel()
                results = await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            self._checks.stop()
            await runner.cleanup()
        for result in results:
            if isinstance(result, Exception):
                raise result
        log.info("gateway stopped", feed=self.feed)

    def application(self) -> web.Application:
        """All paths behind their doors."""
        paths = [STREAM, *(route.path for route in self.routes)]
        middlewares = [self._threshold.greet, translate(paths), self.doors.admit]
        app = web.Application(middlewares=middlewares, client_max_size=MAX_BODY_BYTES)
        app.add_routes([web.get(STREAM, self._stream.handle), *serve(self.routes)])
        self.doors.open(app, self.routes)
        return app

    def health(self) -> dict[str, object]:
        """How it and everything it needs are; `ok`, `degraded` or `down` in `status`."""
        return msgspec.structs.asdict(self._health.now())

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
            self._rates.sample(now)
            self._threshold.cut(runner, now)
            if now >= prune_at:
                prune_at = now + PRUNE_S
                self.hub.prune()

    async def _watch_doors(self) -> None:
        """Keys that come and go, and certificates that are renewed."""
        following = asyncio.create_task(self.keyring.follow()) if self.keyring else None
        try:
            while True:
                await asyncio.sleep(DOORS_S)
                self.doors.close_ended()
                if self.tls:
                    self.tls.refresh()
                if following is not None and following.done():
                    following.result()
        finally:
            if following is not None:
                following.cancel()
            if self.keyring is not None:
                self.keyring.close()

    async def _watch_storage(self) -> None:
        await self._storage.follow()
        await asyncio.Event().wait()  # there is none: nothing to follow, and no failure

    async def _ping_registry(self) -> None:
        while True:
            before = self._catalogue.available
            if await self._catalogue.ping() != before:
                log.info("registry", feed=self.feed, available=self._catalogue.available, error=self._catalogue.error)
            await self._hot.ping()
            await asyncio.sleep(REGISTRY_PING_S)


def _keyring(settings: Settings, outside: Outside) -> Keyring | None:
    """The keys of clients; None where nobody is asked for one. ConfigError for what would let everyone in."""
    if settings.auth == "keys":
        if outside.database is None:
            raise ConfigError(
                "spec.gateway.auth is keys, and the environment has no database to keep them in",
                "Add spec.database.url, or write auth: none with host: 127.0.0.1.",
            )
        return Keyring(ClientKeys(outside.database))
    if not is_loopback(settings.host):
        raise ConfigError(
            f"gateway would let everyone who reaches {settings.host} in without a key",
            "Write spec.gateway.auth: keys, or host: 127.0.0.1.",
        )
    return None
