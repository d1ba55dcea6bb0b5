"""What an environment file says: keys first, then the feed, its day, its markets, its servers and its services."""

import hashlib
import json
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, model_validator

from ssmd.config.middleware import Middleware
from ssmd.config.values import (
    KEY_FIELD,
    KEY_NAME,
    Credentials,
    DatabaseUrl,
    FilePath,
    Host,
    HttpUrl,
    Pattern,
    Port,
    Section,
    TimeOfDay,
    TimeZone,
    WebSocketUrl,
    is_loopback,
    masked_within,
)

KeyName = Annotated[str, StringConstraints(pattern=rf"^{KEY_NAME}$")]
KeyField = Annotated[str, StringConstraints(pattern=rf"^{KEY_FIELD}$")]
Ticker = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Channel = Literal["trade", "orderbook", "ticker", "status"]


class Metadata(Section):
    """What the environment is called."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")
    """Lower-case letters, digits and `-`; names the environment in commands, logs and Kubernetes."""


class KeyDefinition(Section):
    """A secret that the environment needs: its shape, never its value."""

    type: Literal["api_key", "database", "transport", "storage", "tls", "webhook"]
    """What the key opens."""
    fields: Annotated[tuple[KeyField, ...], Field(strict=False, min_length=1, max_length=32)]
    """Names of its parts: flags of `ssmd key set`, variables `SSMD_KEY_{NAME}_{FIELD}`, files of a Secret."""
    required: bool = True
    """Whether services refuse to start without it."""
    description: str = Field(default="", max_length=1_000)
    """For people."""
    rotation_days: int | None = Field(default=None, ge=1, le=3_650)
    """Days after which the key should be replaced; none means never."""


class Endpoints(Section):
    """The exchange's addresses, in place of the feed registry's (for a demo, a test, a proxy); both or none."""

    ws: WebSocketUrl
    """WebSocket, `wss://host/path` or `ws://host:port/path`."""
    rest: HttpUrl
    """REST, up to and without the resource's path."""


class LocalRuntime(Section):
    """Processes on this machine."""

    type: Literal["local"]


