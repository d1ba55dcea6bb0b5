"""What a cache does: bytes under a name for a while; losing them costs time, never data."""

import math
from collections.abc import Sequence
from typing import Protocol

from ssmd.errors import Unavailable

MAX_COUNT = 2**63 - 1


class CacheUnavailable(Unavailable):
    """The cache did not answer: go on without it."""


class Cache(Protocol):
    """A shared or private cache. Every method raises CacheUnavailable when its server is away.

    Keys are any text; a cache of several environments keeps them apart. A value may be gone at any time.
    """

    async def get(self, key: str) -> bytes | None:
        """The value, None when there is none (any longer)."""
        ...

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values, in the order of `keys`."""
        ...

    async def set(self, key: str, value: bytes, ttl_s: float | None = None) -> None:
        """Keep `value` for `ttl_s` seconds (None: until it is pushed out); a time that is not above 0: ValueError."""
        ...

    async def set_if_absent(self, key: str, value: bytes, ttl_s: float | None = None) -> bool:
        """Keep `value` unless there is one; False when there is one."""
        ...

    async def increment(self, key: str) -> int:
        """Add one to a counter that begins at 0; its new value. Its time to live stays.

        DataError when the value is no whole number, or the largest of 64 bits.
        """
        ...

    async def delete(self, key: str) -> None:
        """Forget the value; harmless when there is none."""
        ...

    async def close(self) -> None:
        """Let go of the server."""
        ...


def milliseconds(ttl_s: float) -> int:
    """A time to live as caches keep it: whole milliseconds, at least one. ValueError when it is not above 0."""
    if not 0 < ttl_s < math.inf:
        raise ValueError(f"a time to live of {ttl_s} s")
    return max(1, round(ttl_s * 1_000))
