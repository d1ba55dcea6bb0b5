"""Patience with an exchange's REST API: a token bucket before a request, a jittered wait after a refused one."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable


class TokenBucket:
    """At most `burst` requests at once and `rate` per second in the long run; waiters are served in order."""

    def __init__(
        self,
        rate: float,
        burst: int,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if rate <= 0 or burst < 1:
            raise ValueError("a token bucket needs a positive rate and a burst of at least 1")
        self._rate = rate
        self._burst = burst
        self._now = now
        self._sleep = sleep
        self._tokens = float(burst)
        self._filled_at = now()
        self._lock = asyncio.Lock()

    async def take(self) -> None:
        """Return when one request may be sent."""
        async with self._lock:
            now = self._now()
            self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate)
            self._filled_at = now
            self._tokens -= 1
            if self._tokens < 0:
                await self._sleep(-self._tokens / self._rate)


class Backoff:
    """Waits between attempts: full jitter up to a ceiling that doubles, within a budget of attempts and seconds."""

    def __init__(
        self,
        attempts: int = 6,
        total_s: float = 60.0,
        first_s: float = 0.5,
        longest_s: float = 15.0,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.attempts = attempts
        self.total_s = total_s
        self._first_s = first_s
        self._longest_s = longest_s
        self._uniform = uniform

    def wait_s(self, attempt: int, spent_s: float, wish_s: float | None) -> float | None:
        """Seconds to wait after the failed `attempt` (from 1); None when the budget is spent.

        `wish_s` is what the other side asked for; it is the least we wait.
        """
        if attempt >= self.attempts:
            return None
        ceiling = min(self._longest_s, self._first_s * 2 ** (attempt - 1))
        wait = max(self._uniform(0, ceiling), wish_s or 0.0)
        return None if spent_s + wait > self.total_s else wait
