"""One raw connection to a NATS server: the client protocol in batches, for the paths where nats-py is too slow.

Only what the data path needs: CONNECT with user and password or token, TLS when the URL asks for it, SUB, PUB/HPUB,
MSG/HMSG, PING/PONG. Everything that arrived in one read is handed over together. The control plane (streams,
consumers, requests) is nats-py's.
"""

import asyncio
import json
import ssl
from collections.abc import Callable
from typing import NamedTuple, TypeAlias, cast
from urllib.parse import unquote, urlsplit

from ssmd.errors import ConfigError
from ssmd.middleware.transport.interface import TransportUnavailable

_CONNECT_TIMEOUT_S = 3.0
_PING_EVERY_S = 5.0
_SILENT_AFTER_S = 15.0
_MAX_PARTIAL = 64 * 1024 * 1024
_MAX_PAYLOAD = 1024 * 1024
"""A server's limit where it tells none; a larger message makes it end the connection."""


Address: TypeAlias = str | Callable[[], str]
"""Comma-separated URLs, or what says them: it is asked at every connection, so that a rotated password is followed."""


def address(url: Address) -> str:
    """The URLs to connect to now; TransportUnavailable when their key cannot be read: it may be mended meanwhile."""
    try:
        return url if isinstance(url, str) else url()
    except ConfigError as error:
        raise TransportUnavailable(error.message, error.hint) from error


class Received(NamedTuple):
    """A message as it came: `headers` is the raw header block (b"" for none), `reply` b"" when it wants no answer."""

    subject: bytes
    reply: bytes
    headers: bytes
    payload: bytes


