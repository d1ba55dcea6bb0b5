"""Hot questions to the database, answered from the cache: fresh for a moment, and old but marked while it is away.

What fails costs time, never an answer that another way can give (the design's table of degradation):

    the cache is away        it is passed by for a while; the database is asked each time
    the database is away     the last answer is given, at most `KEPT_S` old and marked as stale
    both are away            RegistryUnavailable
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Any, Generic, Literal, TypeVar, cast

import msgspec
import structlog

from ssmd import __version__
from ssmd import telemetry as metrics
from ssmd.clock import NS_PER_S, now_ns
from ssmd.middleware.cache.interface import Cache, CacheUnavailable
from ssmd.registry.interface import RegistryUnavailable

FRESH_S = 2.0
KEPT_S = 3_600.0
MAX_KEPT_BYTES = 4 << 20
"""Larger answers are not kept."""
CACHE_REST_S = 2.0
"""So long a cache that did not answer is left alone."""
DATABASE_REST_S = 1.0
"""So long a database that did not answer is not asked for what an older answer is at hand of."""

T = TypeVar("T")

log = structlog.get_logger()


class Known(msgspec.Struct, Generic[T], frozen=True):
    """An answer, when the database gave it, and whether it is shown because the database is away."""

    value: T
    at_ns: int
    stale: bool = False


class Hot:
    """Answers by question; `available`, `changed_ns` and `error` tell the state of the cache (None: there is none)."""

    def __init__(self, cache: Cache | None, clock: Callable[[], int] = now_ns) -> None:
        self.available: bool | None = None if cache is None else True
        self.changed_ns = clock()
        self.error = ""
        self._cache = cache
        self._clock = clock
        self._running: dict[str, asyncio.Task[Known[Any]]] = {}
        self._cache_rests_until = 0.0
        self._database_rests_until = 0.0

    @property
    def state(self) -> Literal["connected", "away", "none"]:
        """One word for `/v1/health`."""
        if self.available is None:
            return "none"
        return "connected" if self.available else "away"

    async def read(
        self, question: str, kind: Any, ask: Callable[[], Awaitable[T]], *, kept_s: float = KEPT_S
    ) -> Known[T]:
        """The answer to `question`, of the msgspec type `kind`; `ask` puts it to the database.

        `kept_s` is how long it is given while the database is away.
        Many who want the same at the same time wait for one answer. Raises what `ask` raises, RegistryUnavailable only
        when no such answer is at hand.
        """
        key = _key(question, kind)
        running = self._running.get(key)
        if running is None:
            running = self._running[key] = asyncio.create_task(self._read(key, kind, ask, kept_s))
            running.add_done_callback(lambda done: self._answered(key, done))
        # one who asked and went away takes nothing from the others
        return cast(Known[T], await asyncio.shield(running))

    async def ping(self) -> None:
        """Look whether the cache is there."""
        self._cache_rests_until = 0.0
        await self._ask_cache(lambda cache: cache.get("ping"))

    def _answered(self, key: str, task: "asyncio.Task[Known[Any]]") -> None:
        self._running.pop(key, None)
        if not task.cancelled():
            task.exception()  # seen here when nobody waits any longer

    async def _read(self, key: str, kind: Any, ask: Callable[[], Awaitable[T]], kept_s: float) -> Known[T]:
        kept = await self._kept(key, kind)
        asked_ns = self._clock()
        if kept is not None and 0 <= asked_ns - kept.at_ns < FRESH_S * NS_PER_S:
            metrics.GATEWAY_METADATA.labels("cached").inc()
            return kept
        if kept is not None and (kept.value is None or asked_ns - kept.at_ns > kept_s * NS_PER_S):
            kept = None
        loop = asyncio.get_running_loop()
        if kept is not None and loop.time() < self._database_rests_until:
            return _stale(kept)
        try:
            value = await ask()
        except RegistryUnavailable:
            self._database_rests_until = loop.time() + DATABASE_REST_S
            if kept is None:
                metrics.GATEWAY_METADATA.labels("unavailable").inc()
                raise
            return _stale(kept)
        self._database_rests_until = 0.0
        metrics.GATEWAY_METADATA.labels("asked").inc()
        known = Known(value, asked_ns)
        await self._keep(key, known, kept_s)
        return known

    async def _kept(self, key: str, kind: Any) -> Known[Any] | None:
        body = await self._ask_cache(lambda cache: cache.get(key))
        if body is None:
            return None
        try:
            return _decoder(kind).decode(body)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            log.warning("cached answer not understood", error=str(error)[:200])
            return None

    async def _keep(self, key: str, known: Known[Any], kept_s: float) -> None:
        try:
            body = msgspec.json.encode(known)
        except (OverflowError, RecursionError, TypeError, UnicodeError):
            return  # what an exchange sent may not fit; it is shown all the same
        if len(body) <= MAX_KEPT_BYTES:
            # that something does not exist may be asked under any number of names
            ttl_s = FRESH_S if known.value is None else kept_s
            await self._ask_cache(lambda cache: cache.set(key, body, ttl_s))

    async def _ask_cache(self, ask: Callable[[Cache], Awaitable[T]]) -> T | None:
        """None also when there is no cache, or none that answers."""
        now = asyncio.get_running_loop().time()
        if self._cache is None or now < self._cache_rests_until:
            return None
        try:
            found = await ask(self._cache)
        except CacheUnavailable as error:
            self._cache_rests_until = asyncio.get_running_loop().time() + CACHE_REST_S
            self._turned(False, error.message)
            return None
        self._turned(True, "")
        return found

    def _turned(self, available: bool, error: str) -> None:
        self.error = error
        if available is not self.available:
            self.available, self.changed_ns = available, self._clock()
            log.info("cache", available=available, error=error or None)


def stale_headers(at_ns: int, now_ns: int) -> Mapping[str, str]:
    """What HTTP has to say about an answer of some time ago, given because nothing newer is to be had."""
    return {"Age": str(max(0, (now_ns - at_ns) // NS_PER_S)), "Warning": '110 ssmd "Response is Stale"'}


def _stale(kept: Known[T]) -> Known[T]:
    metrics.GATEWAY_METADATA.labels("stale").inc()
    return Known(kept.value, kept.at_ns, True)


def _key(question: str, kind: Any) -> str:
    """Short, whatever is asked; another version of ssmd, whose answers may look otherwise, has keys of its own."""
    digest = hashlib.blake2b(question.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"hot:{__version__}:{getattr(kind, '__name__', 'answer')}:{digest}"


@lru_cache(maxsize=64)
def _decoder(kind: Any) -> "msgspec.json.Decoder[Known[Any]]":
    return msgspec.json.Decoder(Known[kind])
