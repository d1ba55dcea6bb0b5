"""One WebSocket connection to the exchange: frames as raw bytes with their receive time, and a watch on silence."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeAlias

import picows
import structlog

from ssmd.config.values import masked
from ssmd.errors import ConfigError, RateLimited, Unavailable

MAX_FRAME_BYTES = 32 * 1024 * 1024
"""Larger ones end the connection. In base64 it still fits into a zstd frame of the archive (64 MiB)."""
_BATCH = 512
_PING_AFTER_S = 2.0
_DEAD_AFTER_S = 6.0
_WATCH_S = 1.0
_READ_BYTES = 256 * 1024
"""One read takes what is there, so that a burst is written, mapped and published in large batches."""
_HANDSHAKE_S = 4.0
_CONNECT_S = 6.0

log = structlog.get_logger(component="connector")

Frame = tuple[int, bytes]
"""(receive time in ns, payload)."""

_TEXT = picows.WSMsgType.TEXT
_BINARY = picows.WSMsgType.BINARY
_CONTINUATION = picows.WSMsgType.CONTINUATION


class ExchangeUnavailable(Unavailable):
    """The exchange did not accept a connection."""


class CredentialsRefused(ConfigError):
    """The exchange refused the key."""


class Link(picows.WSListener):
    """Hands over all frames of one read at once."""

    def __init__(self, on_frames: "OnFrames") -> None:
        self._on_frames = on_frames
        self._frames: list[Frame] = []
        self._fragments: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._transport: picows.WSTransport | None = None
        self._abandoned = False
        self._watched_at = 0.0
        self.closed = asyncio.Event()
        self.farewell = False
        """The exchange sent a close frame: it had sent nothing else that did not arrive."""
        self.reason = "connection_lost"
        self.failure: BaseException | None = None

    # -- picows callbacks ---------------------------------------------------------------------------------------

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self._transport = transport
        if self._abandoned:
            transport.disconnect(graceful=False)
            return
        self._watched_at = self._loop.time()
        self._timer = self._loop.call_later(_WATCH_S, self._watch)

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        self._heard_at = self._loop.time()
        kind = frame.msg_type
        if kind in (_TEXT, _BINARY):
            if frame.fin:
                self._frames.append((time.time_ns(), frame.get_payload_as_bytes()))
            else:
                self._fragments = [frame.get_payload_as_bytes()]
        elif kind == _CONTINUATION:
            self._continue(frame)
        elif kind == picows.WSMsgType.PING:
            # picows's own pong would keep the frames before a trailing ping from being handed over
            transport.send_pong(frame.get_payload_as_bytes())
        elif kind == picows.WSMsgType.CLOSE:
            self.farewell = True
            self._flush()
            transport.send_close(frame.get_close_code())
            transport.disconnect()
            return
        if frame.last_in_buffer or len(self._frames) >= _BATCH:
            self._flush()

    def _continue(self, frame: picows.WSFrame) -> None:
        self._fragments.append(frame.get_payload_as_bytes())
        if sum(map(len, self._fragments)) > MAX_FRAME_BYTES:
            log.error("a fragmented message is too large, connection dropped", max_bytes=MAX_FRAME_BYTES)
            self.drop("connection_lost")
        elif frame.fin:
            self._frames.append((time.time_ns(), b"".join(self._fragments)))
            self._fragments = []

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self._flush()
        if self._timer is not None:
            self._timer.cancel()
        self.closed.set()

    def _flush(self) -> None:
        if self._frames and self.failure is None:
            frames, self._frames = self._frames, []
            try:
                self._on_frames(self, frames)
            except Exception as error:  # noqa: BLE001 - picows would only log it; the owner raises it again
                self.failure = error
                self.drop("connection_lost")

    # -- the owner's side ---------------------------------------------------------------------------------------

    def send(self, command: bytes) -> None:
        """Send a text message; nothing when the connection is gone."""
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.send(_TEXT, command)

    def close(self) -> None:
        """Say goodbye; `closed` is set when the exchange's last frame was handed over."""
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.send_close(picows.WSCloseCode.OK)

    def drop(self, reason: str) -> None:
        """Cut the connection now; `reason` becomes the gap's."""
        self.reason = reason
        if self._transport is not None:
            self._transport.disconnect(graceful=False)

    def abandon(self) -> None:
        """Nobody waits for this connection any more: should it come about, it is cut."""
        self._abandoned = True
        self.drop("connection_lost")

    @property
    def silent_s(self) -> float:
        """Seconds since the last byte (heartbeats included)."""
        return self._loop.time() - self._heard_at

    def _watch(self) -> None:
        if self._transport is None or self._transport.is_disconnected:
            return
        now = self._loop.time()
        late_s, self._watched_at = now - self._watched_at - _WATCH_S, now
        if late_s > _PING_AFTER_S:
            # it was us who stood still (a frozen process, a suspended machine): what came meanwhile is read first
            self._heard_at = max(self._heard_at, now - _PING_AFTER_S)
        if self.silent_s > _DEAD_AFTER_S:
            log.warning("exchange silent, connection dropped", seconds=round(self.silent_s, 1))
            self.drop("silence")
            return
        if self.silent_s > _PING_AFTER_S:
            self._transport.send_ping()
        self._timer = self._loop.call_later(_WATCH_S, self._watch)


OnFrames: TypeAlias = Callable[[Link, list[Frame]], None]


async def connect(url: str, headers: dict[str, str], on_frames: "OnFrames") -> Link:
    """Open a connection.

    Raises CredentialsRefused (401, 403), RateLimited (429, 418), ExchangeUnavailable or ConfigError (no URL), each
    saying where, without passwords, and why.
    """
    links: list[Link] = []
    where = masked(url)

    def new_link() -> Link:
        links.append(Link(on_frames))
        return links[-1]

    try:
        # picows limits its handshake alone; TCP to a host that swallows packets, or TLS, would take minutes
        async with asyncio.timeout(_CONNECT_S):
            _, link = await picows.ws_connect(
                new_link,
                url,
                websocket_handshake_timeout=_HANDSHAKE_S,
                extra_headers=headers,
                max_frame_size=MAX_FRAME_BYTES,
                max_redirects=0,
                read_buffer_init_size=_READ_BYTES,
                enable_auto_ping=False,
                enable_auto_pong=False,
            )
    except picows.WSInvalidStatusError as error:
        status = int(error.response.status) if error.response is not None else 0
        if status in (401, 403):
            raise CredentialsRefused(f"the exchange at {where} refused the credentials (HTTP {status})") from error
        if status in (418, 429):
            raise RateLimited(f"the exchange at {where} asked for patience (HTTP {status})") from error
        raise ExchangeUnavailable(f"the exchange at {where} answered HTTP {status}") from error
    except (picows.WSError, OSError, TimeoutError) as error:
        for abandoned in links:
            abandoned.abandon()
        why = masked(str(error).replace(url, where)) or type(error).__name__
        raise ExchangeUnavailable(f"cannot connect to {where}: {why}") from error
    except ValueError:  # its text may quote the password
        raise ConfigError(f"{where!r} is not a URL", "Correct spec.endpoints.ws, or --ws.") from None
    assert isinstance(link, Link)
    return link
