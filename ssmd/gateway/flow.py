"""The connection of one stream client: hears when its socket takes no more bytes, when it does again, and when never.

aiohttp's protocol answers what asyncio tells it; this one stands before it and passes everything on, so that pausing
and resuming are events for the fan-out too. It works with asyncio's, uvloop's and TLS transports alike.
"""

import asyncio
import contextlib
import socket
from array import array
from collections.abc import Callable
from fcntl import ioctl
from termios import TIOCOUTQ
from typing import cast

from ssmd.gateway.client import ADVICE, LOST, STALL_S, Client

HIGH_WATER = 1 << 18
NOT_SENT_BYTES = 1 << 17
"""Bytes that the kernel may hold and not have sent: megabytes of its buffer would hide that nobody reads."""

_TCP_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", None)


class Flow(asyncio.Protocol):
    """Wraps the protocol of `transport`; `resumed` is called with the client when there is room again."""

    def __init__(self, transport: asyncio.Transport, client: Client, resumed: Callable[[Client], None]) -> None:
        self._inner = cast(asyncio.Protocol, transport.get_protocol())
        self._transport = transport
        self._client = client
        self._resumed = resumed
        self.lost = asyncio.Event()  # the connection is over
        self._timer: asyncio.TimerHandle | None = None
        self._unread = 0
        self.data_received = self._inner.data_received  # type: ignore[method-assign]  # no detour for each read
        self.eof_received = self._inner.eof_received  # type: ignore[method-assign]
        _hide_little(transport)
        high = min(HIGH_WATER, client.bounds.bytes)
        transport.set_write_buffer_limits(high=high, low=high // 4)
        transport.set_protocol(self)
        if transport.get_write_buffer_size() > high:
            self.pause_writing()

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        self._inner.pause_writing()
        self._client.pause()
        if self._timer is None:
            self._wait()

    def resume_writing(self) -> None:
        """The transport's buffer has room."""
        self._inner.resume_writing()
        self._cancel()
        self._client.paused = False
        self._resumed(self._client)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self._cancel()
        self.lost.set()
        self._client.kick(LOST, "the connection is gone")  # no more writes: uvloop's transport raises from now on
        self._inner.connection_lost(exc)

    def _wait(self) -> None:
        self._unread = self.unread_bytes()
        self._timer = asyncio.get_running_loop().call_later(STALL_S, self._look)

    def _look(self) -> None:
        """Has the client read anything since it was paused, or since the last look?"""
        self._timer = None
        if self._client.leaving or not self._client.paused:
            return
        if self.unread_bytes() >= self._unread:
            self._client.kick(1008, f"slow reader: nothing read for {STALL_S:.0f} s; {ADVICE}")
        else:
            self._wait()

    def unread_bytes(self) -> int:
        """What the client's side has not taken: the transport's bytes and, where the system tells, the kernel's."""
        in_kernel = array("i", [0])
        connection = self._transport.get_extra_info("socket")
        with contextlib.suppress(OSError, AttributeError, ValueError):  # closed: nothing to tell
            ioctl(connection.fileno(), TIOCOUTQ, in_kernel)
        return self._transport.get_write_buffer_size() + in_kernel[0]

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _hide_little(transport: asyncio.Transport) -> None:
    connection = transport.get_extra_info("socket")
    if connection is not None and _TCP_NOTSENT_LOWAT is not None:
        with contextlib.suppress(OSError):  # not a TCP socket: nothing to limit
            connection.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, NOT_SENT_BYTES)
