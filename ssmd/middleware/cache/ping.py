"""Does the cache server of an environment answer?"""

from valkey.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, ResponseError, ValkeyError

from ssmd.config import middleware as kinds
from ssmd.errors import ConfigError
from ssmd.middleware.cache.interface import CacheUnavailable
from ssmd.middleware.cache.redis import client_of, shown
from ssmd.middleware.secrets import Secrets

_TIMEOUT_S = 3.0


async def ping_cache(config: kinds.Cache, secrets: Secrets) -> None:
    """Return when the cache answers; one inside the process, or none, always does.

    Raises CacheUnavailable when no server answers, ConfigError when it does not let us in.
    """
    if not isinstance(config, kinds.RedisCache):
        return
    client = client_of(config, secrets, _TIMEOUT_S)
    try:
        await client.ping()
    except (AuthenticationError, AuthorizationError, NoPermissionError, ResponseError) as error:
        raise ConfigError(
            f"the cache at {shown(config.url)} refuses the credentials: {error}",
            f"Correct the values of {config.credentials or 'spec.middleware.cache.credentials (there are none)'}.",
        ) from error
    except (ValkeyError, OSError, TimeoutError) as error:
        raise CacheUnavailable(
            f"no Redis or Valkey answers at {shown(config.url)}: {error}",
            "start it, or correct spec.middleware.cache.url",
        ) from error
    finally:
        await client.aclose(close_connection_pool=True)
