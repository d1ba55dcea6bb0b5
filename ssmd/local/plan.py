"""What `ssmd up` will start for an environment, decided before anything is started; pure but for free ports."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec

from ssmd.config.environment import Environment
from ssmd.config.middleware import LocalStorage, MemoryStorage, MemoryTransport
from ssmd.config.values import is_loopback, masked
from ssmd.errors import ConfigError
from ssmd.local import airflow_server, valkey_server
from ssmd.local.airflow_server import AirflowServer
from ssmd.local.demo_key import DemoKey
from ssmd.local.home import Home
from ssmd.local.nats_server import find_server
from ssmd.local.ports import Listener, free_port
from ssmd.local.postgres import STOP_SIGNAL, PostgresServer
from ssmd.local.supervisord import Program, is_secret
from ssmd.local.valkey_server import CacheAccess, CacheServer, server_of
from ssmd.registry import db

SERVICES = ("connector", "archiver", "gateway")
SPARE = "connector-b"
"""The second place for a connector: the next day's runs in it beside the present one, started by `ssmd ops`."""

STOP_ORDER = (*airflow_server.PROGRAMS, SPARE, *SERVICES, "simulator", "valkey", "nats", "postgres")
"""What gives orders first, then sources of data: each stage empties into the next one, which must still be there."""

KEY_PREFIX = "SSMD_KEY_"
_CACHE_SETTING = "spec.middleware.cache.url"


class Options(msgspec.Struct, frozen=True):
    """What the operator asked for. `speed`, `tapes` and `objects` are for the simulated exchange."""

    exchange: Literal["simulated", "live"] = "simulated"
    tapes: tuple[Path, ...] = ()
    objects: tuple[Path, ...] = ()
    speed: float | None = None
    airflow: bool = True


class Address(NamedTuple):
    """Where a server is."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Servers to start (None: not ours to start), servers only to check, and how to reach the exchange."""

    environment: Environment
    file: Path
    postgres: Address | None
    postgres_password: str | None
    database_url: str | None
    nats: Address | None
    valkey: CacheServer | None = None
    airflow: AirflowServer | None = None
    simulator: Address | None
    options: Options
    external: tuple[Listener, ...]

    @property
    def feed(self) -> str:
        """The feed's name."""
        return self.environment.spec.feed

    @property
    def gateway(self) -> Address:
        """Where the gateway listens."""
        gateway = self.environment.spec.gateway
        return Address(gateway.host, gateway.port)

    @property
    def endpoints(self) -> tuple[str, str] | None:
        """(WebSocket, REST) of the exchange when the registry's are not meant."""
        if self.simulator:
            return f"ws://{self.simulator}/trade-api/ws/v2", f"http://{self.simulator}/trade-api/v2"
        chosen = self.environment.spec.endpoints
        return (chosen.ws, chosen.rest) if chosen else None

    @property
    def exchange(self) -> str:
        """The exchange, for people."""
        if self.simulator:
            what = f"tape {', '.join(tape.name for tape in self.options.tapes)}" if self.options.tapes else "generator"
            return f"simulated exchange ({what})"
        return masked(self.endpoints[0]) if self.endpoints else f"the real {self.feed}"

    @property
    def listeners(self) -> list[Listener]:
        """All addresses that must be free."""
        wanted = [
            ("postgres", self.postgres, "spec.database.url"),
            ("nats", self.nats, "spec.middleware.transport.url"),
            ("valkey", self.valkey and Address(self.valkey.host, self.valkey.port), _CACHE_SETTING),
            ("gateway", self.gateway, "spec.gateway.port"),
            ("airflow", self.airflow and Address(self.airflow.host, self.airflow.port), airflow_server.SETTING),
        ]
        return [Listener(name, *address, setting) for name, address, setting in wanted if address]

    @property
    def urls(self) -> dict[str, str]:
        """What a person opens next."""
        host = "127.0.0.1" if self.gateway.host in ("0.0.0.0", "::") else self.gateway.host  # noqa: S104 compared only
        here = Address(host, self.gateway.port)
        s = "s" if self.environment.spec.gateway.tls else ""
        web, stream = f"http{s}://{here}", f"ws{s}://{here}/v1/stream?symbols=*"
        return {"status": f"{web}/status", "stream": stream, "health": f"{web}/v1/health"}


def make_plan(
    environment: Environment,
    file: Path,
    options: Options,
    database_url: str | None,
    nats_url: str | None,
    cache: CacheAccess | None = None,
    airflow: AirflowServer | None = None,
) -> Plan:
    """The plan for an environment; its addresses are those of the file, key references resolved.

    Raises ConfigError for what cannot work as processes on this machine.
    """
    spec = environment.spec
    _refuse_memory(environment)
    server = db.parse(database_url) if database_url else None
    database = Address(server.host or "127.0.0.1", server.port or 5432) if server else None
    broker = _broker_address(nats_url)
    valkey = server_of(cache) if cache else None
    simulated = spec.endpoints is None and options.exchange == "simulated"
    _refuse_options(options, spec.feed, simulated=simulated)
    external = [
        Listener(name, *address, setting)
        for name, address, setting in (
            ("postgres", database, "spec.database.url"),
            ("nats", broker, "spec.middleware.transport.url"),
        )
        if address and not is_loopback(address.host)
    ]
    own_valkey = valkey if valkey and not valkey.tls and is_loopback(valkey.host) else None
    if valkey and own_valkey is None:
        external.append(Listener("valkey", valkey.host, valkey.port, _CACHE_SETTING))
    own_database = database if database and is_loopback(database.host) else None
    return Plan(
        environment=environment,
        file=file.absolute(),
        postgres=own_database,
        postgres_password=server.password if server and own_database else None,
        database_url=database_url,
        nats=broker if broker and is_loopback(broker.host) else None,
        valkey=own_valkey,
        airflow=airflow,
        simulator=Address("127.0.0.1", free_port()) if simulated else None,
        options=options,
        external=tuple(external),
    )


