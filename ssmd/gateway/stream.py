"""`/v1/stream`: the WebSocket handshake, what clients ask for, and how connections end.

aiohttp does the handshake, reads, answers pings and closes. Data frames are written to the transport directly: server
frames are not masked, so one frame's bytes serve all clients.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from functools import partial
from itertools import count

import msgspec
from aiohttp import WebSocketError, WSMsgType, web

from ssmd.clock import NS_PER_MS, now_ns
from ssmd.gateway.caller import CALLER
from ssmd.gateway.catalogue import Catalogue
from ssmd.gateway.client import SYMBOLS_PER_CLIENT, Bounds, Client
from ssmd.gateway.connection import CLOSE_S, Connection, Socket
from ssmd.gateway.doors import Doors, Seat
from ssmd.gateway.hub import Hub
from ssmd.gateway.problems import problem
from ssmd.telemetry import GATEWAY_CLIENTS, GATEWAY_DISCONNECTIONS
from ssmd.wire import client as wire

MAX_CLIENTS = 1_000
HANDSHAKE_S = 10.0
SUBSCRIBE_WITHIN_S = 30.0
PING_S = 20.0
REQUESTS_PER_S = 50


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
        self._catalogue = catalogue
        self._max_clients = max_clients
        self._bounds = bounds
        self._clock = clock
        self._numbers = count(1)
        self._connections: dict[int, Connection] = {}
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def clients(self) -> int:
        """Connected clients."""
        return len(self._connections)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one client until its connection ends."""
        if self.stopping or len(self._connections) >= self._max_clients:
            full = f"{self._max_clients} clients are connected already"
            detail = "the gateway is stopping" if self.stopping else full
            return problem(503, "No more clients", detail, headers={"Retry-After": "5"})
        socket = Socket(compress=False, heartbeat=PING_S, timeout=CLOSE_S, max_msg_size=wire.MAX_REQUEST_BYTES)
        if not socket.can_prepare(request):
            hint = "connect with a WebSocket client, for example: websocat 'ws://HOST:PORT/v1/stream?symbols=*'"
            return problem(426, "WebSocket expected", hint, headers={"Upgrade": "websocket"})
        try:
            symbols = _query_symbols(request)
        except wire.RequestError as error:
            return problem(400, "Wrong symbols", error.message, code=error.code)
        with self._doors.sit(request[CALLER]) as seat:
            async with asyncio.timeout(HANDSHAKE_S):
                await socket.prepare(request)
            if await seat.identify(socket):
                await self._serve(request, socket, symbols, seat)
        return socket

    async def _serve(self, request: web.Request, socket: Socket, symbols: tuple[str, ...], seat: Seat) -> None:
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
            if symbols:
                await self._subscribe(connection.client, wire.Request("subscribe", symbols))
            await self._read(connection)
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
            if connection.closed_at is None:
                connection.closed_at = now
            elif now - connection.closed_at > CLOSE_S + 1:
                connection.transport.abort()

    async def stop(self, within_s: float) -> None:
        """Tell every client that the gateway goes away and wait for them to leave; cut who stays."""
        self.stopping = True
        self._hub.fanout.announce(wire.system("GOING_AWAY", "the gateway stops; connect again in a moment"))
        for connection in self._connections.values():
            connection.reason = "shutdown"
            connection.client.kick(1001, "going away")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._empty.wait()
        for connection in list(self._connections.values()):
            connection.transport.abort()

    async def _read(self, connection: Connection) -> None:
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
                await self._follow(client, message.data)
            elif message.type is WSMsgType.BINARY:
                self._hub.fanout.answer(client, wire.error("bad_request", "send text messages, not binary ones"))
            else:
                if message.type is WSMsgType.ERROR:
                    wrong = isinstance(socket.exception() or message.data, WebSocketError)
                    connection.reason = "protocol_error" if wrong else "lost"
                return
            used += 1
            if used >= REQUESTS_PER_S:
                # Not reading is the only brake that a client cannot ignore.
                await asyncio.sleep(max(0.0, window + 1.0 - loop.time()))
                window, used = loop.time(), 0

    async def _follow(self, client: Client, data: str) -> None:
        answer = self._hub.fanout.answer
        try:
            request = wire.parse_request(data)
        except wire.RequestError as error:
            answer(client, wire.error(error.code, error.message, error.id))
            return
        if request.action == "subscribe":
            await self._subscribe(client, request)
        elif request.action == "unsubscribe":
            self._unsubscribe(client, request)
        elif request.action == "snapshot":
            self._snapshot(client, request)
        else:
            answer(client, wire.pong(self._clock() // NS_PER_MS, request.id))

    async def _subscribe(self, client: Client, request: wire.Request) -> None:
        """Add symbols: the answer, then the whole books that are new to the client, then live messages; no hole."""
        hub = self._hub
        unknown = await self._catalogue.unlisted(_unheard(hub, request.symbols))
        if client.leaving:
            return
        before = client.subscription
        after = before.plus(request.symbols)
        if len(after.wanted) > SYMBOLS_PER_CLIENT:
            message = f"at most {SYMBOLS_PER_CLIENT} symbols per client; subscribe to * instead"
            hub.fanout.answer(client, wire.error("too_many_symbols", message, request.id))
            return
        seq = hub.fanout.move(client, after)
        hub.fanout.answer(client, wire.subscribed(after.symbols, seq, unknown, request.id))
        hub.fanout.owe(client, hub.new_books(before, after))

    def _unsubscribe(self, client: Client, request: wire.Request) -> None:
        hub = self._hub
        if client.subscription.every and wire.ALL_SYMBOLS not in request.symbols:
            message = "subscribed to *: single symbols cannot be left out; unsubscribe * first"
            hub.fanout.answer(client, wire.error("bad_symbol", message, request.id))
            return
        after = client.subscription.minus(request.symbols)
        for piece in [(channel, ticker) for channel, ticker in client.due if channel not in after.channels(ticker)]:
            del client.due[piece]
        seq = hub.fanout.move(client, after)
        hub.fanout.answer(client, wire.unsubscribed(after.symbols, seq, request.id))

    def _snapshot(self, client: Client, request: wire.Request) -> None:
        hub = self._hub
        absent = [ticker for ticker in request.symbols if hub.book_frame(ticker) is None]
        if absent:
            message = f"no book for {', '.join(absent[:10])}{' …' if len(absent) > 10 else ''} at the moment"
            hub.fanout.answer(client, wire.error("no_book", message, request.id))
        hub.fanout.owe(client, [("orderbook", ticker) for ticker in request.symbols if ticker not in absent])


def _end(connection: Connection, code: int, reason: str) -> None:
    """The client's key was revoked or has expired."""
    connection.reason = "key_ended"
    connection.client.kick(code, reason)


def _unheard(hub: Hub, symbols: Iterable[str]) -> list[str]:
    return [symbol for symbol in symbols if symbol != wire.ALL_SYMBOLS and not hub.board.known(symbol)]


def _query_symbols(request: web.Request) -> tuple[str, ...]:
    """Tickers in `?symbols=A,B` (also repeated), or `*`; () when there are none. RequestError for impossible ones."""
    symbols = [part.strip() for text in request.query.getall("symbols", []) for part in text.split(",")]
    named = [symbol for symbol in symbols if symbol]
    if not named:
        return ()
    return wire.parse_request(msgspec.json.encode({"action": "subscribe", "symbols": named})).symbols
