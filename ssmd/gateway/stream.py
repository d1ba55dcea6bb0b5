"""`/v1/stream`: the WebSocket handshake, what clients ask for, and how connections end.

aiohttp does the handshake, reads, answers pings and closes. Data frames are written to the transport directly: server
frames are not masked, so one frame's bytes serve all clients.
"""

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from itertools import count

import msgspec
from aiohttp import WebSocketError, WSMsgType, web

from ssmd.clock import now_ns
from ssmd.gateway.actions import Actions
from ssmd.gateway.caller import CALLER
from ssmd.gateway.catalogue import Catalogue
from ssmd.gateway.client import Client
from ssmd.gateway.connection import CLOSE_MOST_S, Connection, Socket
from ssmd.gateway.doors import Doors, Seat
from ssmd.gateway.hub import Hub
from ssmd.gateway.problems import problem
from ssmd.gateway.waiting import Bounds
from ssmd.service_state import Farewell
from ssmd.telemetry import GATEWAY_CLIENT_GAUGES, GATEWAY_CLIENTS, GATEWAY_DISCONNECTIONS
from ssmd.wire import client as wire
from ssmd.wire.requests import MAX_REQUEST_BYTES, Request, RequestError, parse_request

MAX_CLIENTS = 1_000
HANDSHAKE_S = 10.0
SUBSCRIBE_WITHIN_S = 30.0
PING_S = 20.0
REQUESTS_PER_S = 50
IN_URL = ("symbols", "channels", "mode", "interval_ms", "from_seq")
WHOLE_DIGITS = 20
FAREWELL = Farewell("the gateway stops; connect again in a moment", 5)
"""What clients are told at its end, unless whoever stops it knows better."""


