"""The keys of clients as the gateway knows them: read every few seconds, and kept while the database is away."""

import asyncio
import hmac
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

import structlog

from ssmd.errors import SsmdError, Unavailable
from ssmd.gateway.problems import ApiProblem
from ssmd.registry.client_keys import ClientKey, Lock, key_id, key_sha256
from ssmd.telemetry import GATEWAY_KEYS_AGE

REFRESH_S = 5.0
UNKNOWN_EVERY_S = 1.0
UNKNOWN_AT_ONCE = 10
"""For an id that is not known the keys are read anew: so often at once, and then once a second, however many ask."""
ANSWER_S = 5.0
TOUCH_S = 60.0
_MAX_WAITING = 3

log = structlog.get_logger()

T = TypeVar("T")


class KeySource(Protocol):
    """Where the keys are; every method may wait, and raises SsmdError when it cannot answer."""

    def locks(self) -> dict[str, Lock]:
        """All keys by their id."""
        ...

    def touch(self, used: dict[str, datetime], /) -> None:
        """Note when keys were last used."""
        ...


class Keyring:
    """Tells whose key a text is. `follow` must run: it learns of new, revoked and changed keys."""

    def __init__(
        self,
        source: KeySource,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.error = ""  # why the database did not answer last time
        self._source = source
        self._now = now
        self._monotonic = monotonic
        self._locks: dict[str, Lock] = {}
        self._read_at: float | None = None
        self._looks = float(UNKNOWN_AT_ONCE)
        self._looks_at = monotonic()
        self._nobody = secrets.token_bytes(32)  # what a key without lock is compared with
        self._used: dict[str, datetime] = {}
        # A thread of its own: a database that does not answer must not take those that others wait for.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="client-keys")
        self._waiting = 0

    @property
    def age_s(self) -> float | None:
        """Seconds since all keys were read; None: not yet."""
        return None if self._read_at is None else self._monotonic() - self._read_at

    async def open(self, text: str) -> ClientKey:
        """The key that `text` is. ApiProblem 401 when it is none or ended; 503 when that cannot be said now."""
        key = key_id(text)
        lock = self._locks.get(key)
        if lock is None and key:
            lock = await self._look_up(key)
        # Always one hash and one comparison, so that time tells nothing about what is known.
        same = hmac.compare_digest(key_sha256(text), lock.key_sha256 if lock else self._nobody)
        if lock is None or not same:
            raise ApiProblem(
                401, "wrong_key", "the API key is not one of this gateway", "Ask its operator for one, or check yours."
            )
        now = self._now()
        state = lock.key.state(now)
        if state != "active":
            step = "Ask the operator for a new one: ssmd client key create"
            raise ApiProblem(401, f"key_{state}", f"the API key {lock.key.id} {_ended(state)}", step)
        self._used[key] = now
        return lock.key

    def ended(self, key: str) -> str:
        """Why a key that was good before is not any more; "" while it is."""
        lock = self._locks.get(key)
        if lock is None:
            return "was removed"
        state = lock.key.state(self._now())
        return "" if state == "active" else _ended(state)

    async def follow(self) -> None:
        """Until cancelled: read all keys every few seconds, and write once a minute which were used."""
        touch_at = self._monotonic() + TOUCH_S
        while True:
            await self.refresh()
            if self._monotonic() >= touch_at:
                touch_at = self._monotonic() + TOUCH_S
                await self.touch()
            await asyncio.sleep(REFRESH_S)

    async def refresh(self) -> None:
        """Read all keys; when that fails, the ones that are known stay, and `error` says why."""
        try:
            self._locks = await self._ask(self._source.locks)
        except SsmdError as error:
            self._failed(error)
        else:
            self._read_at = self._monotonic()
            if self.error:
                log.info("client keys readable again", keys=len(self._locks))
            self.error = ""
        GATEWAY_KEYS_AGE.set(self.age_s or 0.0)

    async def touch(self) -> None:
        """Write which keys were used; what cannot be written now is written with the next."""
        used, self._used = self._used, {}
        try:
            await self._ask(self._source.touch, used)
        except SsmdError as error:
            self._used = used | self._used
            self._failed(error)

    def close(self) -> None:
        """Leave the thread; a question that it waits on is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _look_up(self, key: str) -> Lock | None:
        """The key that was made since all were read, if there is one."""
        now = self._monotonic()
        self._looks = min(float(UNKNOWN_AT_ONCE), self._looks + (now - self._looks_at) / UNKNOWN_EVERY_S)
        self._looks_at = now
        if self._looks >= 1:
            self._looks -= 1
            await self.refresh()
        if self.error:
            raise _away()
        return self._locks.get(key)

    async def _ask(self, function: Callable[..., T], *arguments: Any) -> T:
        if self._waiting >= _MAX_WAITING:
            raise Unavailable("the metadata database does not answer")
        self._waiting += 1
        future = asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)
        future.add_done_callback(self._answered)
        try:
            return await asyncio.wait_for(asyncio.shield(future), ANSWER_S)
        except TimeoutError as error:
            raise Unavailable(f"the metadata database did not answer within {ANSWER_S:.0f} s") from error

    def _answered(self, future: "asyncio.Future[Any]") -> None:
        self._waiting -= 1
        if not future.cancelled():
            future.exception()  # whoever still waits has it; an answer that came too late is nobody's

    def _failed(self, error: SsmdError) -> None:
        if not self.error:
            log.warning("client keys not readable, known ones stay", keys=len(self._locks), error=error.message)
        self.error = error.message


def _ended(state: str) -> str:
    return "was revoked" if state == "revoked" else "has expired"


def _away() -> ApiProblem:
    return ApiProblem(
        503, "keys_away", "the key cannot be checked: the database with the keys is away",
        "Try again in a few seconds.", headers={"Retry-After": "2"},
    )  # fmt: skip