class NatsWire(asyncio.Protocol):
    """A connected socket that speaks NATS. Made by `open_wire`."""

    def __init__(self, on_batch: Callable[[list[Received]], None], on_lost: Callable[[], None]) -> None:
        self._on_batch = on_batch
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._tail = b""
        self._greeted: asyncio.Future[None] = self._loop.create_future()
        self._info: asyncio.Future[dict[str, object]] = self._loop.create_future()
        self._heard_at = self._loop.time()
        self._pinger: asyncio.TimerHandle | None = None
        self.on_acks: Callable[[bytes], bytes] | None = None
        """When set, sees each read first and returns what it did not consume: the publisher's short cut for acks."""
        self.error = ""
        self.max_payload = _MAX_PAYLOAD

    # -- connection ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are no subclass of it

    def connection_lost(self, exc: Exception | None) -> None:
        if self._pinger is not None:
            self._pinger.cancel()
        error = TransportUnavailable(f"the NATS server closed the connection {self.error or exc or ''}".rstrip())
        for future in (self._greeted, self._info):
            if not future.done():
                future.set_exception(error)
                future.exception()  # read here: nobody may be waiting
        self._transport = None
        self._on_lost()

    async def greet(self, url: str, name: str) -> None:
        """Exchange INFO, CONNECT and PING; raises TransportUnavailable when the server refuses."""
        parts = urlsplit(url)
        info = await self._info
        self.max_payload = int(cast(int, info.get("max_payload", _MAX_PAYLOAD)))
        if parts.scheme == "tls" or info.get("tls_required"):
            await self._start_tls(parts.hostname or "")
        options: dict[str, object] = {
            "verbose": False, "pedantic": False, "lang": "python", "version": "1", "protocol": 1, "name": name,
            "headers": True, "no_responders": True,
        }  # fmt: skip
        if parts.username is not None and parts.password is not None:
            options |= {"user": unquote(parts.username), "pass": unquote(parts.password)}
        elif parts.username is not None:
            options["auth_token"] = unquote(parts.username)
        self.write(b"CONNECT %b\r\nPING\r\n" % json.dumps(options).encode())
        await self._greeted
        self._schedule_ping()

    async def _start_tls(self, host: str) -> None:
        transport = await self._loop.start_tls(
            self._require(), self, ssl.create_default_context(), server_hostname=host
        )
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are no subclass of it

    def _require(self) -> asyncio.Transport:
        if self._transport is None:
            raise TransportUnavailable("the connection to the NATS server is closed")
        return self._transport

    def _schedule_ping(self) -> None:
        self._pinger = self._loop.call_later(_PING_EVERY_S, self._ping)

    def _ping(self) -> None:
        if self._loop.time() - self._heard_at > _SILENT_AFTER_S:
            self.error = "(no bytes for 15 s)"
            self.abort()
            return
        self.write(b"PING\r\n")
        self._schedule_ping()

    def write(self, data: bytes) -> None:
        """Send now; silently nothing when the connection is gone (the loss is reported by `on_lost`)."""
        if self._transport is not None:
            self._transport.write(data)

    @property
    def unsent(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def close(self) -> None:
        """Flush and close."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Drop the connection now."""
        if self._transport is not None:
            self._transport.abort()

    # -- bytes in -----------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        if self._tail:
            data = self._tail + data
        if self.on_acks is not None and self._greeted.done():
            data = self.on_acks(data)
        self._tail = self._parse(data) if data else b""
        if len(self._tail) > _MAX_PARTIAL:
            self.error = "(a message larger than 64 MiB)"
            self.abort()

    def _parse(self, data: bytes) -> bytes:
        """Handle all complete messages in `data`; the incomplete rest."""
        out: list[Received] = []
        at, size, find = 0, len(data), data.find
        make = tuple.__new__  # half of Received(…)'s time
        while True:
            end = find(b"\r\n", at)
            if end < 0:
                break
            first = data[at]
            if first == 0x4D:  # MSG subject sid [reply] size
                words = data[at:end].split(b" ")
                stop = end + 2 + int(words[-1])
                if stop + 2 > size:
                    break
                reply = words[3] if len(words) == 5 else b""
                out.append(make(Received, (words[1], reply, b"", data[end + 2 : stop])))
                at = stop + 2
            elif first == 0x48:  # HMSG subject sid [reply] header_size total_size
                words = data[at:end].split(b" ")
                stop = end + 2 + int(words[-1])
                if stop + 2 > size:
                    break
                body = end + 2 + int(words[-2])
                reply = words[3] if len(words) == 6 else b""
                out.append(make(Received, (words[1], reply, data[end + 2 : body], data[body:stop])))
                at = stop + 2
            else:
                self._control(data[at:end])
                at = end + 2
        if out:
            self._on_batch(out)
        return data[at:] if at else data

    def _control(self, line: bytes) -> None:
        if line == b"PING":
            self.write(b"PONG\r\n")
        elif line == b"PONG":
            if not self._greeted.done():
                self._greeted.set_result(None)
        elif line.startswith(b"INFO "):
            if not self._info.done():
                self._info.set_result(json.loads(line[5:]))
        elif line.startswith(b"-ERR"):
            self.error = line[5:].decode("utf-8", "replace")


async def open_wire(
    url: Address,
    name: str,
    on_batch: Callable[[list[Received]], None],
    on_lost: Callable[[], None],
) -> NatsWire:
    """Connect to the first reachable server of `url` (comma-separated); TransportUnavailable when none answers."""
    loop = asyncio.get_running_loop()
    problem: Exception | None = None
    servers = address(url)
    for one in servers.split(","):
        parts = urlsplit(one.strip())
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                _, wire = await loop.create_connection(
                    lambda: NatsWire(on_batch, on_lost), parts.hostname or "127.0.0.1", parts.port or 4222
                )
                try:
                    await wire.greet(one.strip(), name)
                except BaseException:
                    wire.abort()
                    raise
                return wire
        except (OSError, TransportUnavailable, ssl.SSLError) as error:  # TimeoutError is an OSError
            problem = error
    where = ", ".join(f"{urlsplit(u).hostname}:{urlsplit(u).port or 4222}" for u in servers.split(","))
    raise TransportUnavailable(
        f"no NATS server answers at {where}", "start it (`ssmd up` does) or correct spec.middleware.transport.url"
    ) from problem
