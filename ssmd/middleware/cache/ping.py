"""Does the cache server of an environment answer?"""

from valkey.asyncio import Valkey
from valkey.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, ResponseError, ValkeyError

from ssmd.config import middleware as kinds
from ssmd.errors import ConfigError, Unavailable
from ssmd.middleware.factory import Secrets

_TIMEOUT_S = 3.0


class CacheUnavailable(Unavailable):
    """The cache server did not answer."""


async def ping_cache(config: kinds.Cache, secrets: Secrets) -> None:
    """Return when the cache answers; one inside the process, or none, always does.

    Raises CacheUnavailable when no server answers, ConfigError when it does not let us in.
    """
    if not isinstance(config, kinds.RedisCache):
        return
    fields = secrets.fields(config.credentials) if config.credentials else {}
    url = secrets.text(config.url)
    try:
        client = Valkey.from_url(
            url,
            username=fields.get("username"),
            password=fields.get("password"),
            socket_connect_timeout=_TIMEOUT_S,
            socket_timeout=_TIMEOUT_S,
        )
    except ValueError as error:  # its text may quote the URL, and with it a password
        raise ConfigError(
            f"the cache's address {_shown(config.url)} is not a Redis URL", "Write redis://host:port"
        ) from error
    try:
        await client.ping()
    except (AuthenticationError, AuthorizationError, NoPermissionError, ResponseError) as error:
        raise ConfigError(
            f"the cache at {_shown(config.url)} refuses the credentials: {error}",
            f"Correct the values of {config.credentials or 'spec.middleware.cache.credentials (there are none)'}.",
        ) from error
    except (ValkeyError, OSError, TimeoutError) as error:
        raise CacheUnavailable(
            f"no Redis or Valkey answers at {_shown(config.url)}: {error}",
            "start it, or correct spec.middleware.cache.url",
        ) from error
    finally:
        await client.aclose()


def _shown(url: str) -> str:
    """The address as the environment file writes it, without a password that may stand in it."""
    scheme, slashes, rest = url.partition("://")
    return f"{scheme}{slashes}{rest.rpartition('@')[2]}" if slashes else url
