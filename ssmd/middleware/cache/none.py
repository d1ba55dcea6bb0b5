"""No cache: whatever is kept is gone at once."""

from collections.abc import Sequence

from ssmd.middleware.cache.interface import milliseconds


class NoCache:
    """A Cache that forgets; nobody else ever has a value in it."""

    async def get(self, key: str) -> bytes | None:
        """See `Cache.get`."""
        return None

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """See `Cache.get_many`."""
        return [None] * len(keys)

    async def set(self, key: str, value: bytes, ttl_s: float | None = None) -> None:
        """See `Cache.set`."""
        if ttl_s is not None:
            milliseconds(ttl_s)

    async def set_if_absent(self, key: str, value: bytes, ttl_s: float | None = None) -> bool:
        """See `Cache.set_if_absent`."""
        await self.set(key, value, ttl_s)
        return True

    async def increment(self, key: str) -> int:
        """See `Cache.increment`."""
        return 1

    async def delete(self, key: str) -> None:
        """See `Cache.delete`."""

    async def close(self) -> None:
        """See `Cache.close`."""