class KubernetesRuntime(Section):
    """Pods in a cluster."""

    type: Literal["kubernetes"]
    namespace: str = Field(default="ssmd", pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    """Namespace of the pods and secrets."""
    image: str = Field(default="ssmd:latest", pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._/:@-]{0,254}$")
    """Container image of the services and of the jobs."""


class Schedule(Section):
    """The day of the environment."""

    timezone: TimeZone = "UTC"
    """IANA name; `startup` and `teardown` are times there. Archive days are UTC days whatever stands here."""
    startup: TimeOfDay = "00:10"
    """Time of day at which the day's connector starts."""
    teardown: TimeOfDay = "00:00"
    """Time of day at which the day before ends."""
    handover: Literal["overlap", "strict"] = "overlap"
    """`overlap`: the new day's connector has its books before the old one stops; `strict`: stop, then start."""


class Symbols(Section):
    """Which markets are captured."""

    sync: bool = True
    """Follow the exchange's list of markets, new ones included; false: only `tickers`."""
    include: Annotated[tuple[Pattern, ...], Field(strict=False, max_length=1_000)] = ()
    """Ticker patterns (`*`, `?`); empty means every market."""
    exclude: Annotated[tuple[Pattern, ...], Field(strict=False, max_length=1_000)] = ()
    """Ticker patterns to leave out; stronger than `include`, weaker than `tickers`."""
    tickers: Annotated[tuple[Ticker, ...], Field(strict=False, max_length=10_000)] = ()
    """Tickers captured in any case."""

    @model_validator(mode="after")
    def _selects_something(self) -> "Symbols":
        if not self.sync and not self.tickers:
            raise ValueError("selects nothing: give tickers or write sync: true")
        return self

    def selects(self, ticker: str) -> bool:
        """Is the market captured?"""
        if ticker in self.tickers:
            return True
        if not self.sync or any(fnmatchcase(ticker, pattern) for pattern in self.exclude):
            return False
        return not self.include or any(fnmatchcase(ticker, pattern) for pattern in self.include)


class Spool(Section):
    """The connector's write-ahead log."""

    path: FilePath = "spool"
    """Folder on a local disk; a relative path is meant below SSMD_HOME. Each connector makes its own folder in it."""
    max_mb: int = Field(default=4_096, ge=64, le=10_000_000)
    """Megabytes that may wait here while the storage is away; beyond them frames are lost, as recorded gaps."""


class Connector(Section):
    """`ssmd run connector`."""

    channels: Annotated[tuple[Channel, ...], Field(strict=False, min_length=1)] = (
        "trade",
        "orderbook",
        "ticker",
        "status",
    )
    """What is subscribed."""
    shards: int = Field(default=1, ge=1, le=1)
    """Connections that share the books; this version knows one."""
    publish_raw: bool = False
    """Also publish every frame as `{feed}.raw.{type}`."""
    seal_s: int = Field(default=300, ge=1, le=86_400)
    """Seconds after which a raw segment is sealed and stored."""
    seal_mb: int = Field(default=64, ge=1, le=4_096)
    """Megabytes (before compression) after which a raw segment is sealed and stored."""
    spool: Spool = Spool()
    """The write-ahead log."""
    metrics_port: Port | None = None
    """Port of health and metrics on 127.0.0.1; none: any free port, which the log names."""


class Archiver(Section):
    """`ssmd run archiver`."""

    seal_s: int = Field(default=300, ge=1, le=86_400)
    """Seconds after which a normalized segment is sealed and stored."""
    seal_mb: int = Field(default=64, ge=1, le=4_096)
    """Megabytes (before compression) after which a normalized segment is sealed and stored."""
    metrics_port: Port | None = None
    """Port of health and metrics on 127.0.0.1; none: any free port, which the log names."""


class Tls(Section):
    """A certificate for HTTPS and WSS."""

    cert_file: FilePath
    """PEM file with the certificate and its chain; a relative path is meant below SSMD_HOME."""
    key_file: FilePath
    """PEM file with the private key."""


class RequestLimits(Section):
    """How much one client (one API key; one address where there is no key) may ask for."""

    requests_per_minute: int = Field(default=6_000, ge=1, le=10_000_000)
    """Requests a minute."""
    requests_per_hour: int = Field(default=200_000, ge=1, le=1_000_000_000)
    """Requests an hour."""
    burst: int = Field(default=200, ge=1, le=1_000_000)
    """Requests within one second."""
    clients_per_address: int = Field(default=1_000, ge=1, le=1_000_000)
    """WebSocket clients at a time from one address, or with one key."""


class Gateway(Section):
    """`ssmd run gateway`."""

    host: Host = "127.0.0.1"
    """Address to listen on; the default is for this machine only."""
    port: Port = 8080
    """Port of the WebSocket and the REST API."""
    metrics_port: Port = Field(default_factory=lambda data: int(data["port"]) + 1)
    """Port for Prometheus; `port` + 1 unless given."""
    auth: Literal["none", "keys"] = "none"
    """`keys`: clients need an API key (`ssmd client key create`); `none`: only this machine can connect."""
    tls: Tls | None = None
    """Serve HTTPS and WSS; none: plain, for this machine or behind a proxy that does it."""
    cors_origins: Annotated[tuple[HttpUrl, ...], Field(strict=False, max_length=100)] = ()
    """Web pages (`https://host`) that browsers may let read answers; none by default."""
    buffer_mb: int = Field(default=1, ge=1, le=4_096)
    """Megabytes that may wait for one client; a client that falls further behind loses messages and is told so."""
    buffer_messages: int = Field(default=10_000, ge=10, le=10_000_000)
    """Messages that may wait for one client."""
    drop_policy: Literal["drop_oldest", "drop_newest", "disconnect"] = "drop_oldest"
    """What happens when they are too many: the oldest or the newest are left out, or the client is sent away."""
    max_clients: int = Field(default=1_000, ge=1, le=1_000_000)
    """WebSocket clients at a time; more are refused."""
    resume_s: int = Field(default=60, ge=0, le=3_600)
    """Seconds for which a client that comes back can be sent what it missed."""
    resume_mb: int = Field(default=64, ge=0, le=4_096)
    """Megabytes kept for that, of all clients together."""
    limits: RequestLimits = RequestLimits()
    """How much one client may ask for."""

    @model_validator(mode="after")
    def _ports_differ(self) -> "Gateway":
        if self.metrics_port > 65_535:
            raise ValueError("has port 65535, which leaves no port for metrics; give metrics_port")
        if self.metrics_port == self.port:
            raise ValueError(f"uses port {self.port} twice, as port and as metrics_port")
        return self

    @model_validator(mode="after")
    def _open_door_is_local(self) -> "Gateway":
        if self.auth == "none" and not is_loopback(self.host):
            raise ValueError(
                f"would let everyone who reaches {self.host} in without a key; write auth: keys, or host: 127.0.0.1"
            )
        return self


class Airflow(Section):
    """The Airflow that runs the day by the files of `dags/`."""

    url: HttpUrl = "http://127.0.0.1:18090"
    """Its web page and API; on a loopback address `ssmd up` starts it."""
    credentials: Credentials | None = None
    """`$key:name` of a key with `username` and `password`; none: those that `ssmd up` has made."""
    webhook: HttpUrl | None = None
    """Where alerts are posted as JSON: a URL, or `$key:name` of a key of type `webhook`."""
    parallelism: int = Field(default=4, ge=1, le=256)
    """Tasks that a local Airflow runs at a time."""

    @property
    def local_port(self) -> int | None:
        """The port of this machine that it takes; None when it is elsewhere, or its address names a secret."""
        parts = urlsplit(self.url)
        return (parts.port or 80) if is_loopback(parts.hostname or "") else None


class Database(Section):
    """The metadata database."""

    url: DatabaseUrl
    """`postgresql+psycopg2://user@host:port/database`, or `$key:name` of a key of type `database`."""


Runtime: TypeAlias = Annotated[LocalRuntime | KubernetesRuntime, Field(discriminator="type")]


class Spec(Section):
    """Everything an environment is; keys come first."""

    keys: dict[KeyName, KeyDefinition]
    """The secrets, by name; `{}` when there are none. Components refer to them as `$key:name` or `$key:name.field`."""
    feed: str = Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")
    """Name of the feed, as the registry knows it."""
    middleware: Middleware
    """The servers and folders that services use."""
    endpoints: Endpoints | None = None
    """The exchange's addresses; none means the registry's, for the day."""
    runtime: Runtime = LocalRuntime(type="local")
    """Where services run: `local` or `kubernetes`."""
    schedule: Schedule = Schedule()
    """The day of the environment."""
    symbols: Symbols = Symbols()
    """Which markets are captured."""
    database: Database | None = None
    """The metadata database; none: kept in memory and lost with the process."""
    connector: Connector = Connector()
    """`ssmd run connector`."""
    archiver: Archiver = Archiver()
    """`ssmd run archiver`."""
    gateway: Gateway = Gateway()
    """`ssmd run gateway`."""
    airflow: Airflow | None = None
    """Airflow; none: nothing is scheduled, and `ssmd ops` works with the local stack itself."""

    @model_validator(mode="before")
    @classmethod
    def _short_database(cls, data: Any) -> Any:
        """`database: $key:postgres` is short for `database: {url: $key:postgres}`."""
        if isinstance(data, dict) and isinstance(data.get("database"), str):
            return {**data, "database": {"url": data["database"]}}
        return data

    @model_validator(mode="after")
    def _services_have_ports_of_their_own(self) -> "Spec":
        """On one machine; pods in a cluster have an address each."""
        if not isinstance(self.runtime, LocalRuntime):
            return self
        used: dict[int, str] = {}
        problems = []
        for setting, port in (
            ("connector.metrics_port", self.connector.metrics_port),
            ("archiver.metrics_port", self.archiver.metrics_port),
            ("gateway.port", self.gateway.port),
            ("gateway.metrics_port", self.gateway.metrics_port),
            ("airflow.url", self.airflow.local_port if self.airflow else None),
        ):
            if port is not None and used.setdefault(port, setting) != setting:
                problems.append(f"uses port {port} twice, as {used[port]} and as {setting}")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def database_url(self) -> str | None:
        """URL or key reference of the database; None: the registry is kept in memory."""
        return self.database.url if self.database else None


class Environment(Section):
    """An environment file."""

    apiVersion: Literal["ssmd/v1"]
    """`ssmd/v1`."""
    kind: Literal["Environment"]
    """`Environment`."""
    metadata: Metadata
    """What the environment is called."""
    spec: Spec
    """Everything an environment is."""

    @property
    def name(self) -> str:
        """The environment's name."""
        return self.metadata.name


def environment_hash(environment: Environment) -> str:
    """sha256 of what the file says: the same for any order, comment or spelled-out default; 64 hex digits.

    Passwords in URLs are left out, so that the hash can be known without giving them away.
    """
    said = masked_within(environment.model_dump(mode="json", exclude_defaults=True))
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
