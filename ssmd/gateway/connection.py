"""One accepted WebSocket: aiohttp's side of it, its transport, the fan-out's client, and how it ends."""

import asyncio
import contextlib
from collections.abc import Callable

from aiohttp import WSCloseCode, web

from ssmd.gateway.client import Client
from ssmd.gateway.fanout import Fanout
from ssmd.gateway.flow import Flow
from ssmd.gateway.waiting import Bounds
from ssmd.wire.requests import MAX_REQUEST_BYTES

CLOSE_S = 5.0
"""Seconds in which a client may read what was written before the close frame, and answer it."""
REASON_BYTES = 123
"""What a close frame has room for."""

_REASONS: dict[int, str] = {
    WSCloseCode.MESSAGE_TOO_BIG: f"too big: a request has at most {MAX_REQUEST_BYTES} bytes; name fewer symbols",
    WSCloseCode.PROTOCOL_ERROR: "not the WebSocket protocol (RFC 6455)",
    WSCloseCode.INVALID_TEXT: "text messages are UTF-8",
}


class Socket(web.WebSocketResponse):
    """aiohttp's WebSocket, which gives a reason also where aiohttp closes by itself."""

    async def close(self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True) -> bool:
        """Close with a code and a reason, by default the one that belongs to the code."""
        return await super().close(code=code, message=message or _REASONS.get(code, "").encode(), drain=drain)


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
        self.closed_at: float | None = None
        self._fanout = fanout
        self._closing: asyncio.Task[bool] | None = None
        self._flow = Flow(transport, self.client, fanout.resumed)

    async def closed(self) -> None:
        """Wait for a close that the gateway began, and until its reason is read; then give up what was not read."""
        if self._closing is not None:
            await asyncio.wait({self._closing})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await self._flow.lost.wait()
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def _close(self, code: int, reason: str) -> None:
        self._fanout.leave(self.client)  # no data after the close frame
        if self.reason == "client_closed":
            self.reason = "slow_consumer"
        # Then up to CLOSE_S for the client's own close; nothing waits for unread data to be read.
        message = reason.encode()[:REASON_BYTES].decode(errors="ignore").encode()
        self._closing = asyncio.create_task(self.socket.close(code=code, message=message, drain=False))
