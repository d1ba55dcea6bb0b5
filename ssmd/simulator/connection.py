"""One accepted socket: the HTTP head, then either WebSocket (ours, byte by byte) or REST (handed to aiohttp)."""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Sequence
from functools import partial
from typing import Protocol, cast

import msgspec
import structlog

from ssmd.simulator import frames
from ssmd.simulator.auth import Gatekeeper
from ssmd.simulator.faults import Faults
from ssmd.simulator.hostile import Hostile
from ssmd.simulator.ledger import Ledger, ledger_line
from ssmd.simulator.options import WS_PATH
from ssmd.simulator.protocol import Sent, Subscriptions
from ssmd.simulator.source import Message

log = structlog.get_logger()

_MAX_HEAD = 65_536
_CONTROL = b" /_simulator/"
_UPGRADE = f"GET {WS_PATH}".encode()
_WRITE_HIGH = 4 * 1024 * 1024
_OVERFLOW = 64 * 1024 * 1024
_CLOSE_WAIT_S = 1.0
_RESET = struct.pack("ii", 1, 0)


class Host(Protocol):
    """What a connection needs from the exchange."""

    gatekeeper: Gatekeeper
    ledger: Ledger
    faults: Faults

    def rest_protocol(self) -> asyncio.Protocol:
        """A fresh HTTP protocol for REST."""
        ...

    def new_subscriptions(self) -> Subscriptions:
        """The protocol state of a new client."""
        ...

    def opened(self, connection: "Connection") -> str:
        """A WebSocket came up; its name for the ledger."""
        ...

    def closed(self, connection: "Connection") -> None:
        """A WebSocket is gone."""
        ...

    def subscribed(self) -> None:
        """A client sent a subscription command."""
        ...


class ConnectionState(msgspec.Struct, frozen=True):
    """What the state page says about a connection."""

    name: str
    frames: int
    dropped: int
    subscriptions: dict[str, int]
    buffered: int
    half_open: bool
    key_id: str


