"""`ssmd run`: one service in the foreground, put together from the environment; SIGTERM drains it."""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Annotated

from cyclopts import App, Parameter

from ssmd.cli.opening import Opener
from ssmd.cli.options import Chosen, EnvFile, choose
from ssmd.errors import ConfigError, Unavailable
from ssmd.registry.interface import Registry
from ssmd.runtime import Service, run_service
from ssmd.telemetry import configure_logging

app = App(name="run", help="Run one service in the foreground; SIGTERM drains it. Logs are JSON lines on stdout.")

AdminPort = Annotated[int | None, Parameter(help="Port of /metrics and /health; default: the environment's, or free.")]


@app.command
def connector(
    *,
    env: EnvFile = None,
    name: str = "",
    ws: str | None = None,
    rest: str | None = None,
    admin_port: AdminPort = None,
) -> int:
    """Capture the feed: every frame into the raw archive, every event into the stream.

    A second connector of the feed on this machine (with another name) stands by: it captures to the raw archive as
    well, and publishes from the moment on when the first one ends.

    Parameters
    ----------
    name
        Name of a second connector (lower-case letters and digits): it has a spool folder and raw objects of its own.
    ws
        WebSocket address of the exchange, instead of spec.endpoints and the registry.
    rest
        REST address of the exchange, instead of spec.endpoints and the registry.
    """
    chosen = choose(env)

    async def open_service(opener: Opener) -> Service:
        from ssmd.cli.exchange import open_connector

        return await open_connector(opener, ws, rest, name)

    _check_name(name)
    port = admin_port or (None if name else chosen.environment.spec.connector.metrics_port)
    return _serve("connector", chosen, open_service, port, name)


@app.command
def archiver(*, env: EnvFile = None, admin_port: AdminPort = None) -> int:
    """Archive the stream as normalized segments, with their inventory."""
    chosen = choose(env)
    settings = chosen.environment.spec.archiver

    async def open_service(opener: Opener) -> Service:
        from ssmd.archiver import Archiver

        bucket = chosen.environment.spec.middleware.storage.buckets.normalized
        registry = await _willing_registry(opener)
        return Archiver(
            chosen.environment.spec.feed, opener.transport(), opener.storage(), bucket, registry,
            seal_s=settings.seal_s, seal_mb=settings.seal_mb,
        )  # fmt: skip

    return _serve("archiver", chosen, open_service, admin_port or settings.metrics_port)


@app.command
def gateway(*, env: EnvFile = None, admin_port: AdminPort = None) -> int:
    """Serve live data to WebSocket and HTTP clients."""
    chosen = choose(env)
    settings = chosen.environment.spec.gateway

    async def open_service(opener: Opener) -> Service:
        from ssmd.gateway.outside import Outside
        from ssmd.gateway.service import Gateway

        registry = await _willing_registry(opener)
        buckets = chosen.environment.spec.middleware.storage.buckets
        outside = Outside(
            opener.transport(), registry, opener.storage(), opener.database(), opener.cache(),
            buckets.normalized, buckets.raw, buckets.reports, chosen.environment.name,
        )  # fmt: skip
        return Gateway(chosen.environment.spec.feed, outside, settings, home=chosen.home)

    return _serve("gateway", chosen, open_service, admin_port or settings.metrics_port)


async def _willing_registry(opener: Opener) -> Registry:
    """The registry of a service that nothing depends on; ConfigError when it refuses us already at the start.

    One that is away is waited for, and one that refuses us later, too. The connector captures in any case.
    """
    registry = opener.registry()
    with contextlib.suppress(Unavailable):
        await asyncio.to_thread(registry.ping)
    return registry


def _check_name(name: str) -> None:
    if name and not re.fullmatch(r"[a-z0-9]{1,32}", name):
        shown = ascii(name[:40])
        raise ConfigError(
            f"--name {shown} is no name for a connector: at most 32 lower-case letters and digits", "Use --name b"
        )


def _serve(
    name: str,
    chosen: Chosen,
    open_service: Callable[[Opener], Awaitable[Service]],
    port: int | None,
    twin: str = "",
) -> int:
    """Run the service `name`; `twin` tells it apart from another one of its kind."""
    full_name = f"{name}-{twin}" if twin else name
    configure_logging(full_name)

    async def open_watched(stack: AsyncExitStack) -> Service:
        from ssmd.cli.key_watch import check_service_keys, key_watch

        watch = key_watch(name, chosen)
        opener = Opener(chosen, stack, watch.accessed)
        check_service_keys(name, opener)  # before anything is opened
        watch.start()
        stack.push_async_callback(asyncio.to_thread, watch.close)
        return await open_service(opener)

    return run_service(full_name, open_watched, chosen.home, chosen.environment.spec.gateway.host, port or 0)