class StreamEndpoint:
    """All WebSocket connections of the gateway."""

    def __init__(
        self,
        hub: Hub,
        catalogue: Catalogue,
        *,
        max_clients: int = MAX_CLIENTS,
        bounds: Bounds = Bounds(),  # noqa: B008  # frozen
        clock: Callable[[], int] = now_ns,
        doors: Doors,
    ) -> None:
        self.stopping = False
        self._hub = hub
        self._doors = doors
        self.actions = Actions(hub, catalogue, clock)
        self._max_clients = max_clients
        self._bounds = bounds
        self._clock = clock
        self._numbers = count(1)
        self._connections: dict[int, Connection] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        GATEWAY_CLIENT_GAUGES.follow(hub.fanout.readings)

    @property
    def clients(self) -> int:
        """Connected clients."""
        return len(self._connections)

    def states(self) -> list[str]:
        """How each of them keeps up."""
        return [connection.client.state.value for connection in self._connections.values()]

    def connected(self) -> list[Client]:
        """The clients that are not on their way out."""
        return [link.client for link in self._connections.values() if not link.client.leaving]

    def send_away(self, client: Client, code: int, reason: str) -> None:
        """End a client's connection, as an operator."""
        connection = self._connections.get(client.number)
        if connection is not None:
            connection.reason = "operator"
            client.kick(code, reason)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one client until its connection ends."""
        if self.stopping or len(self._connections) >= self._max_clients:
            full = f"{self._max_clients} clients are connected already"
            detail = "the gateway is stopping" if self.stopping else full
            return problem(503, "No more clients", detail, headers={"Retry-After": "5"})
        socket = Socket(compress=False, heartbeat=PING_S, timeout=CLOSE_MOST_S, max_msg_size=MAX_REQUEST_BYTES)
        if not socket.can_prepare(request):
            hint = "connect with a WebSocket client, for example: websocat 'ws://HOST:PORT/v1/stream?symbols=*'"
            return problem(426, "WebSocket expected", hint, headers={"Upgrade": "websocket"})
        try:
            first = _first_request(request)
        except RequestError as error:
            return problem(400, "Wrong subscription", error.message, code=error.code, next=error.next)
        with self._doors.sit(request[CALLER]) as seat:
            async with asyncio.timeout(HANDSHAKE_S):
                await socket.prepare(request)
            if await seat.identify(socket):
                await self._serve(request, socket, first, seat)
        return socket

    async def _serve(self, request: web.Request, socket: Socket, first: Request | None, seat: Seat) -> None:
        """Serve a client that is known."""
        transport = request.transport
        if transport is None:
            return  # the client left during the handshake
        connection = Connection(
            next(self._numbers), socket, transport, self._hub.fanout, self._bounds, self._clock,
            address=seat.caller.address, key_name=seat.caller.name,
        )  # fmt: skip
        seat.on_end(partial(_end, connection))
        self._connections[connection.client.number] = connection
        self._empty.clear()
        GATEWAY_CLIENTS.set(len(self._connections))
        self._hub.fanout.join(connection.client)
        try:
            if first is not None:
                await self.actions.begin(connection.client, first)
            await self._read(connection, seat)
            await connection.closed()
        finally:
            self._hub.fanout.leave(connection.client)
            del self._connections[connection.client.number]
            if not self._connections:
                self._empty.set()
            GATEWAY_CLIENTS.set(len(self._connections))
            GATEWAY_DISCONNECTIONS.labels(connection.reason).inc()

    def watch(self, now: float) -> None:
        """Call about once a second: connections that were closed but do not go away are cut."""
        for connection in list(self._connections.values()):
            if not (connection.socket.closed or connection.client.leaving):
                continue
            self._hub.fanout.leave(connection.client)
            if connection.overdue(now):
                connection.transport.abort()

    async def stop(self, within_s: float, farewell: Farewell = FAREWELL) -> None:
        """Tell every client why the gateway goes away, and wait for them to leave; cut who stays."""
        self.stopping = True
        goodbye = wire.system("GOING_AWAY", farewell.message, retry_after_s=farewell.retry_after_s)
        self._hub.fanout.announce(goodbye)
        for connection in self._connections.values():
            connection.reason = "shutdown"
            connection.client.kick(1001, f"going away: {farewell.message}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._empty.wait()
        for connection in list(self._connections.values()):
            connection.transport.abort()
        GATEWAY_CLIENT_GAUGES.forget(self._hub.fanout.readings)

    async def _read(self, connection: Connection, seat: Seat) -> None:
        """Follow the client's messages until the connection ends."""
        client, socket = connection.client, connection.socket
        loop = asyncio.get_running_loop()
        window, used = loop.time(), 0
        while True:
            try:
                message = await socket.receive(timeout=None if client.subscription else SUBSCRIBE_WITHIN_S)
            except TimeoutError:
                connection.reason = "idle"
                client.kick(1008, f"nothing subscribed within {SUBSCRIBE_WITHIN_S:.0f} s")
                return
            if message.type is WSMsgType.TEXT:
                await self.actions.follow(client, message.data, seat.spend)
            elif message.type is WSMsgType.BINARY:
                self._hub.fanout.answer(client, wire.error("bad_request", "send text messages, not binary ones"))
            else:
                if message.type is WSMsgType.ERROR:
                    wrong = WebSocketError in (type(message.data), type(socket.exception()))
                    connection.reason = "protocol_error" if wrong else "lost"
                return
            used += 1
            if used >= REQUESTS_PER_S:
                # Not reading is the only brake that a client cannot ignore.
                await asyncio.sleep(max(0.0, window + 1.0 - loop.time()))
                window, used = loop.time(), 0


def _end(connection: Connection, code: int, reason: str) -> None:
    """The client's key was revoked or has expired."""
    connection.reason = "key_ended"
    connection.client.kick(code, reason)


def _first_request(request: web.Request) -> Request | None:
    """What `?symbols=A,B&channels=trade&mode=conflated&interval_ms=100&from_seq=7` asks for, as if it were subscribed.

    None without symbols; RequestError for what is impossible.
    """
    fields: dict[str, object] = {"action": "subscribe"}
    for name in request.query:
        if name not in IN_URL:
            raise RequestError(
                "unknown_field", f"there is no parameter {name[:60]!a}", next=f"Use {', '.join(IN_URL)}."
            )
        texts = request.query.getall(name)
        words = [word for text in texts for part in text.split(",") if (word := part.strip())]
        if name in ("symbols", "channels"):
            fields[name] = words
        elif len(texts) > 1:
            raise RequestError("bad_request", f"{name} is given {len(texts)} times", next="Give it once.")
        else:
            fields[name] = int(texts[0]) if texts[0].isdecimal() and len(texts[0]) < WHOLE_DIGITS else texts[0]
    if not fields.get("symbols"):
        if len(fields) > 1 + ("symbols" in fields):
            raise RequestError("bad_symbols", "the parameters need symbols to belong to")
        return None
    return parse_request(msgspec.json.encode(fields))