class Connection(asyncio.Protocol):
    """Reads commands, numbers and writes frames; every frame is in the ledger before it goes out."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._transport: asyncio.Transport | None = None
        self._head = bytearray()
        self._rest: asyncio.Protocol | None = None
        self._reader: frames.FrameReader | None = None
        self._label = b""
        self.name = ""
        self.key_id = ""
        self.subscriptions = host.new_subscriptions()
        self.sent = 0
        self.dropped = 0
        self.drops: dict[str, int] = {}
        self.mute = False  # half-open: what is sent goes nowhere, what is received is not heard
        self.is_open = False
        self.writable = asyncio.Event()
        self.writable.set()

    # --- socket events -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        if self.mute:
            return
        if self._host.faults.is_frozen(time.time_ns()) and _CONTROL not in data[:32]:
            self._host.faults.after_stall(partial(self.data_received, data))
        elif self._rest is not None and self._reader is None and not data.startswith(_UPGRADE):
            self._rest.data_received(data)
        elif self._reader is None:
            self._receive_head(data)
        else:
            self._receive_frames(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.writable.set()
        if self._rest is not None:
            self._rest.connection_lost(exc)
        if self.is_open:
            self.is_open = False
            self._host.closed(self)
            log.info("client gone", conn=self.name, frames=self.sent, reason=str(exc or "closed"))

    def eof_received(self) -> bool | None:
        return None if self._rest is None else self._rest.eof_received()

    def pause_writing(self) -> None:
        self.writable.clear()
        if self._rest is not None:
            self._rest.pause_writing()

    def resume_writing(self) -> None:
        self.writable.set()
        if self._rest is not None:
            self._rest.resume_writing()

    # --- upgrade -------------------------------------------------------------------------------------------------

    def _receive_head(self, data: bytes) -> None:
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            if len(self._head) > _MAX_HEAD:
                self._refuse(431, "Request Header Fields Too Large", "headers too large")
            return
        request = frames.parse_request(bytes(self._head[:end]))
        if request is None or request.path.partition("?")[0] != WS_PATH:
            self._hand_over()
            return
        rest = bytes(self._head[end + 4 :])
        self._head.clear()
        self._upgrade(request, rest)

    def _hand_over(self) -> None:
        """REST: aiohttp's protocol gets what was read so far and what follows, unless the client upgrades later."""
        self._rest = self._host.rest_protocol()
        self._rest.connection_made(self._open_transport())
        self._rest.data_received(bytes(self._head))
        self._head.clear()

    def _upgrade(self, request: frames.Request, rest: bytes) -> None:
        now_ns = time.time_ns()
        if (status := self._host.faults.upgrade_status(now_ns)) is not None:
            if status == 429:
                self._refuse(429, "Too Many Requests", "too many requests", plain=True)
            else:
                self._refuse(401, "Unauthorized", "authentication_error")
            return
        why = self._host.gatekeeper.refusal(request.method, request.path, request.headers)
        if why is not None:
            log.warning("upgrade refused", reason=why)
            self._refuse(401, "Unauthorized", why)
            return
        answer = frames.accept_upgrade(request)
        if answer is None:
            self._refuse(400, "Bad Request", "this path speaks WebSocket")
            return
        self._open_transport().write(answer)
        self._reader = frames.FrameReader()
        self.is_open = True
        self.key_id = request.headers.get("kalshi-access-key", "")
        self.name = self._host.opened(self)
        self._label = self.name.encode()
        log.info("client connected", conn=self.name, key_id=self.key_id)
        if rest:
            self.data_received(rest)

    def _refuse(self, status: int, reason: str, why: str, *, plain: bool = False) -> None:
        error: object = why if plain else {"code": reason.lower().replace(" ", "_"), "message": why}
        transport = self._open_transport()
        transport.write(frames.http_error(status, reason, msgspec.json.encode({"error": error})))
        transport.close()

    # --- commands ------------------------------------------------------------------------------------------------

    def _receive_frames(self, data: bytes) -> None:
        assert self._reader is not None
        try:
            for incoming in self._reader.feed(data):
                self._hear(incoming)
        except frames.ProtocolViolation as violation:
            log.warning("client broke the protocol", conn=self.name, reason=str(violation))
            self.close(violation.code, str(violation))

    def _hear(self, incoming: frames.Incoming) -> None:
        if not self.is_open:
            return
        if incoming.opcode == frames.PING:
            self._open_transport().write(frames.encode(incoming.payload, frames.PONG))
        elif incoming.opcode == frames.CLOSE:
            code = int.from_bytes(incoming.payload[:2], "big") if len(incoming.payload) >= 2 else 1000
            self.close(code)
        elif incoming.opcode == frames.TEXT:
            self._host.faults.after_stall(partial(self._obey, incoming.payload))

    def _obey(self, command: bytes) -> None:
        if not self.is_open:
            return
        self.send(self.subscriptions.command(command, time.time_ns()))
        self._host.subscribed()

    # --- frames --------------------------------------------------------------------------------------------------

    def deliver(self, messages: Sequence[Message]) -> None:
        """Number what this client subscribed to and send it in one write."""
        number = self.subscriptions.number
        if self.drops or self.mute or self._host.ledger.is_kept:
            numbered = [(message.channel, sent) for message in messages if (sent := number(message)) is not None]
            self._write([(sent, self._is_dropped(channel), frames.encode(sent.frame)) for channel, sent in numbered])
            return
        out = [frames.encode(sent.frame) for message in messages if (sent := number(message)) is not None]
        if out:
            self.sent += len(out)
            self._open_transport().write(b"".join(out))

    def send(self, answers: Sequence[Sent]) -> None:
        """Acknowledgements, errors and snapshots."""
        self._write([(sent, self.mute, frames.encode(sent.frame)) for sent in answers])

    def send_hostile(self, hostile: Hostile) -> None:
        """A frame of the corpus; one that needs numbers is left out when its channel is not subscribed."""
        sid = seq = None
        if hostile.channel is not None:
            subscription = self.subscriptions.by_channel.get(hostile.channel)
            if subscription is None:
                return
            sid, seq = subscription.sid, subscription.next_seq()
        payload = hostile.payload(sid or 0, seq or 0)
        encoded = (
            frames.encode(payload, hostile.opcode)
            if hostile.fragments == 1
            else frames.encode_fragments(payload, hostile.fragments, hostile.opcode)
        )
        sent = Sent(payload, sid, seq, f"hostile:{hostile.name}", "")
        self._write([(sent, self.mute, encoded)], hostile=True)

    def ping(self, body: bytes) -> None:
        """The exchange's heartbeat."""
        if self.is_open and not self.mute:
            self._open_transport().write(frames.encode(body, frames.PING))

    def _write(self, batch: list[tuple[Sent, bool, bytes]], *, hostile: bool = False) -> None:
        if not batch:
            return
        if self._host.ledger.is_kept:
            self._host.ledger.write(
                [
                    ledger_line(self._label, self.sent + index, sent, dropped=dropped, hostile=hostile)
                    for index, (sent, dropped, _) in enumerate(batch)
                ]
            )
        self.sent += len(batch)
        out = [encoded for _, dropped, encoded in batch if not dropped]
        self.dropped += len(batch) - len(out)
        if out:
            self._open_transport().write(b"".join(out))

    def _is_dropped(self, channel: str) -> bool:
        left = self.drops.get(channel, 0)
        if not left:
            return self.mute
        if left == 1:
            del self.drops[channel]
        else:
            self.drops[channel] = left - 1
        return True

    # --- endings -------------------------------------------------------------------------------------------------

    @property
    def is_overflowing(self) -> bool:
        """True when a client reads so slowly that a real exchange would end its subscriptions (error 25)."""
        return self.is_open and not self.mute and self._open_transport().get_write_buffer_size() > _OVERFLOW

    def overflow(self, code: int = 25) -> None:
        """Terminal error: the subscriptions are gone, the connection stays."""
        self.send(self.subscriptions.end(code, time.time_ns()))

    def close(self, code: int, reason: str = "") -> None:
        """The closing handshake; nothing is sent after the close frame."""
        self._leave()
        transport = self._open_transport()
        if not transport.is_closing():
            transport.write(
                frames.encode_close(code if 1000 <= code < 5000 and code not in (1005, 1006) else 1000, reason)
            )
            asyncio.get_running_loop().call_later(_CLOSE_WAIT_S, transport.close)

    def abort(self, message: Sent | None = None) -> None:
        """Send half of a frame, then reset the connection (RST): what is under way is lost."""
        if message is not None and self.is_open:
            whole = frames.encode(message.frame)
            self._write([(message, True, b"")])
            self._open_transport().write(whole[: max(1, len(whole) // 2)])
        self._leave()
        asyncio.get_running_loop().call_later(0.01, self._reset)

    def _reset(self) -> None:
        transport = self._open_transport()
        sock = transport.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):  # already closed by the peer
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()

    def _leave(self) -> None:
        if self.is_open:
            self.is_open = False
            self._host.closed(self)

    def state(self) -> ConnectionState:
        """For the state page."""
        channels = {name: each.seq for name, each in self.subscriptions.by_channel.items()}
        buffered = self._open_transport().get_write_buffer_size()
        return ConnectionState(self.name, self.sent, self.dropped, channels, buffered, self.mute, self.key_id)

    def _open_transport(self) -> asyncio.Transport:
        assert self._transport is not None, "the connection was made"
        return self._transport
