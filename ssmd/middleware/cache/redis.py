"""A cache in a Redis or Valkey server, shared by all gateways of an environment; it is given up on quickly."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from valkey.asyncio import BlockingConnectionPool, Valkey
from valkey.credentials import CredentialProvider
from valkey.exceptions import ResponseError, ValkeyError

from ssmd.config import middleware as kinds
from ssmd.errors import ConfigError, DataError, SsmdError
from ssmd.middleware.cache.interface import CacheUnavailable, milliseconds
from ssmd.middleware.secrets import Secrets

TIMEOUT_S = 0.3
"""For a whole question, a new connection included: what a cache would save is lost by then."""


class RedisCache:
    """A Cache whose keys all begin with `ssmd:{environment}:`; connects on first use.

    The credentials are read anew for each connection: a rotated password needs no restart.
    """

    def __init__(self, config: kinds.RedisCache, secrets: Secrets, environment: str) -> None:
        self._client = client_of(config, secrets, TIMEOUT_S)
        self._shown = shown(config.url)
        self._prefix = f"ssmd:{environment}:".encode()

    async def get(self, key: str) -> bytes | None:
        """See `Cache.get`."""
        value: bytes | None = await self._ask("GET", self._key(key))
        return value

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """See `Cache.get_many`."""
        if not keys:
            return []
        values: list[bytes | None] = await self._ask("MGET", *map(self._key, keys))
        return values

    async def set(self, key: str, value: bytes, ttl_s: float | None = None) -> None:
        """See `Cache.set`."""
        await self._ask("SET", self._key(key), value, *_ending(ttl_s))

    async def set_if_absent(self, key: str, value: bytes, ttl_s: float | None = None) -> bool:
        """See `Cache.set_if_absent`."""
        return bool(await self._ask("SET", self._key(key), value, *_ending(ttl_s), "NX"))

    async def increment(self, key: str) -> int:
        """See `Cache.increment`."""
        return int(await self._ask("INCR", self._key(key)))

    async def delete(self, key: str) -> None:
        """See `Cache.delete`."""
        await self._ask("DEL", self._key(key))

    async def close(self) -> None:
        """See `Cache.close`."""
        await self._client.aclose(close_connection_pool=True)

    def _key(self, key: str) -> bytes:
        return self._prefix + key.encode("utf-8", "surrogatepass")

    async def _ask(self, *command: bytes | str) -> Any:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await self._client.execute_command(*command)  # type: ignore[no-untyped-call]
        except ResponseError as error:
            if command[0] == "INCR" and ("not an integer" in str(error) or "overflow" in str(error)):
                message = "a value in the cache is no number that can be incremented"
                raise DataError(message, "Delete it.") from error
            raise CacheUnavailable(f"the cache at {self._shown} refuses {command[0]!r}: {error}") from error
        except (ValkeyError, OSError, TimeoutError) as error:
            why = str(error) or f"no answer within {TIMEOUT_S} s"
            raise CacheUnavailable(f"the cache at {self._shown} is away: {why}") from error
        except SsmdError as error:  # of the stores of keys, asked for a new connection's password
            raise CacheUnavailable(f"no credentials for the cache at {self._shown}: {error.message}") from error


def client_of(config: kinds.RedisCache, secrets: Secrets, timeout_s: float) -> Valkey:
    """A client that has not connected yet. ConfigError for what is no address."""
    url = secrets.text(config.url)
    credentials: dict[str, Any] = {}
    if config.credentials and secrets.fields(config.credentials):
        reference = config.credentials
        credentials["credential_provider"] = _Credentials(lambda: secrets.fields(reference))
        url = _without_user(url)
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=config.max_connections,
            timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            socket_timeout=timeout_s,
            **credentials,
        )
    except ValueError:  # its text may quote the URL, and with it a password
        message = f"the cache's address {shown(config.url)} is not a Redis URL"
        raise ConfigError(message, "Write redis://host:port") from None
    return Valkey.from_pool(pool)


def shown(url: str) -> str:
    """The address as the environment file writes it, without a password that may stand in it."""
    scheme, slashes, rest = url.partition("://")
    return f"{scheme}{slashes}{rest.rpartition('@')[2]}" if slashes else url


class _Credentials(CredentialProvider):
    """User and password as they are now."""

    def __init__(self, fields: Callable[[], Any]) -> None:
        self._fields = fields

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """What AUTH is told."""
        fields = self._fields()
        user, password = fields.get("username"), fields.get("password", "")
        return (user, password) if user else (password,)


def _ending(ttl_s: float | None) -> tuple[str, ...]:
    return () if ttl_s is None else ("PX", str(milliseconds(ttl_s)))


def _without_user(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return url  # refused where it is read
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
