"""How much one client may ask for: requests per second, minute and hour, and connections at a time."""

import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

from limits import RateLimitItem, RateLimitItemPerHour, RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.storage import Storage
from limits.storage.base import SlidingWindowCounterSupport
from limits.strategies import SlidingWindowCounterRateLimiter

from ssmd.config.environment import RequestLimits

MAX_REMEMBERED = 100_000
"""Windows that are kept; beyond them the ones not touched for longest are forgotten."""


class Allowance(NamedTuple):
    """What is left of the limit that is nearest; `refused` says which one was exceeded, "" when none was."""

    limit: int
    remaining: int
    reset_s: int
    refused: str = ""

    def headers(self) -> dict[str, str]:
        """The headers `RateLimit-*`, and `Retry-After` when it was refused."""
        said = {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(self.reset_s),
        }
        return said | ({"Retry-After": str(self.reset_s)} if self.refused else {})


class Windows(Storage, SlidingWindowCounterSupport):
    """Counts of requests in the running and the last window, in memory: bounded, without a thread of its own."""

    STORAGE_SCHEME = None

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, most: int = MAX_REMEMBERED) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._most = most
        self._counts: OrderedDict[str, tuple[int, int, int]] = OrderedDict()  # window, requests before it, in it

    def __len__(self) -> int:
        return len(self._counts)

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """(requests in the last window, seconds it still counts, requests in this one, seconds until it is forgotten).

        The last window's requests count in proportion to the seconds that they still count.
        """
        window, gone = divmod(self._monotonic(), expiry)
        known, before, current = self._counts.get(key, (0, 0, 0))
        if known != window:
            before, current = (current if known == window - 1 else 0), 0
        left = expiry - gone
        return before, left, current, left + expiry

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count `amount` requests, unless they are too many."""
        before, left, current, _ = self.get_sliding_window(key, expiry)
        if math.floor(before * left / expiry + current) + amount > limit:
            return False
        self._counts[key] = int(self._monotonic() // expiry), before, current + amount
        self._counts.move_to_end(key)
        if len(self._counts) > self._most:
            self._counts.popitem(last=False)
        return True

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        """Forget a key's requests."""
        self._counts.pop(key, None)

    @property
    def base_exceptions(self) -> type[Exception]:
        """What may go wrong: nothing."""
        return ValueError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count without a limit; requests in this window."""
        self.acquire_sliding_window_entry(key, 2**62, expiry, amount)
        return self.get_sliding_window(key, expiry)[2]

    def get(self, key: str) -> int:
        """Requests counted last."""
        return self._counts.get(key, (0, 0, 0))[2]

    def get_expiry(self, key: str) -> float:
        """When a key is forgotten: not by time."""
        return math.inf

    def check(self) -> bool:
        """It is there."""
        return True

    def reset(self) -> int:
        """Forget all."""
        count = len(self._counts)
        self._counts.clear()
        return count

    def clear(self, key: str) -> None:
        """Forget a key's requests."""
        self._counts.pop(key, None)


class RequestLimiter:
    """Counts the requests of each client against the limits of the environment file."""

    def __init__(self, settings: RequestLimits, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._windows = Windows(monotonic)
        self._limiter = SlidingWindowCounterRateLimiter(self._windows)
        # The shortest first: what it refuses is not charged to the longer ones.
        self._burst = RateLimitItemPerSecond(settings.burst)
        self._longer = (
            RateLimitItemPerMinute(settings.requests_per_minute),
            RateLimitItemPerHour(settings.requests_per_hour),
        )

    def spend(self, who: str, *, burst: bool = True) -> Allowance:
        """Count one request of `who`; without `burst` only the limits per minute and hour hold."""
        nearest: Allowance | None = None
        for item in (self._burst, *self._longer) if burst else self._longer:
            if not self._limiter.hit(item, who):
                return self._left(item, who)._replace(refused=f"{item.amount} requests per {item.GRANULARITY.name}")
            left = self._left(item, who)
            if item is not self._burst and (nearest is None or left.remaining < nearest.remaining):
                nearest = left
        assert nearest is not None
        return nearest

    def _left(self, item: RateLimitItem, who: str) -> Allowance:
        expiry, limit = item.get_expiry(), item.amount
        before, left, current, _ = self._windows.get_sliding_window(item.key_for(who), expiry)
        remaining = max(0, limit - current - math.floor(before * left / expiry))
        wait = left
        if current < limit and before:  # enough of the last window has passed before this one ends
            wait = max(0.0, left - (limit - current) * expiry / before)
        # A whole second more: at the very moment it is not yet less than the limit.
        return Allowance(limit, remaining, math.floor(wait if remaining == 0 else left) + 1)


class Heads:
    """How many are here at a time, by who they are."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._here: Counter[str] = Counter()

    def enter(self, who: str) -> bool:
        """Count one more; False when there are `most` already."""
        if self._here[who] >= self.most:
            return False
        self._here[who] += 1
        return True

    def leave(self, who: str) -> None:
        """One of them went."""
        self._here[who] -= 1
        if self._here[who] <= 0:
            del self._here[who]


def neighbourhood(address: str) -> str:
    """Who counts as one address: an IPv4 address, or the /64 that one IPv6 line has all of."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, IPv6Address):
        mapped = found.ipv4_mapped
        return str(mapped) if mapped else f"{IPv6Address(int(found) >> 64 << 64)}/64"
    return str(found)
