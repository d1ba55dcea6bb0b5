"""One accepted WebSocket: aiohttp's side of it, its transport, the fan-out's client, and how it ends."""

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial

from aiohttp import WSCloseCode, web
from aiohttp.http import WebSocketWriter

from ssmd.gateway.client import ADVICE, INTERNAL_ERROR, LOST, Client
from ssmd.gateway.fanout import Fanout
from ssmd.gateway.flow import Flow
from ssmd.gateway.waiting import Bounds
from ssmd.wire.requests import MAX_REQUEST_BYTES

LINGER_S = 1.0
DRAIN_S = 0.05
CLOSE_S = 5.0
"""Seconds in which a client must read something of what was written before the close frame, or answer it."""
CLOSE_MOST_S = 15.0
"""Seconds after which it is cut though it reads on."""
REASON_BYTES = 123
"""What a close frame has room for."""

_REASONS: dict[int, str] = {
    WSCloseCode.MESSAGE_TOO_BIG: f"too big: a request has at most {MAX_REQUEST_BYTES} bytes; name fewer symbols",
    WSCloseCode.PROTOCOL_ERROR: "not the WebSocket protocol (RFC 6455)",
    WSCloseCode.INVALID_TEXT: "text messages are UTF-8",
}


class Socket(web.WebSocketResponse):
    """aiohttp's WebSocket, which gives a reason also where aiohttp closes by itself."""

    on_close: Callable[[], None] = staticmethod(lambda: None)
    """Called before aiohttp closes by itself: no data may follow the close frame."""
    on_silence: Callable[[], bool] = staticmethod(lambda: False)
    """Called when a ping was not answered in time; True when that is no reason to cut the connection."""

    def _pong_not_received(self) -> None:
        """aiohttp's: cuts without a word. But a ping waits behind the data that a slow reader has not read yet."""
        if self.on_silence():
            self._reset_heartbeat()
        else:
            super()._pong_not_received()

    async def close(self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True) -> bool:
        """Close with a code and a reason, by default the one that belongs to the code."""
        if code == WSCloseCode.MESSAGE_TOO_BIG and self._writer is not None:
            await self._linger(self._writer, code)
        return await super().close(code=code, message=message or _REASONS.get(code, "").encode(), drain=drain)

    async def _linger(self, writer: WebSocketWriter, code: int) -> None:
        """Say why, and read on for a while: a socket that is closed before it is read takes the reason with it."""
        self.on_close()
        await writer.close(code, _REASONS[code].encode())
        until = asyncio.get_running_loop().time() + LINGER_S
        while asyncio.get_running_loop().time() < until:
            transport = self._req.transport if self._req is not None else None
            if transport is None or transport.is_closing():
                return
            transport.resume_reading()
            await asyncio.sleep(DRAIN_S)


class Connection:
    """A client and its socket; `reason` says, for the metric, why it ended: one of a bounded set."""

    def __init__(
        self,
        number: int,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport,
        fanout: Fanout,
        bounds: Bounds,
        clock: Callable[[], int],
        address: str = "",
        key_name: str = "",
    ) -> None:
        self.socket = socket
        self.transport = transport
        self.client = Client(
            number, transport, self._close, bounds, address=address, key_name=key_name, connected_ns=clock()
        )
        self.reason = "client_closed"
        self._closed_at: float | None = None
        self._read_at = 0.0
        self._unread = 0
        self._fanout = fanout
        self._closing: asyncio.Task[bool] | None = None
        if isinstance(socket, Socket):
            socket.on_close = partial(fanout.leave, self.client)
            socket.on_silence = self._excuse
        self._flow = Flow(transport, self.client, fanout.resumed)

    def overdue(self, now: float) -> bool:
        """It was closed: has its client read nothing more for too long, or been at it for too long?"""
        unread = self._flow.unread_bytes()
        if self._closed_at is None:
            self._closed_at = self._read_at = now
        elif unread < self._unread:
            self._read_at = now
        self._unread = unread
        return now - self._read_at > CLOSE_S + 1 or now - self._closed_at > CLOSE_MOST_S

    async def closed(self) -> None:
        """Wait for a close that the gateway began, and until its reason is read; then give up what was not read.

        Whoever is `overdue` is cut meanwhile.
        """
        if self._closing is not None:
            await asyncio.wait({self._closing})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_MOST_S if self._flow.unread_bytes() else CLOSE_S):
                    await self._flow.lost.wait()
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def _excuse(self) -> bool:
        """No pong: while much waits that is no surprise; who reads too little of less is told why it has to go."""
        if self.client.paused:
            return True  # whether it reads at all is looked at, too
        if self.client.leaving or not self._flow.unread_bytes():
            return False
        self.client.kick(1008, f"slow reader: no answer to a ping; {ADVICE}")
        return True

    def _close(self, code: int, reason: str) -> None:
        self._fanout.leave(self.client)  # no data after the close frame
        if code == LOST:  # the reader hears it too, and knows whether the client had said goodbye
            self.transport.abort()
            return
        if self.reason == "client_closed":
            self.reason = "internal_error" if code == INTERNAL_ERROR else "slow_consumer"
        # Then some time for the client's own close; `overdue` says how much.
        message = reason.encode()[:REASON_BYTES].decode(errors="ignore").encode()
        self._closing = asyncio.create_task(self.socket.close(code=code, message=message, drain=False))
