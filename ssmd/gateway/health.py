"""How the gateway and everything it needs are: for operators with reasons, for the public without."""

import asyncio
from collections.abc import Callable
from typing import Literal

import msgspec
import structlog
from aiohttp import web

from ssmd.clock import NS_PER_S, now_ns
from ssmd.errors import SsmdError
from ssmd.gateway.catalogue import Catalogue
from ssmd.gateway.hot import Hot
from ssmd.gateway.hub import Hub
from ssmd.gateway.routes import SAFE_HEADERS, Ask, Route
from ssmd.middleware.storage.interface import Storage

PING_S = 10.0
ANSWER_S = 5.0

log = structlog.get_logger()


class Dependency(msgspec.Struct, frozen=True, omit_defaults=True):
    """A server the gateway needs; `age_s` is how long it has been so. `error` is for callers with scope admin."""

    state: Literal["connected", "away", "none"]
    age_s: float
    error: str | None = None
    last_message_age_s: float | None = None


class Books(msgspec.Struct, frozen=True):
    """Order books that follow the stream, and that wait for their snapshot."""

    synced: int
    waiting: int


class HealthDocument(msgspec.Struct, frozen=True):
    """`ok`; `degraded` while metadata, books or the archive are missing; `down` while no live data can arrive."""

    status: Literal["ok", "degraded", "down"]
    feed: str
    dependencies: dict[str, Dependency]
    books: Books
    clients: int
    undecodable_messages: int


class StorageWatch:
    """Whether the archive answers; `available` is None while it was not asked, or when there is none."""

    def __init__(self, storage: Storage | None, clock: Callable[[], int] = now_ns) -> None:
        self.available: bool | None = None
        self.changed_ns = clock()
        self.error = ""
        self._storage = storage
        self._clock = clock

    @property
    def state(self) -> Literal["connected", "away", "none"]:
        """For the health document."""
        if self._storage is None:
            return "none"
        return "away" if self.available is False else "connected"

    async def follow(self) -> None:
        """Until cancelled: ask every ten seconds."""
        while self._storage is not None:
            await self._ping(self._storage)
            await asyncio.sleep(PING_S)

    async def _ping(self, storage: Storage) -> None:
        error = ""
        try:
            async with asyncio.timeout(ANSWER_S):
                await storage.ping()
        except TimeoutError:
            error = f"no answer within {ANSWER_S:.0f} s"
        except SsmdError as failure:
            error = failure.message
        if (not error) != self.available:
            if self.available is not None or error:
                log.info("storage", available=not error, error=error)
            self.available, self.changed_ns = not error, self._clock()
        self.error = error


class Health:
    """Puts the document together; `clients` counts who is connected."""

    def __init__(
        self,
        hub: Hub,
        catalogue: Catalogue,
        hot: Hot,
        storage: StorageWatch,
        clients: Callable[[], int],
        clock: Callable[[], int] = now_ns,
    ) -> None:
        self._hub = hub
        self._catalogue = catalogue
        self._hot = hot
        self._storage = storage
        self._clients = clients
        self._clock = clock

    def routes(self) -> list[Route]:
        """Paths and handlers."""
        return [
            Route(
                "/v1/health", self.health, None, "How the gateway and everything it needs are",
                answer=HealthDocument, tag="health", codes=(200, 503),
                description="503 with the same document while live data does not flow.",
            )
        ]  # fmt: skip

    async def health(self, ask: Ask) -> object:
        """Each dependency with its state and age; 503 while live data does not flow."""
        document = self.now(reasons=ask.caller.may("admin"))
        if document.status != "down":
            return document
        headers = {**SAFE_HEADERS, "Cache-Control": "no-store"}
        body = msgspec.json.encode(document)
        return web.Response(status=503, body=body, headers=headers, content_type="application/json")

    def now(self, *, reasons: bool = True) -> HealthDocument:
        """The document; what servers said when they failed only with `reasons`."""
        hub, catalogue, hot, storage, now = self._hub, self._catalogue, self._hot, self._storage, self._clock()
        waiting = len(hub.board.unsynced())
        status: Literal["ok", "degraded", "down"] = "ok"
        if not hub.connected:
            status = "down"
        elif waiting or not catalogue.available or hot.available is False or storage.available is False:
            status = "degraded"
        last = hub.last_message_ns

        def dependency(
            state: Literal["connected", "away", "none"], since_ns: int, error: str = "", last_ns: int = 0
        ) -> Dependency:
            said = error if reasons and error else None
            return Dependency(state, _age_s(now, since_ns), said, _age_s(now, last_ns) if last_ns else None)

        return HealthDocument(
            status,
            hub.feed,
            {
                "transport": dependency("connected" if hub.connected else "away", hub.changed_ns, last_ns=last),
                "registry": dependency(
                    "connected" if catalogue.available else "away", catalogue.changed_ns, catalogue.error
                ),
                "cache": dependency(hot.state, hot.changed_ns, hot.error),
                "storage": dependency(storage.state, storage.changed_ns, storage.error),
            },
            Books(len(hub.board.books) - waiting, waiting),
            self._clients(),
            hub.undecodable,
        )


def _age_s(now_ns: int, then_ns: int) -> float:
    return round((now_ns - then_ns) / NS_PER_S, 3)
