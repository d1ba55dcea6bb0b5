"""What a cache does: bytes under a name for a while; losing them costs time, never data."""

from typing import Protocol

from ssmd.errors import Unavailable


class CacheUnavailable(Unavailable):
    """The cache did not answer: go on without it."""


class Cache(Protocol):
    """A shared or private cache. Every method raises CacheUnavailable when its server is away."""

    async def get(self, key: str) -> bytes | None:
        """The value, None when there is none (any longer)."""
        ...

    async def get_many(self, keys: list[str]) -> list[bytes | None]:
        """The values, in the order of `keys`."""
        ...

    async def set(self, key: str, value: bytes, ttl_s: float | None = None) -> None:
        """Keep `value` for `ttl_s` seconds (None: until it is pushed out)."""
        ...

    async def set_if_absent(self, key: str, value: bytes, ttl_s: float | None = None) -> bool:
        """Keep `value` unless there is one; whether it was kept."""
        ...

    async def increment(self, key: str) -> int:
        """Add one to a counter that begins at 0; its new value."""
        ...

    async def delete(self, key: str) -> None:
        """Forget the value; harmless when there is none."""
        ...

    async def close(self) -> None:
        """Let go of the server."""
        ...