def _refuse_options(options: Options, feed: str, *, simulated: bool) -> None:
    if simulated and feed != "kalshi":
        raise ConfigError(
            f"there is no simulated exchange for the feed {feed!r}",
            "Run: ssmd up --exchange live, or feed: kalshi",
        )
    for option, given in (("--tape", options.tapes), ("--objects", options.objects)):
        if given and not simulated:
            raise ConfigError(
                f"{option} is for the simulated exchange, and this environment uses another one",
                f"Remove spec.endpoints or --exchange live, or leave {option} away.",
            )
    for tape in options.tapes:
        if not tape.is_file():
            raise ConfigError(f"tape {tape} does not exist", "Give the path of a recorded .ndjson file.")
    for path in options.objects:
        if not path.exists():
            raise ConfigError(f"{path} does not exist", "Give files or folders of recorded REST bodies (.json, .gz).")


def programs(
    plan: Plan, home: Home, server: PostgresServer | None, variables: Mapping[str, str], demo: DemoKey | None
) -> list[Program]:
    """The programs in the order of their start; `server` is prepared, `variables` is the environment of the stack."""
    secrets = sorted(filter(is_secret, variables))
    alerts = [name for name in secrets if name == airflow_server.WEBHOOK]
    prefix = f"{KEY_PREFIX}{plan.feed.upper().replace('-', '_')}_"
    others = [name for name in secrets if name.startswith(prefix)] + alerts
    found: list[Program] = []
    if server is not None:
        found.append(
            Program(
                name="postgres", command=server.command(), user=server.user(), folder="/", stop_signal=STOP_SIGNAL,
                settle_s=1, hidden=secrets,
            )
        )  # fmt: skip
    if plan.nats:
        command = [str(find_server()), "-c", str(home.run / "nats.conf")]
        found.append(Program(name="nats", command=command, settle_s=1, hidden=secrets))
    if plan.valkey:
        command = [str(valkey_server.find_server()), str(home.run / "valkey.conf")]
        found.append(Program(name="valkey", command=command, settle_s=1, hidden=secrets))
    if plan.simulator:
        found.append(Program(name="simulator", command=_simulator(plan, variables, demo), hidden=secrets))
    for name in SERVICES:
        command = [sys.executable, "-m", "ssmd", "run", name, "--env", str(plan.file)]
        if name == "connector" and plan.endpoints:
            command += ["--ws", plan.endpoints[0], "--rest", plan.endpoints[1]]
        found.append(Program(name=name, command=command, hidden=alerts if name == "connector" else others))
        if name == "connector":
            found.append(Program(name=SPARE, command=[*command, "--name", "b"], hidden=alerts))
    if plan.airflow:
        found += airflow_server.programs(plan.airflow, home, plan.file, variables)
    return found


def service_of(program: str) -> str:
    """The service that a program runs."""
    return "connector" if program == SPARE else program


def stop_order(names: Sequence[str]) -> list[str]:
    """`names` in the order in which they must stop; strangers first."""
    return [name for name in names if name not in STOP_ORDER] + [name for name in STOP_ORDER if name in names]


def _simulator(plan: Plan, variables: Mapping[str, str], demo: DemoKey | None) -> list[str]:
    assert plan.simulator is not None
    command = [sys.executable, "-m", "ssmd", "simulate", "--host", plan.simulator.host]
    command += ["--port", str(plan.simulator.port)]
    if demo and demo.is_used_by(variables):
        command += ["--key-id", demo.key_id, "--public-key", str(demo.public)]
    for tape in plan.options.tapes:
        command += ["--tape", str(tape.absolute())]
    for path in plan.options.objects:
        command += ["--objects", str(path.absolute())]
    if plan.options.speed is not None:
        command += ["--speed", str(plan.options.speed)]
    return command


def _broker_address(url: str | None) -> Address | None:
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        return Address(parts.hostname or "127.0.0.1", parts.port or 4222)
    except ValueError:  # its text may quote the password
        raise ConfigError(
            "the URL of spec.middleware.transport is not a URL",
            "Write nats://host:port; percent-encode what stands in user and password (%40 for @, %2F for /).",
        ) from None


def _refuse_memory(environment: Environment) -> None:
    middleware = environment.spec.middleware
    for what, section in (("transport", middleware.transport), ("storage", middleware.storage)):
        if isinstance(section, MemoryTransport | MemoryStorage):
            better = "nats" if what == "transport" else "local"
            raise ConfigError(
                f"spec.middleware.{what} is in memory, which the processes of `ssmd up` cannot share",
                f"Write type: {better} there.",
            )


def storage_folder(plan: Plan, home: Home) -> Path | None:
    """The folder of a local storage; None when the storage is elsewhere."""
    storage = plan.environment.spec.middleware.storage
    return home.root / storage.path if isinstance(storage, LocalStorage) else None
