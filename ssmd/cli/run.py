"""`ssmd run`: one service in the foreground, put together from the environment; SIGTERM drains it."""

from contextlib import AsyncExitStack
from typing import Annotated

from cyclopts import App, Parameter

from ssmd.cli.opening import Opener
from ssmd.cli.options import Chosen, EnvFile, choose
from ssmd.runtime import OpenService, Service, run_service
from ssmd.telemetry import configure_logging

app = App(name="run", help="Run one service in the foreground; SIGTERM drains it. Logs are JSON lines on stdout.")

AdminPort = Annotated[int | None, Parameter(help="Port of /metrics and /health; default: the environment's, or free.")]


@app.command
def connector(
    *, env: EnvFile = None, ws: str | None = None, rest: str | None = None, admin_port: AdminPort = None
) -> int:
    """Capture the feed: every frame into the raw archive, every event into the stream.

    Parameters
    ----------
    ws
        WebSocket address of the exchange, instead of spec.endpoints and the registry.
    rest
        REST address of the exchange, instead of spec.endpoints and the registry.
    """
    chosen = choose(env)

    async def open_service(stack: AsyncExitStack) -> Service:
        from ssmd.cli.exchange import open_connector

        return await open_connector(Opener(chosen, stack), ws, rest)

    return _serve("connector", chosen, open_service, admin_port or chosen.environment.spec.connector.metrics_port)


@app.command
def archiver(*, env: EnvFile = None, admin_port: AdminPort = None) -> int:
    """Archive the stream as normalized segments, with their inventory."""
    chosen = choose(env)
    settings = chosen.environment.spec.archiver

    async def open_service(stack: AsyncExitStack) -> Service:
        from ssmd.archiver import Archiver

        opener = Opener(chosen, stack)
        bucket = chosen.environment.spec.middleware.storage.buckets.normalized
        return Archiver(
            chosen.environment.spec.feed, opener.transport(), opener.storage(), bucket, opener.registry(),
            seal_s=settings.seal_s, seal_mb=settings.seal_mb,
        )  # fmt: skip

    return _serve("archiver", chosen, open_service, admin_port or settings.metrics_port)


@app.command
def gateway(*, env: EnvFile = None, admin_port: AdminPort = None) -> int:
    """Serve live data to WebSocket and HTTP clients."""
    chosen = choose(env)
    settings = chosen.environment.spec.gateway

    async def open_service(stack: AsyncExitStack) -> Service:
        from ssmd.gateway.service import Gateway

        opener = Opener(chosen, stack)
        return Gateway(
            chosen.environment.spec.feed, opener.transport(), opener.registry(), settings.host, settings.port,
            max_clients=settings.max_clients, buffer_bytes=settings.buffer_mb << 20,
        )  # fmt: skip

    return _serve("gateway", chosen, open_service, admin_port or settings.metrics_port)


def _serve(name: str, chosen: Chosen, open_service: OpenService, port: int | None) -> int:
    configure_logging(name)
    return run_service(name, open_service, chosen.home, chosen.environment.spec.gateway.host, port or 0)
