"""The gateway's port: who may connect at all, for how long silence is borne, and what is said to what is no HTTP."""

import asyncio
import errno
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from ipaddress import ip_address

from aiohttp import hdrs, web
from aiohttp.web_protocol import RequestHandler

from ssmd.config.environment import Gateway as Settings
from ssmd.errors import ConfigError
from ssmd.gateway.limiting import neighbourhood
from ssmd.gateway.problems import problem
from ssmd.telemetry import GATEWAY_DISCONNECTIONS, GATEWAY_REFUSED

HANDSHAKE_S = 10.0
TLS_HANDSHAKE_S = 5.0
KEEP_ALIVE_S = 75.0
BACKLOG = 1_024
MORE_CONNECTIONS = 1_000
"""Connections beyond the WebSocket clients, for requests and for whoever is on the way in or out."""


class Visitor(RequestHandler):
    """aiohttp's side of one connection; what is no HTTP gets a problem that repeats nothing of it, nor does the log."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to a request that could not be read."""
        if status >= 500:  # one of ours, that no middleware caught
            return super().handle_error(request, status, exc, message)
        GATEWAY_REFUSED.labels("not_http").inc()
        response = problem(
            400, "Bad Request", "this is not HTTP/1.1 as the gateway reads it, or a line or header is too long",
            code="not_http", next="Lines and headers may have 8,190 bytes. Is it https:// where http:// is meant?",
        )  # fmt: skip
        response.headers[hdrs.SERVER] = "ssmd"
        response.force_close()
        return response


class Port(web.SockSite):
    """The site: every connection is a `Visitor`, and a TLS handshake must not take long."""

    def __init__(self, runner: web.AppRunner, listener: socket.socket, context: ssl.SSLContext | None) -> None:
        super().__init__(runner, listener, ssl_context=context, backlog=BACKLOG)
        self._listener = listener

    async def start(self) -> None:
        """Open for connections."""
        await web.BaseSite.start(self)
        server = self._runner.server
        assert isinstance(server, web.Server)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Visitor(server, loop=loop, **server._kwargs),  # as its own call does
            sock=self._listener, ssl=self._ssl_context, backlog=BACKLOG,
            ssl_handshake_timeout=TLS_HANDSHAKE_S if self._ssl_context else None,
        )  # fmt: skip


class Threshold:
    """Cuts connections that are too many, or never finish a first request: aiohttp would wait for them for ever."""

    def __init__(self, settings: Settings) -> None:
        self._greeted: set[object] = set()
        self._arrived: dict[object, float] = {}
        self._most = settings.max_clients + MORE_CONNECTIONS
        self._most_of_one = settings.limits.clients_per_address + MORE_CONNECTIONS // 4

    @web.middleware
    async def greet(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """It asked for something."""
        self._greeted.add(request.protocol)
        return await handler(request)

    def cut(self, runner: web.AppRunner, now: float) -> None:
        """Call a few times a second."""
        server = runner.server
        connections = server.connections if server is not None else []
        self._greeted.intersection_update(connections)
        self._arrived = {c: self._arrived.get(c, now) for c in connections if c not in self._greeted}
        for connection, arrived in self._arrived.items():
            if now - arrived > HANDSHAKE_S and _abort(connection):
                GATEWAY_DISCONNECTIONS.labels("no_request").inc()
        # The ones that came first stay: the order is that of arrival.
        here: Counter[str] = Counter()
        for count, connection in enumerate(connections):
            peer = connection.peername
            address = neighbourhood(peer[0] if isinstance(peer, tuple) else "")
            here[address] += 1
            if (count >= self._most or here[address] > self._most_of_one) and _abort(connection):
                GATEWAY_REFUSED.labels("too_many_connections").inc()


def _abort(connection: object) -> bool:
    transport = getattr(connection, "transport", None)
    if transport is not None:
        transport.abort()
    return transport is not None


def listen(host: str, port: int, *, only_here: bool) -> socket.socket:
    """The gateway's socket. ConfigError when the port is taken, or the address is not this machine's.

    `only_here`: nobody is asked for a key, so an address that others reach is refused, whatever its name promised.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        what = "the port is taken" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
        hint = "Set another spec.gateway.host or spec.gateway.port, or stop the process that listens there."
        raise ConfigError(f"gateway cannot listen on {host}:{port}: {what}", hint) from error
    address = listener.getsockname()[0]
    if only_here and not ip_address(address.partition("%")[0]).is_loopback:
        listener.close()
        raise ConfigError(
            f"gateway would let everyone who reaches {address} ({host}) in without a key",
            "Write spec.gateway.auth: keys, or host: 127.0.0.1.",
        )
    return listener
