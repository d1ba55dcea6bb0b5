"""`spec.middleware`: broker, storage, cache and journal of an environment; one class per kind, told apart by `type`."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from ssmd.config.values import Bucket, Credentials, FilePath, HttpUrl, NatsUrl, RedisUrl, Section

_SUBJECT = r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$"


class JetStream(Section):
    """Limits of the feed's stream `ssmd-{feed}`."""

    enabled: Literal[True] = True
    """JetStream is what makes publishing safe; it cannot be switched off."""
    domain: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]{1,64}$")
    """JetStream domain of a leaf node; none by default."""
    max_mb: int = Field(default=10_240, ge=1, le=10_000_000)
    """Megabytes kept in the stream; the oldest messages go first. The raw archive has them all anyway."""
    max_age_s: int = Field(default=86_400, ge=60, le=31_536_000)
    """Seconds a message stays in the stream; one day as in the design."""
    duplicate_window_s: int = Field(default=120, ge=1, le=86_400)
    """Seconds in which a message id published twice is stored once."""
    replicas: int = Field(default=1, ge=1, le=5)
    """Copies in a NATS cluster; 1 for a single server."""


class NatsTransport(Section):
    """A NATS server with JetStream."""

    type: Literal["nats"]
    url: NatsUrl
    """`nats://host:port`, `tls://host:port`, or `$key:name` with a field `url`."""
    credentials: Credentials | None = None
    """`$key:name` of a key with `username` and `password` (and `tls_cert`, `tls_key` for mutual TLS)."""
    jetstream: JetStream = JetStream()
    """Limits of the stream."""


class MemoryTransport(Section):
    """A broker inside the process, for tests and for one service alone."""

    type: Literal["memory"]


class Buckets(Section):
    """The two archives, and what reviewers read about them."""

    raw: Bucket = "ssmd-raw"
    """Frames as received."""
    normalized: Bucket = "ssmd-normalized"
    """Cap'n Proto and Parquet, made from raw."""
    reports: Bucket = "ssmd-reports"
    """Pages about the quality of each day."""


class S3Storage(Section):
    """An S3 bucket or a compatible server (Garage, SeaweedFS, MinIO)."""

    type: Literal["s3"]
    endpoint: HttpUrl | None = None
    """`https://host:port`; none means AWS."""
    region: str = Field(default="us-east-1", pattern=r"^[a-zA-Z0-9-]{1,64}$")
    """Region of the buckets; Garage wants `garage`."""
    credentials: Credentials | None = None
    """`$key:name` of a key with `access_key` and `secret_key`; none means the machine's own role."""
    path_style: bool = True
    """Address buckets as `endpoint/bucket` (true: what self-hosted servers want) or `bucket.endpoint`."""
    buckets: Buckets = Buckets()
    """Names of the buckets; they must exist."""


class LocalStorage(Section):
    """Files under `{path}/{bucket}/{key}`."""

    type: Literal["local"]
    path: FilePath
    """Folder; a relative path is meant below SSMD_HOME."""
    buckets: Buckets = Buckets()
    """Names of the folders below `path`."""


class MemoryStorage(Section):
    """Objects inside the process, for tests."""

    type: Literal["memory"]
    buckets: Buckets = Buckets()
    """Names of the buckets."""


class RedisCache(Section):
    """A Redis or Valkey server."""

    type: Literal["redis"]
    url: RedisUrl
    """`redis://host:port`, `rediss://` for TLS, or `$key:name` with a field `url`."""
    credentials: Credentials | None = None
    """`$key:name` of a key with `username` and `password`."""
    max_connections: int = Field(default=10, ge=1, le=1_000)
    """Connections per process."""


class MemoryCache(Section):
    """A cache in each process."""

    type: Literal["memory"]
    max_mb: int = Field(default=100, ge=1, le=100_000)
    """Megabytes before the least recently used entry goes."""


class NoCache(Section):
    """Nothing is cached."""

    type: Literal["none"]


class Topics(Section):
    """Subjects of the journal."""

    secmaster: str = Field(default="ssmd.journal.secmaster", pattern=_SUBJECT)
    """Changes of markets."""
    audit: str = Field(default="ssmd.journal.audit", pattern=_SUBJECT)
    """Who did what."""
    deployments: str = Field(default="ssmd.journal.deployments", pattern=_SUBJECT)
    """Environments applied."""


class NatsJournal(Section):
    """A journal in a JetStream stream."""

    type: Literal["nats"]
    url: NatsUrl
    """`nats://host:port`, or `$key:name` with a field `url`; usually the transport's."""
    credentials: Credentials | None = None
    """`$key:name` of a key with `username` and `password`."""
    topics: Topics = Topics()
    """Subjects of the journal."""


class FileJournal(Section):
    """A journal in files, one JSON line per entry."""

    type: Literal["file"]
    path: FilePath
    """Folder; a relative path is meant below SSMD_HOME."""
    topics: Topics = Topics()
    """Names of the topics."""


class MemoryJournal(Section):
    """A journal that ends with the process, for tests."""

    type: Literal["memory"]
    topics: Topics = Topics()
    """Names of the topics."""


Transport: TypeAlias = Annotated[NatsTransport | MemoryTransport, Field(discriminator="type")]
Storage: TypeAlias = Annotated[S3Storage | LocalStorage | MemoryStorage, Field(discriminator="type")]
Cache: TypeAlias = Annotated[RedisCache | MemoryCache | NoCache, Field(discriminator="type")]
Journal: TypeAlias = Annotated[NatsJournal | FileJournal | MemoryJournal, Field(discriminator="type")]


class Middleware(Section):
    """The servers and folders that services use."""

    transport: Transport
    """The message broker: `nats` or `memory`."""
    storage: Storage
    """The archive: `s3`, `local` or `memory`."""
    cache: Cache = NoCache(type="none")
    """The cache: `redis`, `memory` or `none`."""
    journal: Journal = MemoryJournal(type="memory")
    """The journal of changes: `nats`, `file` or `memory`."""
