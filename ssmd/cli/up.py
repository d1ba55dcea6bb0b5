"""`ssmd up`, `ssmd down`: the whole local stack."""

import os
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from cyclopts import Parameter

from ssmd.cli.opening import KeySecrets, resolver_of
from ssmd.cli.options import Chosen, EnvFile, choose
from ssmd.cli.output import talk
from ssmd.config.middleware import NatsTransport, RedisCache
from ssmd.config.paths import ssmd_home
from ssmd.config.values import is_loopback
from ssmd.errors import EXIT_DONE, ConfigError
from ssmd.local.airflow_access import USERNAME
from ssmd.local.airflow_server import DATABASE, AirflowServer, address_of, require_installed
from ssmd.local.demo_key import DemoKey
from ssmd.local.home import Home
from ssmd.local.plan import Options, Plan, make_plan
from ssmd.local.progress import Progress
from ssmd.local.stack import Stack
from ssmd.local.teardown import down as take_down
from ssmd.local.valkey_server import CacheAccess
from ssmd.middleware.factory import nats_url
from ssmd.registry.db import parse
from ssmd.registry.neighbour import ensure_database, neighbour_urls
from ssmd.registry.postgres import prepare_database
from ssmd.resources import resource


def up(
    *,
    env: EnvFile = None,
    airflow: bool = True,
    exchange: Literal["simulated", "live"] = "simulated",
    tape: Annotated[tuple[Path, ...], Parameter(consume_multiple=True, negative=())] = (),
    objects: Annotated[tuple[Path, ...], Parameter(consume_multiple=True, negative=())] = (),
    speed: float | None = None,
    detach: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Start the servers and services of an environment on this machine, and watch them until Ctrl-C or SIGTERM.

    Parameters
    ----------
    airflow
        Also start Airflow, where the environment's spec.airflow is on this machine.
    exchange
        The exchange if the file names none in spec.endpoints: a simulated one, or the real one.
    tape
        Recorded .ndjson files that the simulated exchange plays.
    objects
        Recorded REST bodies (files or folders) that the simulated exchange lists beside its own markets.
    speed
        How fast it plays them: 1 as recorded, 0 as fast as possible.
    detach
        Return when everything is up, instead of watching.
    """
    chosen = choose(env)
    plan = plan_of(chosen, Options(exchange=exchange, tapes=tape, objects=objects, speed=speed, airflow=airflow))
    if plan.airflow:
        require_installed()
    home = Home(chosen.home)
    home.prepare()
    demo = _demo_key(home) if plan.simulator and not _has_key(chosen) else None
    stack = Stack(plan, home, Progress(), prepare_database, demo, os.environ, ensure_database)
    return stack.run(detach=detach)


def down(*, env: EnvFile = None) -> int:
    """Stop what `ssmd up` started in this SSMD_HOME, and nothing else; also when `up` itself was killed."""
    home = Home(ssmd_home(os.environ))
    if not take_down(home, Progress()):
        talk(f"nothing is running in {home.root}")
    return EXIT_DONE


def plan_of(chosen: Chosen, options: Options) -> Plan:
    """The plan for an environment, key references in its addresses resolved."""
    spec = chosen.environment.spec
    secrets = KeySecrets(resolver_of(chosen))
    database = secrets.text(spec.database_url) if spec.database_url else None
    transport = spec.middleware.transport
    broker = nats_url(transport, secrets) if isinstance(transport, NatsTransport) else None
    airflow = _airflow(chosen, secrets, database) if options.airflow else None
    cache = _cache_access(chosen, secrets)
    return make_plan(chosen.environment, chosen.file, options, database, broker, cache, airflow)


def _airflow(chosen: Chosen, secrets: KeySecrets, database: str | None) -> AirflowServer | None:
    """The Airflow that is ours to start: the one on this machine."""
    config = chosen.environment.spec.airflow
    url = secrets.text(config.url).rstrip("/") if config else ""
    if config is None or not is_loopback(urlsplit(url).hostname or ""):
        return None
    host, port = address_of(url)
    if database is None:
        message = "spec.airflow needs spec.database: Airflow keeps its own database on the same PostgreSQL"
        raise ConfigError(message, "Add spec.database.url, or run: ssmd up --no-airflow")
    # Stacks may share a PostgreSQL that is not theirs, but never an Airflow.
    alone = is_loopback(parse(database).host or "127.0.0.1")
    name = DATABASE if alone else f"{DATABASE}_{chosen.environment.name.replace('-', '_')}"
    own, own_async = neighbour_urls(database, name)
    return AirflowServer(
        url=url,
        host=host,
        port=port,
        parallelism=config.parallelism,
        database=name,
        database_url=own,
        async_database_url=own_async,
        dags=resource("dags").absolute(),
        login=_airflow_login(config.credentials, secrets) if config.credentials else None,
        webhook=secrets.text(config.webhook) if config.webhook else None,
    )


def _airflow_login(reference: str, secrets: KeySecrets) -> tuple[str, str]:
    fields = secrets.fields(reference)
    username, password = fields.get("username", USERNAME), fields.get("password", "")
    if not password or not username or set(username) & set(":, \n"):
        message = f"the key {reference} of spec.airflow.credentials has no user and password that Airflow can use"
        raise ConfigError(message, "It needs the fields username (no colon, comma or blank) and password.")
    return username, password


def _cache_access(chosen: Chosen, secrets: KeySecrets) -> CacheAccess | None:
    config = chosen.environment.spec.middleware.cache
    if not isinstance(config, RedisCache):
        return None
    fields = secrets.fields(config.credentials) if config.credentials else {}
    return CacheAccess(secrets.text(config.url), fields.get("username"), fields.get("password"))


def _has_key(chosen: Chosen) -> bool:
    """Has the operator set a key of the feed? Then that one signs, for the simulated exchange, too."""
    return resolver_of(chosen).find(chosen.environment.spec.feed, "api_key") is not None


def _demo_key(home: Home) -> DemoKey:
    from ssmd.simulator.keys import make_key_pair

    return DemoKey(*make_key_pair(home.keys))
