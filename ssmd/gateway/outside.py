"""What a gateway is given: the opened servers that it talks to."""

from dataclasses import dataclass

from ssmd.middleware.cache.interface import Cache
from ssmd.middleware.storage.interface import Storage
from ssmd.middleware.transport.interface import Transport
from ssmd.registry.database import Database
from ssmd.registry.interface import Registry


@dataclass(frozen=True)
class Outside:
    """The servers of one environment, and its name. None: the environment has none, and what needs it says so."""

    transport: Transport
    registry: Registry
    storage: Storage | None = None
    database: Database | None = None
    cache: Cache | None = None
    normalized_bucket: str = "ssmd-normalized"
    raw_bucket: str = "ssmd-raw"
    reports_bucket: str = "ssmd-reports"
    environment: str = ""
